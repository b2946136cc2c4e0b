"""What people see while they wait, and tables. Everything here goes to stderr but `table`."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .report import FIGURES, number

if TYPE_CHECKING:
    from .checkup import Checkup
    from .measuring.diagnosis import Examination


class Unheard(Console):
    """It goes on where nobody reads any more: a training is worth more than its lines."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


# Without `emoji`, the :100: of a message about line 100 would be a picture.
err = Unheard(stderr=True, highlight=False, soft_wrap=True, emoji=False)


class Training:
    """Shows training: a live bar on a terminal, one line a validation elsewhere."""

    def __init__(self) -> None:
        self.bar = Progress(
            TextColumn("[bold]{task.fields[epoch]}"),
            BarColumn(bar_width=18),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=err,
            transient=True,
        )
        self.units = ""
        self.task: Any = None

    def __call__(self, event: str, record: dict[str, Any]) -> None:
        getattr(self, f"_{event}")(record)

    def _corpus(self, r: dict[str, Any]) -> None:
        err.print(
            f"corpus     {r['train']:,} train, {r['valid']:,} valid, {r['test']:,} test sentences, "
            f"{r['mean_length']:.1f} tokens a sentence"
        )
        if any(r["dropped"].values()):
            each = ", ".join(f"{count:,} {part}" for part, count in r["dropped"].items())
            err.print(
                f"           {each} sentences longer than {r['max_tokens']} tokens were left out; "
                "--set corpus.max_tokens=N keeps them"
            )
        err.print(
            f"tokenizer  {r['tokenizer']}, {r['vocabulary']:,} tokens: {r['reason']}", markup=False
        )

    def _start(self, r: dict[str, Any]) -> None:
        err.print(f"model      {r['parameters']:,} parameters")
        if r["step"]:
            err.print(f"resumed at step {r['step']:,}")
        if err.is_terminal:
            self.bar.start()
            self.task = self.bar.add_task("", total=1.0, epoch="epoch 0", figures="")

    def _train(self, r: dict[str, Any]) -> None:
        if self.task is None:
            return
        figures = (
            f"bound {r['elbo']:.2f}  KL {r['kl']:.2f} x {r['beta']:.2f}{self.units}  "
            f"{r['words_per_second']:,.0f} words/s"
        )
        self.bar.update(
            self.task, completed=r["progress"], epoch=f"epoch {r['epoch']:.1f}", figures=figures
        )

    def _valid(self, r: dict[str, Any]) -> None:
        self.units = f"  {r['active_units']} active"
        err.print(
            f"epoch {r['epoch']:5.2f}  step {r['step']:6d}  valid bound {r['elbo']:8.2f}  "
            f"KL {r['kl']:5.2f}  MI {r['mi']:4.2f}  active {r['active_units']:3d}  "
            f"PPL <= {r['ppl_bound']:.1f}  {r['seconds']:.0f} s"
        )

    def _note(self, r: dict[str, Any]) -> None:
        err.print(r["text"], markup=False)

    def stop(self) -> None:
        if self.task is not None:
            self.bar.stop()

    def _end(self, r: dict[str, Any]) -> None:
        self.stop()
        if r["ended"] != "interrupted":
            err.print(f"done: {r['ended']}, {r['step']:,} steps, {r['seconds'] / 60:.1f} minutes")

    def _verdict(self, r: dict[str, Any]) -> None:
        err.print(f"verdict    {r['verdict']}: {r['reasons'][0]}", markup=False)
        for command in r["commands"][:1]:
            err.print(f"to try     {command}", markup=False)


@contextmanager
def counting(what: str, total: int) -> Iterator[Any]:
    """A bar over `total` sentences; yields the function that is told how many more are done."""
    if not err.is_terminal:
        yield lambda done: None
        return
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


def table(columns: dict[str, dict[str, float]]) -> None:
    """Figures down, one column a table of `evaluate`; on stdout."""
    grid = Table(box=None, pad_edge=False)
    grid.add_column("")
    for name in columns:
        grid.add_column(escape(name), justify="right")
    for key, (label, form, _) in FIGURES.items():
        if any(key in c for c in columns.values()):
            grid.add_row(label, *(number(c.get(key), form) for c in columns.values()))
    # A pipe has no width: without one, rich would fold long names.
    width = None if sys.stdout.isatty() else 200
    Console(highlight=False, emoji=False, width=width).print(grid)


QUALITY = {
    "distinct_1": ("distinct-1", "different words over all words of the samples"),
    "distinct_2": ("distinct-2", "the same of pairs"),
    "distinct_3": ("distinct-3", "the same of triples"),
    "self_bleu": ("self-BLEU", "of a sample against all others; high is repetitive"),
    "novelty": ("novel", "samples that are no training sentence"),
    "nearest": ("to the nearest", "edits to the nearest training sentence, of the longer one"),
    "forward_ppl": ("forward PPL", "of samples under the judge"),
    "forward_ppl_stderr": ("  standard error", "over sentences"),
    "reverse_ppl": ("reverse PPL", "of real text under a language model of samples"),
    "reverse_ppl_stderr": ("  standard error", "over sentences, of one model"),
    "unknown": ("unknown", "tokens of samples that the judge does not know"),
    "length": ("tokens", "mean length"),
    "lengths_apart": ("lengths apart", "total variation from the real distribution of length"),
    "reconstruction_exact": ("reconstructed", "word for word, greedily"),
    "reconstruction_bleu": ("reconstruction BLEU", "of the same"),
    "step": ("step", "edits from point to point of a walk of 7 between two sentences"),
    "ends_apart": ("ends apart", "edits from its first point to its last"),
    "walk_nll": ("NLL on the way", "nats a token of what is written between the ends"),
    "ends_nll": ("NLL of the ends", "nats a token of both ends, decoded"),
    "probe": ("linear probe", "labels read off posterior means"),
    "probe_majority": ("by guessing", "the share of the commonest label"),
    "mig": ("MIG", "how far one dimension is ahead in telling a factor"),
    "dci_disentanglement": ("disentanglement", "a dimension is about one factor"),
    "dci_completeness": ("completeness", "a factor is in one dimension"),
    "dci_informativeness": ("informativeness", "factors read off z by linear probes"),
    "factors_majority": ("by guessing", "the share of each factor's commonest value"),
}
"""Key of `appraisal.appraise` -> (name, explanation)."""


def quality(found: dict[str, float]) -> None:
    """The second table of `evaluate`, beside the same of real held-out text; on stdout."""
    print(f"\n{'':22}{'here':>9}{'real':>9}")
    for key, (name, meaning) in QUALITY.items():
        if key in found:
            real = number(found[f"{key}_real"], ".3f") if f"{key}_real" in found else ""
            print(f"{name:22}{number(found[key], '.3f'):>9}{real:>9}  {meaning}")


def fitted(folder: Path, found: dict[str, Any]) -> None:
    """What a fitted prior gained, on stdout."""

    def both(key: str, form: str) -> str:
        return f"{number(found[f'{key}_own'], form)} -> {number(found[key], form)}"

    told = "unavailable: a diffusion can be sampled, but has no likelihood"
    if math.isfinite(found["improvement"]):
        gained = f"{found['improvement']:+.2f} ± {number(found['improvement_stderr'])}"
        told = f"{both('log_pz', '.2f')} nats a sentence: {gained} for the bound"
    print(f"{found['kind']} prior, fitted to {found['sentences']:,} sentences: {folder}")
    print(f"log p(z) of {found['held_out']:,} held-out sentences: {told}")
    print(f"energy distance of samples from them: {both('distance', '.4f')}")
    if found["improvement"] < 0:
        err.print("the trained prior is the better one: use --own-prior, or remove the folder")


def examination(found: "Checkup") -> None:
    """What the doctor says, on stdout: verdict, reasons, figures, and what to paste."""
    out = Console(highlight=False, soft_wrap=True, emoji=False)
    e, commands = found.figures, found.commands
    out.print(f"[bold]{found.diagnosis.verdict}[/bold]")
    for reason in found.diagnosis.reasons:
        out.print(f"  {reason}", markup=False)
    if e.tokens == e.tokens:  # a language model has no figures
        out.print()
        for name, value, meaning in examined(e):
            out.print(f"{name:22}{value:>18}  {meaning}", markup=False)
    if commands:
        out.print("\nto try" + (", either of" * (len(commands) > 1)))
    for command in commands:
        out.print(f"  {command}", markup=False)


def examined(e: "Examination") -> list[tuple[str, str, str]]:
    """(name, figure, what it means) of an examination, nats per sentence."""
    units = " / ".join(f"{count}" for count in e.active_units.values())
    ranked = sorted(e.kl_per_dimension, reverse=True)
    several = " ".join(number(v) for v in ranked[:4]) + " .." * (len(ranked) > 4)
    own, whole = (sum(v) / e.latent for v in (e.posterior_variance, e.aggregate_variance))
    known = math.isfinite(e.moments_kl)
    by_moments = f"; at least {number(e.moments_kl)} by its moments" if known else ""
    rows = [
        ("bound", f"{number(e.elbo)} ± {number(e.elbo_stderr)}",
         f"ELBO on {e.sentences:,} validation sentences"),
        ("on training", number(e.train_elbo), f"the same on {e.train_sentences:,} training ones"),
        ("KL", number(e.kl), "what z is charged; the sum of the next two"),
        ("mutual information", number(e.mi),
         f"what z tells about its sentence; at most {number(e.mi_cap)} can be measured"),
        ("marginal KL", number(e.marginal_kl), "prior to average posterior" + by_moments),
        ("prior outside", number(e.outside, ".0%"),
         "prior samples where hardly any sentence lies (5% if none is missing)"),
        ("active units", units, f"of {e.latent}, at " + " / ".join(map(str, e.active_units))),
        ("KL per dimension", several, "largest first"),
        ("variance", f"{number(own)} / {number(whole)}",
         "of a posterior / of their aggregate, mean over dimensions"),
        ("z exchanged", f"{number(e.shuffled_gap)} ± {number(e.shuffled_gap_stderr)}",
         "what the decoder loses with the z of another sentence"),
        ("on training", number(e.train_shuffled_gap), "the same on training sentences"),
        ("z from the prior", f"{number(e.prior_gap)} ± {number(e.prior_gap_stderr)}",
         "what it loses with a z drawn blindly"),
        ("first words", number(e.first_share, ".0%"),
         f"of that loss on the first {e.first_tokens} tokens; an even share is "
         f"{number(e.first_even, '.0%')}"),
        ("gradient norms",
         f"{number(e.encoder_gradient, '.3g')} / {number(e.decoder_gradient, '.3g')}",
         "of encoder / of decoder"),
    ]  # fmt: skip
    return [row for row in rows if row[1].strip(" –")]


COMPARED = ("nll", "nll_stderr", "ppl", "ppl_stderr", "bits_per_byte", "elbo", "reconstruction",
            "kl", "mi", "active_units", "sentences", "samples")  # fmt: skip


def markdown(columns: dict[str, dict[str, float]]) -> str:
    """One row a run, with the figures that are published."""
    rows = [["run", *COMPARED], ["---"] * (len(COMPARED) + 1)]
    for name, held in columns.items():
        figures = (number(held.get(key), FIGURES[key][1]) for key in COMPARED)
        rows.append([name, *figures])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

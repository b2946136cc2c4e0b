"""The commands that measure: evaluate, fit-prior, compare, doctor, report."""

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from ..plain_json import dumps
from ..seeds import LARGEST
from ..text.tolerance import unread
from .options import (
    Devices,
    Json,
    OwnPrior,
    Run,
    Samples,
    Seed,
    open_model,
    say,
    spread,
    warn_unavailable,
    warn_unknown,
)

if TYPE_CHECKING:
    from ..bundle import TextVAE


def evaluate(
    run: Run,
    source: Annotated[str, typer.Argument(help="A file, or valid / test: the run's own.")] = "test",
    samples: Samples = 500,
    seed: Seed = 0,
    as_json: Json = False,
    own_prior: OwnPrior = False,
    devices: Devices = None,
    proposal: Annotated[
        bool,
        typer.Option(
            "--proposal", help="Samples from a richer Gaussian, fitted for minutes: a tighter NLL."
        ),
    ] = False,
    sampled_words: Annotated[
        int,
        typer.Option(min=0, help="Estimate the NLL by so many words a position: 512 will do."),
    ] = 0,
    quality: Annotated[
        bool, typer.Option("--quality", help="Also the text and the latent, on the run's corpus.")
    ] = False,
    judge: Annotated[
        Path | None,
        typer.Option(
            help="A run of --recipe lm, the same one for all that is compared: "
            "--quality then has its perplexities too."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a table that is by more samples.")
    ] = False,
) -> None:
    """The table: importance-weighted NLL, PPL, bits per byte, KL, information, active units.

    Under the fitted prior, if there is one. With --proposal the importance samples of the NLL are
    of Gaussians of any covariance, fitted to the run's validation sentences; all else is of the
    model's own posterior. With --sampled-words the NLL's normalisers are made of so many words of
    the vocabulary, which is faster, and the table says how far that is off on twenty sentences.
    With --quality a second table: diversity and novelty of samples, reconstructions, walks between
    sentences, what a probe reads off z. With --judge also forward and reverse perplexity, for which
    two language models are trained: minutes.
    """
    if judge is not None and not quality:
        raise UserError("--judge is for --quality: give both")
    spread(devices)
    from .. import console, evaluation, processes
    from ..learning.proposals import STEPS, Proposal
    from ..text.corpus import Corpus

    if judge is not None and processes.together():
        raise UserError("--judge trains language models in one process: leave --devices out")
    model = open_model(run, own_prior)
    known = None
    if judge is not None:
        from ..judging import open_judge  # brings all of training with it

        known = open_judge(judge)
    warn_unavailable(model)
    name = evaluation.under(model, source) + ", fitted proposal" * proposal
    exact = not model.latent or sampled_words >= len(model.vae.head.bias)
    own = source in ("valid", "test")
    if own and not force:
        words = f", {sampled_words} words" * (sampled_words > 0 and not exact)
        evaluation.spare(run, name + words, samples)
    corpus = cache(lambda: Corpus.open(run / "corpus"))

    def fitted() -> Proposal:
        with console.counting("fitting a proposal", STEPS) as told:
            return evaluation.proposal_for(model, corpus().valid, seed=seed, progress=told)

    how: dict[str, Any] = {"seed": seed, "words": sampled_words}
    how["proposal"] = fitted if proposal else None
    if quality:
        corpus()  # that there is none should be said before what takes minutes
    if own:
        store = getattr(corpus(), source)
        with console.counting("evaluating", len(store)) as progress:
            found = evaluation.evaluate_store(model, store, samples, progress=progress, **how)
    else:
        found = evaluation.evaluate_file(model, source, samples, **how)
    if found.get("words"):
        name += f", {found['words']} words"
    elif sampled_words and not model.latent:
        print("a language model's likelihood is exact: --sampled-words is for samples of z",
              file=sys.stderr)  # fmt: skip
    elif sampled_words >= len(model.vae.head.bias):
        print("so many --sampled-words are all that there are: this is exact", file=sys.stderr)
    if own:
        keep(run, name, found, model)
    else:
        if found["left_out"]:
            print(
                f"left out, being longer than the {model.config.corpus.max_tokens} tokens it was "
                f"trained on: {found['left_out']:,.0f} line" + "s" * (found["left_out"] != 1),
                file=sys.stderr,
            )
        if found["unreadable"]:
            how_bad = model.config.corpus.on_bad
            print(unread(int(found["unreadable"]), how_bad), file=sys.stderr)
        warn_unknown(int(found["unknown"]))
    if not as_json:
        console.table({name: found})
    second: dict[str, Any] = {}
    if quality:
        from ..appraisal import appraise

        second = {"quality": appraise(model, corpus(), judge=known, seed=seed)}
    if as_json:
        say(dumps(found | second))
    elif quality:
        console.quality(second["quality"])


def keep(run: Path, name: str, found: dict[str, float], model: "TextVAE") -> None:
    """With the run, where that can be: what was measured for minutes is shown in any case."""
    from .. import evaluation

    try:
        if not evaluation.keep_evaluation(run, name, found, model.weights):
            print(f"{run} was trained on meanwhile: this is of its model before", file=sys.stderr)
    except (OSError, UserError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        print(f"{run} cannot be written to ({why}): not kept there", file=sys.stderr)


def fit_prior(
    run: Run,
    kind: Annotated[str, typer.Option(help="mog, flow, diffusion or aggregate.")] = "mog",
    set_: Annotated[list[str], typer.Option("--set", help="A setting of the prior, a=b.")] = [],  # noqa: B006
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST, help="The same seed gives the same prior.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Gradient steps at most.")] = 3000,
    force: Annotated[bool, typer.Option("--force", help="Replace a fitted prior.")] = False,
    as_json: Json = False,
) -> None:
    """Fit a richer prior to where the training sentences lie; `sample` and `evaluate` then use it.

    Encoder and decoder stay as they are. Tells how much the validation bound gains.

    [bold]Examples[/bold]

      midsentence fit-prior runs/poems --kind mog --set components=100

      midsentence fit-prior runs/poems --kind flow --set flow=maf --force

      midsentence fit-prior runs/poems --kind diffusion       samples well, has no likelihood

      midsentence fit-prior runs/poems --kind aggregate       every training sentence's posterior

      midsentence sample runs/poems --own-prior               the prior it was trained with
    """
    from .. import console, prior_fitting

    with console.counting("fitting", steps) as progress:
        found = prior_fitting.fit_prior(
            run, kind, set_, seed=seed, steps=steps, force=force, progress=progress
        )
    say(dumps(found)) if as_json else console.fitted(run / "prior", found)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)],
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="A Markdown table.")] = False,
) -> None:
    """Runs side by side: the test tables of `evaluate`, or the quick ones made after training where
    not all have been evaluated, and the same under fitted priors."""
    from .. import console, evaluation

    columns, notes = evaluation.side_by_side(runs)
    for note in notes:
        print(note, file=sys.stderr)
    if as_json:
        say(dumps(columns))
    elif markdown:
        say(console.markdown(columns))
    else:
        console.table(columns)


def doctor(
    run: Run,
    sentences: Annotated[
        int, typer.Option(min=2, help="Validation and training sentences at most, each.")
    ] = 1000,
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGEST, help="Fixes the sample; the run's own.")
    ] = None,
    own_prior: OwnPrior = False,
    as_json: Json = False,
) -> None:
    """What is wrong with the latent space, why, and a command that tries to mend it.

    [bold]Examples[/bold]

      midsentence doctor runs/poems

      midsentence doctor runs/poems --sentences 5000          slower, with less noise

      midsentence doctor runs/poems --json | jq .verdict

    The verdict is healthy, collapsing, collapsed, over-fitted latent, prior hole, first words only,
    diverged, or no latent (a language model). Figures are nats per sentence, on validation
    sentences.
    """
    from .. import checkup, console

    found = checkup.doctor(run, sentences=sentences, seed=seed, own_prior=own_prior)
    if as_json:
        told = {"commands": found.commands, "figures": vars(found.figures)}
        say(dumps(vars(found.diagnosis) | told))
    else:
        console.examination(found)


def report(run: Run) -> None:
    """Draw report.html of a run afresh."""
    from ..reporting import write_report

    write_report(run)
    say(str(run / "report.html"))


COMMANDS = (evaluate, fit_prior, compare, doctor, report)

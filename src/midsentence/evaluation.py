"""What is measured of a run: which sentences, by which estimator, and the tables that are kept."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import processes
from .bundle import TextVAE
from .errors import UserError
from .learning.proposals import Proposal, fit_proposal
from .measuring.likelihood import evaluate
from .measuring.survey import InMemory, Sentences
from .opening import digest, read_json
from .plain_json import dumps
from .text.readers import Line, read
from .text.tokenizer import UNK
from .text.tolerance import Bad
from .writing import write_whole

Fitting = Callable[[], Proposal]


def evaluate_store(
    model: TextVAE,
    store: Any,
    samples: int,
    *,
    proposal: Fitting | None = None,
    words: int = 0,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """`measuring.likelihood.evaluate` of a token store (or a pick of one). Raises UserError.

    proposal: fits one, which takes minutes: it is asked for when there is something to evaluate.
    """
    if not len(store):
        raise UserError("this part of the run has no sentences: evaluate another, or give a file")
    return evaluate(
        model.vae, store, store.sizes, samples,
        proposal=proposal and proposal(), words=words, seed=seed, progress=progress,
    )  # fmt: skip


def evaluate_file(
    model: TextVAE,
    source: str,
    samples: int,
    *,
    proposal: Fitting | None = None,
    words: int = 0,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """The same for the lines of a file, read as the training corpus was; `left_out` counts those of
    more tokens than it was trained on (`corpus.max_tokens`), `unreadable` those that the training
    would have left out or mended (`corpus.on_bad`), not having been able to read them, and
    `unknown` the tokens that the vocabulary lacks, or that are written so, scored as ``<unk>``.

    Of several processes only the first reads, for a standard input or a pipe can be read but once,
    and tells the others.
    """
    asked = model.config.corpus

    def find() -> tuple[list[Line], int]:
        bad = Bad(asked.on_bad)
        found = read(
            source,
            text_field=asked.text_field,
            label_field=asked.label_field,
            max_chars=asked.max_chars,
            bad=bad,
        )
        return list(found), bad.count

    held, unreadable = processes.from_first(find)
    lines = [line.text for line in held]
    every = model.ids(lines, [line.label for line in held] if model.labels else None)
    short = np.flatnonzero(every.lengths <= asked.max_tokens).tolist()
    if not short:
        raise UserError(f"every line of {source} is over corpus.max_tokens = {asked.max_tokens}")
    labels = None if every.labels is None else every.labels[short]
    sentences = InMemory([every[i] for i in short], labels)
    sizes = np.array([len(lines[i].encode()) for i in short])
    found = evaluate(
        model.vae, sentences, sizes, samples,
        proposal=proposal and proposal(), words=words, seed=seed, progress=progress,
    )  # fmt: skip
    unknown = int(sentences.count(UNK).sum())
    left_out = len(held) - len(short)
    return found | {"left_out": left_out, "unreadable": unreadable, "unknown": unknown}


def proposal_for(
    model: TextVAE,
    sentences: Sentences,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Proposal:
    """`learning.proposals.fit_proposal`; of several processes the first does it for all."""
    made = Proposal(model.vae)
    made.load_state_dict(
        processes.from_first(
            lambda: fit_proposal(model.vae, sentences, seed=seed, progress=progress).state_dict()
        )
    )
    return made


def spare(run: Path, name: str, samples: int) -> None:
    """Raises UserError where the run's table of this name is by more samples: it took longer."""
    held = evaluations(run).get(name, {}).get("samples", 0)
    if held > samples:
        raise UserError(
            f"{run} has a table {name!r} by {held:,.0f} samples, more than {samples:,}: "
            "add --force to replace it"
        )


def keep_evaluation(
    run: Path, name: str, table: dict[str, float], weights: str | None = None
) -> bool:
    """Put a table into ``evaluation.json`` of the run, for `compare` and the report. One of other
    `weights` than the run's, which was trained on meanwhile, is not kept, and False."""
    if weights not in (None, digest(run / "model.safetensors")):
        return False
    write_evaluations(run, evaluations(run) | {name: table})
    return True


def write_evaluations(run: Path, tables: dict[str, dict[str, float]]) -> None:
    """Write all tables, bound to the weights they are of."""
    if not processes.first():
        return
    path, weights = run / "evaluation.json", {"weights": digest(run / "model.safetensors")}
    write_whole(path, lambda p: p.write_text(dumps(weights | tables, indent=1)))


def evaluations(run: Path) -> dict[str, dict[str, float]]:
    """The tables of a run; what is unavailable is nan, as when it was measured. None of what other
    weights were measured by, before a training went on."""
    path = run / "evaluation.json"
    held = read_json(path) if path.exists() else {}
    try:
        weights = held.pop("weights", None)  # older runs name none
        if weights is not None and weights != digest(run / "model.safetensors"):
            return {}
        found = {
            name: {key: math.nan if value is None else float(value) for key, value in table.items()}
            for name, table in held.items()
        }
        if not all(map(str.isprintable, found)):  # names are shown: nothing that moves a cursor
            raise ValueError
        return found
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path} is damaged: remove it, and evaluate again") from None


def side_by_side(runs: Sequence[Path]) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The tables of a part of the text that all runs were evaluated on, the test's if it can be,
    and what is to be known of them. Raises UserError where there is none."""
    for run in runs:
        if not run.is_dir():
            raise UserError(f"{run}: no such folder")
    held = {run: evaluations(run) for run in runs}
    for run, tables in held.items():
        if not tables:
            if (run / "manifest.json").exists() and not (run / "corpus").is_dir():
                raise UserError(f"{run} is exported, without a corpus: compare the run it is of")
            raise UserError(f"{run} has no evaluation yet: midsentence evaluate {run}")
    parts = {run: [name.partition(", ")[0] for name in tables] for run, tables in held.items()}
    common = [part for part in parts[runs[0]] if all(part in each for each in parts.values())]
    without = [run for run, each in parts.items() if "test" not in each]
    if not common:
        raise UserError(
            f"the runs were not evaluated on the same part: midsentence evaluate {without[0]}"
        )
    # The quick one is of fewer sentences and samples than any that was asked for.
    part = min(common, key=lambda part: (part != "test", part == "quick"))
    notes = []
    if 0 < len(without) < len(held):
        notes = [f"not all have a test table: midsentence evaluate {without[0]}"]
    columns = {
        f"{run} ({name})": table
        for run, tables in held.items()
        for name, table in tables.items()
        if name.partition(", ")[0] == part
    }
    if len({(table.get("sentences"), table.get("bytes")) for table in columns.values()}) > 1:
        notes.append("these are not of as many sentences and bytes each: not the same text")
    return columns, notes


def under(model: TextVAE, part: str) -> str:
    """What a table of `part` is called: one under a fitted prior never replaces the model's own."""
    return part if model.fitted is None else f"{part}, {model.fitted.kind} prior"


def own_prior(name: str) -> bool:
    """Whether the table of this name is under the prior the model was trained with."""
    return " prior" not in name

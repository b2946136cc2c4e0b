"""From a finished run to its report: what is measured and written for the page."""

from pathlib import Path
from typing import Any

import numpy as np

from . import processes
from .bundle import TextVAE
from .checkup import SENTENCES, Checkup, checkup
from .config import Config
from .evaluation import evaluations
from .learning.records import read as read_records
from .report import Report
from .text.corpus import Corpus
from .text.readers import PARTS
from .text.store import pick


def describe(config: Config, data: Corpus) -> dict[str, Any]:
    """The corpus in figures, for people."""
    words = int(data.train.lengths.sum())
    return {
        "train": len(data.train),
        "valid": len(data.valid),
        "test": len(data.test),
        "words": words,
        "mean_length": words / len(data.train),
        "vocabulary": data.tokenizer.vocab_size,
        "tokenizer": data.tokenizer.kind,
        "reason": data.tokenizer.reason,
        "labels": list(data.train.label_names),
        "dropped": {part: getattr(data, part).dropped for part in PARTS},
        "max_tokens": config.corpus.max_tokens,
    }


def write_report(run: Path) -> Checkup | None:
    """Draw ``report.html`` of a finished run afresh, under its own prior.

    Returns what the doctor says, or None of too few sentences. Raises UserError.
    """
    model = TextVAE.from_pretrained(run, prior="own")
    data = Corpus.open(run / "corpus")
    records = read_records(run / "metrics.jsonl")
    train, valid = ([r for r in records if r.get("kind") == kind] for kind in ("train", "valid"))
    seed = model.config.seed
    held_out = pick(data.valid, SENTENCES, seed)
    # Sentences of middling length show most: short ones are easy, long ones hopeless.
    middling = np.abs(held_out.lengths - np.median(held_out.lengths)).argsort(kind="stable")
    rows = held_out.rows[middling[:7]]
    shown = data.valid.text(data.tokenizer, rows)
    names = dict(enumerate(data.valid.label_names))
    given = [-1] * len(rows) if held_out.labels is None else held_out.labels[middling[:7]].tolist()
    labels = [names.get(row) for row in given]
    reconstructions: list[tuple[str, str]] = []
    interpolation: list[str] = []
    if model.latent:
        reconstructions = list(
            zip(shown[:6], model.reconstruct(shown[:6], label=labels[:6]), strict=True)
        )
        interpolation = model.interpolate(shown[0], shown[-1], 8)
    found = checkup(run, model, data) if min(len(held_out), len(data.train)) > 1 else None
    facts = describe(model.config, data)
    last = records[-1] if records else {"seconds": 0.0, "step": 0}
    report = Report(
        title=run.resolve().name,
        summary={
            "corpus": str(model.config.corpus.source),
            "sentences": " / ".join(f"{facts[part]:,} {part}" for part in PARTS),
            "tokenizer": f"{facts['tokenizer']}, {facts['vocabulary']:,} tokens: {facts['reason']}",
            "recipe": model.config.recipe,
            "parameters": f"{model.parameters:,}",
            "trained": f"{last['seconds'] / 60:.1f} min, {last['step']:,} steps",
        },
        settings=model.config.model_dump(exclude_none=True),
        train=train,
        valid=valid,
        table=evaluations(run),
        kl_per_dimension=found.figures.kl_per_dimension if found else [],
        samples=model.sample(10, seed=seed),
        reconstructions=reconstructions,
        interpolation=interpolation,
        diagnosis=found.diagnosis if found else None,
    )
    if processes.first():
        report.write(run / "report.html")
    return found

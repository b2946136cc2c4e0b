"""From a text file to a trained model and its report: what `midsentence train` does, in Python."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import config as configuration
from .bundle import TextVAE
from .config import Config
from .errors import UserError
from .learning import checkpoint, trainer
from .learning.trainer import Listener
from .measuring.diagnosis import diagnose
from .measuring.doctor import examine
from .measuring.likelihood import Sentences, evaluate, survey
from .plain_json import dumps
from .report import Report
from .text.corpus import Corpus, prepare
from .text.readers import PARTS, read

QUICK_SENTENCES, QUICK_SAMPLES = 1000, 50
MOST_LABELS = 1000


def train(
    corpus: str,
    out: str | Path,
    *,
    recipe: str | None = None,
    file: Path | None = None,
    settings: Sequence[str] = (),
    valid: str | None = None,
    test: str | None = None,
    resume: bool = False,
    listener: Listener = lambda event, record: None,
) -> TextVAE | None:
    """Train on `corpus` (a path, ``-`` or ``builtin:NAME``) into the folder `out`.

    settings: ``a.b=c`` strings, as ``--set`` takes them. listener: told "corpus", "start", "train",
    "valid", "end" with a record each. Returns the model with the best validation bound, or None
    when training was interrupted before there was one. Raises UserError.
    """
    out = Path(out)
    if resume:
        config, data = _resume(corpus, out, recipe, settings)
    else:
        config, data = _begin(corpus, out, recipe, file, settings, valid, test)
    if config.training.tensorboard:
        listener = tensorboard(out / "tensorboard", listener)
    listener("corpus", describe(config, data))
    at = trainer.train(config, data, out, resume=resume, listener=listener)
    if at.ended == "interrupted":
        return None
    model = TextVAE.from_pretrained(out, config.training.device, prior="own")
    quick = pick(data.test if len(data.test) else data.valid, QUICK_SENTENCES, config.seed)
    keep_evaluation(out, "quick", evaluate_store(model, quick, QUICK_SAMPLES))
    write_report(out)
    return model


def tensorboard(folder: Path, listener: Listener) -> Listener:
    """`listener`, with every figure also written for TensorBoard. Raises UserError without it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            'training.tensorboard needs: pip install "midsentence[tensorboard]"'
        ) from None
    writer = SummaryWriter(folder)

    def both(event: str, record: dict[str, Any]) -> None:
        if event in ("train", "valid"):
            for name, value in record.items():
                if name not in ("kind", "step"):
                    writer.add_scalar(f"{event}/{name}", value, record["step"])
        elif event == "end":
            writer.close()
        listener(event, record)

    return both


def _begin(
    corpus: str,
    out: Path,
    recipe: str | None,
    file: Path | None,
    settings: Sequence[str],
    valid: str | None,
    test: str | None,
) -> tuple[Config, Corpus]:
    config = configuration.compose(recipe, file, list(settings))
    if (out / "config.toml").exists():
        raise UserError(f"{out} already holds a run: choose another --out, or add --resume")
    if out.exists() and (not out.is_dir() or any(f.name != "corpus" for f in out.iterdir())):
        raise UserError(f"{out} is not empty and not a run: choose another --out")
    asked = config.corpus
    asked.source, asked.valid, asked.test = corpus, valid, test
    data = prepare(
        corpus,
        out / "corpus",
        valid=valid,
        test=test,
        text_field=asked.text_field,
        label_field=asked.label_field,
        valid_fraction=asked.valid_fraction,
        test_fraction=asked.test_fraction,
        seed=config.seed,
        tokenizer_settings=config.tokenizer.model_dump(),
        max_tokens=asked.max_tokens,
        max_chars=asked.max_chars,
    )
    config.labels.shares = label_shares(data) if config.labels.condition else {}
    checkpoint.write_whole(out / "config.toml", config.save)
    return config, data


def label_shares(data: Corpus) -> dict[str, float]:
    """Each label's part of the training lines. Raises UserError for too many to be labels."""
    labels, names = data.train.labels, data.train.label_names
    if labels is None or not names:
        return {}
    if len(names) > MOST_LABELS:
        raise UserError(
            f"the label field has {len(names):,} different values, more than {MOST_LABELS:,}: "
            "choose another --label-field, or --set labels.condition=false"
        )
    counts = np.bincount(labels[labels >= 0], minlength=len(names)) / len(labels)
    return {name: float(share) for name, share in zip(names, counts, strict=True)}


def _resume(
    corpus: str, out: Path, recipe: str | None, settings: Sequence[str]
) -> tuple[Config, Corpus]:
    if not (out / "config.toml").exists():
        raise UserError(f"{out} holds no run to resume; train without --resume")
    config = configuration.load(out / "config.toml")
    if corpus != config.corpus.source:
        raise UserError(f"{out} was trained on {config.corpus.source!r}, not on {corpus!r}")
    if recipe and recipe != config.recipe:
        raise UserError(f"{out} was begun with recipe {config.recipe!r}; leave --recipe out")
    return configuration.override(config, list(settings)), Corpus.open(out / "corpus")


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
        "dropped": data.train.dropped,
        "max_tokens": config.corpus.max_tokens,
    }


class Pick:
    """Some sentences of a store, in an order of their own."""

    def __init__(self, store: Any, rows: np.ndarray):
        self.store, self.rows = store, rows
        self.lengths, self.sizes = store.lengths[rows], np.asarray(store.sizes)[rows]
        self.labels = None if store.labels is None else store.labels[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.store[int(self.rows[index])]


def pick(store: Any, most: int, seed: int) -> Pick:
    """At most `most` sentences, drawn without replacement."""
    rows = np.random.default_rng(seed).permutation(len(store))[:most]
    return Pick(store, np.sort(rows))


def evaluate_store(
    model: TextVAE,
    store: Any,
    samples: int,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """`measuring.likelihood.evaluate` of a token store (or a pick of one)."""
    return evaluate(model.vae, store, store.sizes, samples, seed=seed, progress=progress)


def evaluate_file(
    model: TextVAE,
    source: str,
    samples: int,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """The same for the lines of a file, read as the training corpus was."""
    asked = model.config.corpus
    held = list(
        read(
            source,
            text_field=asked.text_field,
            label_field=asked.label_field if model.labels else None,
            max_chars=asked.max_chars,
        )
    )
    lines = [line.text for line in held]
    sentences: Sentences = model.ids(lines, [line.label for line in held])
    sizes = np.array([len(line.encode()) for line in lines])
    return evaluate(model.vae, sentences, sizes, samples, seed=seed, progress=progress)


def keep_evaluation(run: Path, name: str, table: dict[str, float]) -> None:
    """Put a table into ``evaluation.json`` of the run, for `compare` and the report."""
    write_evaluations(run, evaluations(run) | {name: table})


def write_evaluations(run: Path, tables: dict[str, dict[str, float]]) -> None:
    path = run / "evaluation.json"
    checkpoint.write_whole(path, lambda p: p.write_text(dumps(tables, indent=1)))


def evaluations(run: Path) -> dict[str, dict[str, float]]:
    """The tables of a run; what is unavailable is nan, as when it was measured."""
    path = run / "evaluation.json"
    held = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return {
        name: {key: math.nan if value is None else value for key, value in table.items()}
        for name, table in held.items()
    }


def under(model: TextVAE, part: str) -> str:
    """What a table of `part` is called: one under a fitted prior never replaces the model's own."""
    return part if model.fitted is None else f"{part}, {model.fitted.kind} prior"


def write_report(run: Path) -> Path:
    """Draw ``report.html`` of a finished run afresh, under its own prior. Raises UserError."""
    model = TextVAE.from_pretrained(run, prior="own")
    data = Corpus.open(run / "corpus")
    path = run / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    train, valid = ([r for r in records if r["kind"] == kind] for kind in ("train", "valid"))
    seed = model.config.seed
    held_out = pick(data.valid, 1000, seed)
    # Sentences of middling length show most: short ones are easy, long ones hopeless.
    middling = np.abs(held_out.lengths - np.median(held_out.lengths)).argsort(kind="stable")
    rows = held_out.rows[middling[:7]]
    shown = data.valid.text(data.tokenizer, rows)
    names = dict(enumerate(data.valid.label_names))
    given = [-1] * len(rows) if held_out.labels is None else held_out.labels[middling[:7]].tolist()
    labels = [names.get(row) for row in given]
    kl: list[float] = []
    reconstructions: list[tuple[str, str]] = []
    interpolation: list[str] = []
    if model.latent:
        parts = survey(model.vae, held_out, seed).kl.mean(0).tolist()
        kl = parts if len(parts) == model.latent else []  # it has parts only between two Gaussians
        reconstructions = list(
            zip(shown[:6], model.reconstruct(shown[:6], label=labels[:6]), strict=True)
        )
        interpolation = model.interpolate(shown[0], shown[-1], 8)
    diagnosis = None
    if min(len(held_out), len(data.train)) > 1:
        examined = examine(model.vae, held_out, pick(data.train, 1000, seed), seed=seed)
        diagnosis = diagnose(examined, model.config.model_dump())
    facts = describe(model.config, data)
    last = records[-1] if records else {"seconds": 0.0, "step": 0}
    parameters = sum(p.numel() for p in model.vae.parameters())
    report = Report(
        title=run.resolve().name,
        summary={
            "corpus": str(model.config.corpus.source),
            "sentences": " / ".join(f"{facts[part]:,} {part}" for part in PARTS),
            "tokenizer": f"{facts['tokenizer']}, {facts['vocabulary']:,} tokens: {facts['reason']}",
            "recipe": model.config.recipe,
            "parameters": f"{parameters:,}",
            "trained": f"{last['seconds'] / 60:.1f} min, {last['step']:,} steps",
        },
        settings=model.config.model_dump(exclude_none=True),
        train=train,
        valid=valid,
        table=evaluations(run),
        kl_per_dimension=kl if len(kl) == model.latent else [],
        samples=model.sample(10, seed=seed),
        reconstructions=reconstructions,
        interpolation=interpolation,
        diagnosis=diagnosis,
    )
    report.write(run / "report.html")
    return run / "report.html"

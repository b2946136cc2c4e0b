"""From a text file to a trained model and its report: what `midsentence train` does, in Python."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from . import assembly, processes
from . import config as configuration
from .bundle import TextVAE
from .config import Config
from .errors import UserError
from .evaluation import evaluate_store, evaluations, keep_evaluation
from .learning import trainer
from .learning.records import read as read_records
from .learning.trainer import Listener
from .measuring.diagnosis import diagnose
from .measuring.doctor import examine
from .measuring.survey import survey
from .opening import verify_early
from .report import Report
from .sections import LONGEST_LABEL
from .text.corpus import Corpus, prepare
from .text.readers import PARTS
from .text.store import MANY, pick
from .writing import claimed, clean, write_whole

QUICK_SENTENCES, QUICK_SAMPLES = 1000, 50
MOST_LABELS = 1000


def train(
    corpus: str | Sequence[str],
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
    """Train on `corpus` into the folder `out`.

    corpus: a path, ``-``, ``builtin:NAME``, a pattern such as ``data/*.txt``, or several.

    settings: ``a.b=c`` strings, as ``--set`` takes them. listener: told "corpus", "start", "train",
    "valid", "end" with a record each. Returns the model with the best validation bound, or None
    when training was interrupted before there was one. Raises UserError.

    Under torchrun every process calls it and gets the same model; the first prepares the corpus,
    writes the files and tells the listener. All must see the folder.
    """
    out = Path(out)
    if not isinstance(corpus, str):
        corpus = corpus[0] if len(corpus) == 1 else list(corpus)
    processes.join()
    with processes.guarded(), ExitStack() as stack:

        def begin() -> tuple[Config, Corpus]:
            stack.enter_context(claimed(out))
            clean(out)
            clean(out / "checkpoints")
            if resume:
                return _resume(corpus, out, recipe, settings)
            return _begin(corpus, out, recipe, file, settings, valid, test, listener)

        def follow() -> tuple[Config, Corpus]:
            return _resume(corpus, out, recipe, settings if resume else ())

        try:
            config, data = processes.lead(begin, follow)
            return _train(config, data, out, resume, listener)
        except OSError as error:
            begun = (out / "config.toml").exists()
            raise UserError(
                f"{error.filename or out} cannot be written ({error.strerror or error}). "
                "What was saved before is whole: make room, then train again"
                + begun
                * " with --resume"
            ) from None


def _train(
    config: Config, data: Corpus, out: Path, resume: bool, listener: Listener
) -> TextVAE | None:
    if not processes.first():
        listener = _nobody
    elif config.training.tensorboard:
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


def _nobody(event: str, record: dict[str, Any]) -> None:
    pass


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
    corpus: str | list[str],
    out: Path,
    recipe: str | None,
    file: Path | None,
    settings: Sequence[str],
    valid: str | None,
    test: str | None,
    listener: Listener = lambda event, record: None,
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
        on_bad=asked.on_bad,
        told=lambda text: listener("note", {"text": text}),
    )
    if processes.together() and config.training.parts is None:
        config.training.parts = processes.count()  # so that fewer can go on with the same numbers
    config.labels.shares = label_shares(data) if config.labels.condition else {}
    write_whole(out / "config.toml", config.save)
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
    if longest := [name for name in names if len(name) > LONGEST_LABEL]:
        raise UserError(
            f"the label {longest[0][:40]!r}... has more than {LONGEST_LABEL} "
            "characters: choose another --label-field, or --set labels.condition=false"
        )
    counts = np.zeros(len(names) + 1)
    for start in range(0, len(labels), MANY):
        counts += np.bincount(labels[start : start + MANY] + 1, minlength=len(counts))
    counts = counts[1:] / len(labels)
    return {name: float(share) for name, share in zip(names, counts, strict=True)}


def _resume(
    corpus: str | list[str], out: Path, recipe: str | None, settings: Sequence[str]
) -> tuple[Config, Corpus]:
    if not (out / "config.toml").exists():
        raise UserError(f"{out} holds no run to resume; train without --resume")
    verify_early(out, assembly.FILES, mixed=True)
    config = configuration.load(out / "config.toml")
    if corpus != config.corpus.source:
        raise UserError(f"{out} was trained on {config.corpus.source!r}, not on {corpus!r}")
    if recipe and recipe != config.recipe:
        raise UserError(f"{out} was begun with recipe {config.recipe!r}; leave --recipe out")
    changed = configuration.override(config, list(settings))
    had, asked = config.optimizer["kind"], changed.optimizer["kind"]
    if had != asked:
        raise UserError(
            f"{out} was begun with optimizer.kind={had}, whose state {asked!r} can't go on with: "
            "leave that setting out, or train afresh"
        )
    return changed, Corpus.open(out / "corpus")


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


def write_report(run: Path) -> Path:
    """Draw ``report.html`` of a finished run afresh, under its own prior. Raises UserError."""
    model = TextVAE.from_pretrained(run, prior="own")
    data = Corpus.open(run / "corpus")
    records = read_records(run / "metrics.jsonl")
    train, valid = ([r for r in records if r.get("kind") == kind] for kind in ("train", "valid"))
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
        found = survey(model.vae, held_out, seed, summaries=False)
        parts = found.kl.mean(0).tolist()
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
    if processes.first():
        report.write(run / "report.html")
    return run / "report.html"

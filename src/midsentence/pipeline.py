"""From a text file to a trained model and its report: what `midsentence train` does, in Python."""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import assembly, fitted, processes
from . import config as configuration
from .bundle import TextVAE
from .config import Config
from .errors import UserError
from .evaluation import evaluate_store, keep_evaluation
from .learning import trainer
from .learning.objectives import OBJECTIVES
from .learning.optimizers import OPTIMIZERS
from .learning.schedules import schedule
from .learning.trainer import Listener
from .parts.head import usual_words
from .reporting import describe, write_report
from .resuming import resumed
from .sections import LONGEST_LABEL
from .text.corpus import Corpus, prepare
from .text.store import MANY, pick
from .weights import shapes_of
from .writing import claimed, clean, unfinished, write_whole

QUICK_SENTENCES, QUICK_SAMPLES = 1000, 50
MOST_LABELS = 1000
ANY_SIZE = 10_000
"""Of a vocabulary that is not known yet."""

FEW, FOR_FEW = 1500, "small"
"""Training sentences up to which a run that names no settings file or recipe has this recipe."""
ABSENT = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR)


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
    "valid", "end", "verdict" with a record each. Returns the model with the best validation bound,
    or None when training was interrupted before there was one. Raises UserError.

    Under torchrun every process calls it and gets the same model; the first prepares the corpus,
    writes the files and tells the listener. All must see the folder.
    """
    out = Path(out)
    if not isinstance(corpus, str):
        corpus = corpus[0] if len(corpus) == 1 else list(corpus)
    processes.join()
    with processes.guarded(), ExitStack() as stack:

        def told(text: str) -> None:
            listener("note", {"text": text})

        def begin() -> tuple[Config, Corpus]:
            stack.enter_context(claimed(out))
            if resume:
                return resumed(corpus, out, recipe, settings, file, valid, test, told)
            return _begin(corpus, out, recipe, file, settings, valid, test, told)

        def follow() -> tuple[Config, Corpus]:
            return resumed(corpus, out, None, settings if resume else ())

        try:
            config, data = processes.lead(begin, follow)
            return _train(config, data, out, resume, listener)
        except OSError as error:
            raise UserError(_trouble(error, out)) from None


def _trouble(error: OSError, out: Path) -> str:
    """One line about a file that could not be read or written, and what to do."""
    where, why = Path(error.filename or out), error.strerror or error
    apart = out not in (where, *where.parents) and where not in out.parents
    if error.errno in ABSENT and apart:
        return f"{where} cannot be read ({why})"
    mend = "choose another --out"
    if os.access(out / "config.toml", os.F_OK):
        mend = "what was saved before is whole: make room, then train again with --resume"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        mend = "make room, then train again"
    return f"{where} cannot be written ({why}): {mend}"


def _train(
    config: Config, data: Corpus, out: Path, resume: bool, listener: Listener
) -> TextVAE | None:
    try:
        if not processes.first():
            listener = _nobody
        elif config.training.tensorboard:
            listener = tensorboard(out / "tensorboard", listener)
        listener("corpus", describe(config, data))
        at = trainer.train(config, data, out, resume=resume, listener=listener)
    except BaseException:
        # Settings that make no model: the mended command should find room for its own.
        begun = {"config.toml", "corpus", "tensorboard"}
        if processes.first() and {f.name for f in out.iterdir()} <= begun:
            (out / "config.toml").unlink()
            shutil.rmtree(out / "tensorboard", ignore_errors=True)
        raise
    try:
        fitted.about(out)
    except UserError as stale:  # or damaged: what was learned is whole all the same
        listener("note", {"text": str(stale)})
    if at.ended == "interrupted":
        return None
    model = TextVAE.from_pretrained(out, config.training.device, prior="own")
    quick = pick(data.test if len(data.test) else data.valid, QUICK_SENTENCES, config.seed)
    keep_evaluation(out, "quick", evaluate_store(model, quick, QUICK_SAMPLES))
    if found := write_report(out):
        listener("verdict", {**vars(found.diagnosis), "commands": found.commands})
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
    told: Callable[[str], None] = lambda text: None,
) -> tuple[Config, Corpus]:
    config = configuration.compose(recipe, file, list(settings))
    _spelled(out, *([corpus] if isinstance(corpus, str) else corpus), valid, test)
    if (out / "config.toml").exists():
        raise UserError(f"{out} already holds a run: choose another --out, or add --resume")
    held = [f.name for f in out.iterdir()] if out.is_dir() else []
    if any(name != "corpus" and not unfinished(name) for name in held):
        raise UserError(f"{out} is not empty and not a run: choose another --out")
    _possible(config)
    asked = theirs = config.corpus
    if asked.source not in (None, corpus):  # a file of settings is of a run on another corpus
        own = [setting for setting in settings if setting.strip().startswith("corpus")]
        theirs = configuration.compose(None, None, own).corpus
    valid, test = valid or theirs.valid, test or theirs.test
    asked.source, asked.valid, asked.test = corpus, valid, test
    data = prepare(
        corpus,
        out / "corpus",
        **asked.model_dump(exclude={"source"}),
        seed=config.seed,
        tokenizer_settings=config.tokenizer.model_dump(),
        told=told,
    )
    few = len(data.train) <= FEW
    if few and recipe == "lm":
        told(
            f"recipe     the language model of --recipe {FOR_FEW}, which few sentences have by "
            f"themselves, is --recipe {FOR_FEW} --set latent=0 --set encoder.kind=none"
        )
    if few and recipe is None and file is None:
        config = configuration.compose(FOR_FEW, None, list(settings))
        _possible(config)
        config.corpus = asked
        told(
            f"recipe     {len(data.train):,} sentences are few: this is --recipe {FOR_FEW}; "
            "--recipe default has a larger model"
        )
    if processes.together() and config.training.parts is None:
        config.training.parts = processes.count()  # so that fewer can go on with the same numbers
    if config.head.sampled_words is None:
        usual = usual_words(assembly.pick_device(config.training.device))
        config.head.sampled_words = 0 if config.head.gradient_words else usual
    config.labels.shares = label_shares(data) if config.labels.condition else {}
    clean(out)
    write_whole(out / "config.toml", config.save)
    return config, data


def _possible(config: Config) -> None:
    """Raises UserError for settings that make no model: before a corpus is read for it."""
    assembly.pick_device(config.training.device)
    shapes_of(partial(assembly.assemble, config, ANY_SIZE))
    parts = [(f"{part}.weight", torch.nn.Parameter(torch.zeros(1))) for part in ("encoder", "head")]
    configuration.build(OPTIMIZERS, config.optimizer, parts)
    configuration.build(OBJECTIVES, config.objective)
    schedule(**config.beta)


def _spelled(*names: Path | str | None) -> None:
    """Raises UserError for a file name that is no text: what is saved could not say it."""
    for name in map(str, filter(None, names)):
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = name.encode(errors="replace").decode()
            raise UserError(f"the name {shown!r} is not UTF-8: rename it") from None


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

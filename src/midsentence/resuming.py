"""A run that is gone on with: what may be said anew, and what was decided when it was begun."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from . import assembly, processes
from . import config as configuration
from .config import Config
from .errors import UserError
from .learning import checkpoint
from .opening import verify_early
from .text.corpus import Corpus
from .weights import shapes_of
from .writing import clean

SHAPING = assembly.SHAPING - {"seed"} | {"objective"}
"""The sections whose settings may make another model: a bag of words has weights of its own."""


def resumed(
    corpus: str | list[str],
    out: Path,
    recipe: str | None,
    settings: Sequence[str],
    file: Path | None = None,
    valid: str | None = None,
    test: str | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> tuple[Config, Corpus]:
    """The settings that a run goes on with, and its corpus. Raises UserError for anything that it
    can't go on with, and says which option to leave out."""
    if not (out / "config.toml").exists():
        raise UserError(f"{out} holds no run to resume; train without --resume")
    if processes.first():
        for folder in (out, out / "checkpoints", out / "directions"):
            clean(folder)
    verify_early(out, assembly.FILES, mixed=True)
    config = configuration.load(out / "config.toml")
    if corpus != config.corpus.source:
        raise UserError(f"{out} was trained on {config.corpus.source!r}, not on {corpus!r}")
    if recipe and recipe != config.recipe:
        raise UserError(f"{out} was begun with recipe {config.recipe!r}; leave --recipe out")
    changed = configuration.override(config, list(settings))
    if file and _apart(configuration.override(config, list(settings), file), changed):
        raise UserError(
            f"{out} was begun with other settings than {file} has: leave --config out, "
            "and say with --set what is to be different"
        )
    if changed.head.sampled_words is None:
        changed.head.sampled_words = 0  # it is older than the setting
    held = config.corpus
    for option, given, had in (("--valid", valid, held.valid), ("--test", test, held.test)):
        if given not in (None, had):
            raise UserError(f"{out} goes on with the settings and files it has: leave {option} out")
    for section in ("corpus", "tokenizer"):
        before, after = (getattr(c, section).model_dump() for c in (config, changed))
        for name in (name for name in before if before[name] != after[name]):
            raise UserError(
                f"the text of {out} is prepared: leave {section}.{name} out, or train afresh"
            )
    had, asked = config.optimizer["kind"], changed.optimizer["kind"]
    if had != asked:
        raise UserError(
            f"{out} was begun with optimizer.kind={had}, whose state {asked!r} can't go on with: "
            "leave that setting out, or train afresh"
        )
    if changed.training.pretrain != config.training.pretrain:
        raise UserError(
            f"{out} was begun with training.pretrain={config.training.pretrain}, and its decoder "
            "begins anew by that: leave that setting out, or train afresh"
        )
    texts = [*([corpus] if isinstance(corpus, str) else corpus), held.valid, held.test]
    for name in _newer(filter(None, texts), out / "corpus"):
        told(f"{name} was written since: {out} goes on with the text that it was begun with")
    corpus_of_run = Corpus.open(out / "corpus")
    _same_model(out, config, changed, corpus_of_run.tokenizer.vocab_size)
    return changed, corpus_of_run


def _newer(sources: Iterable[str], corpus: Path) -> list[str]:
    """Which of the files were written since they were read; of a pattern or a pipe nobody knows."""
    found = []
    for path in map(Path, dict.fromkeys(sources)):
        with suppress(OSError, ValueError):
            read = (corpus / "tokenizer.json").stat().st_mtime
            if path.is_file() and path.stat().st_mtime > read:
                found.append(str(path))
    return found


def _same_model(out: Path, before: Config, after: Config, vocab: int) -> None:
    """Raises UserError where what was learned has no place in the model that is asked for."""
    trees = [_flat(c.model_dump(include=SHAPING)) for c in (before, after)]
    names = sorted(n for n in trees[0] | trees[1] if trees[0].get(n) != trees[1].get(n))
    if not names or checkpoint.latest(out / "checkpoints") is None:  # nothing was learned yet
        return
    # Another kind has other settings, of which nobody spoke.
    kinds = [n.removesuffix("kind") for n in names if n.endswith(".kind")]
    names = [n for n in names if n.endswith(".kind") or not n.startswith(tuple(kinds))]

    def shapes(config: Config) -> Any:
        return shapes_of(partial(assembly.assemble, config, vocab))

    asked = shapes(after)  # raises where there can be no such model at all
    if asked == shapes(before):
        return
    without: dict[str, Any] = {}
    for name in names:
        tree, had = after.model_dump(), before.model_dump()
        section, _, key = name.partition(".")
        if key in ("", "kind"):
            tree[section] = had[section]
        else:
            tree[section][key] = had[section][key]
        try:
            without[name] = shapes(configuration.resolve(tree))
        except UserError:  # it goes with another
            without[name] = None
    told = [name for name in names if without[name] not in (None, asked)]
    told = told or [name for name in names if without[name] is None] or names
    raise UserError(
        f"{out} has learned weights of another model: leave {', '.join(told)} out, or train afresh"
    )


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    """``{"decoder.hidden": 256, "latent": 32}``"""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        found |= {f"{name}.{key}" if key else name: held for key, held in inner}
    return found


def _apart(a: Config, b: Config) -> bool:
    """Do they differ in anything that a file of settings decides, also if it is another run's?"""
    elsewhere: Any = {"recipe": True, "corpus": {"source", "valid", "test"}, "labels": {"shares"}}
    return a.model_dump(exclude=elsewhere) != b.model_dump(exclude=elsewhere)

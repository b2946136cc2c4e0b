"""Configuration: one tree, checked, filled in and written out whole.

Precedence: defaults < recipe < file < ``--set a.b=c``. A part is ``{kind = "lstm", hidden = 256}``:
the keywords of the part's constructor are its schema, so a new part needs no class here.
"""

import difflib
import inspect
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import ConfigDict, Field, ValidationError, create_model

from .errors import UserError
from .opening import SMALL, parse_toml, read_text
from .sections import (
    CorpusSettings,
    HeadSettings,
    LabelSettings,
    RefineSettings,
    Section,
    TokenizerSettings,
    TrainingSettings,
)
from .seeds import LARGEST

AFTERWARDS = {
    ("prior", kind): f"fit it after training: midsentence fit-prior RUN --kind {kind}"
    for kind in ("diffusion", "aggregate")
}
"""Parts of a finished model that training has no use for, and what to do instead."""

COUNTS = {"layers", "heads", "hidden", "embedding", "width", "components", "samples",
          "halvings", "halve_after"}  # fmt: skip
"""Settings of parts that are 1 or more wherever they occur."""

BIGGEST = 1e9
"""No setting of a part is a number beyond it, nor none at all."""


class Config(Section):
    """Everything that fixes a model and its training; `config.toml` of a run holds it whole.

    recipe: what the rest began from; `--recipe` says it. seed: of the split, the weights, the order
    and all noise. latent: D, the dimensions of z; 0 is a language model, for ``encoder.kind=none``,
    to which settings of the latent (free bits, bag of words, refinement, training.aggressive and
    pretrain) say nothing. precision: of the large products, ``float32``, ``bfloat16`` or ``auto``,
    which is bfloat16 where the processor multiplies it natively. Parameters, sums over words and
    densities are fp32 anyway.
    """

    recipe: str = "default"
    seed: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    precision: str = "auto"
    latent: Annotated[int, Field(ge=0, le=1 << 20)] = 32
    corpus: CorpusSettings = CorpusSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    encoder: dict[str, Any] = {"kind": "lstm"}
    posterior: dict[str, Any] = {"kind": "gaussian"}
    prior: dict[str, Any] = {"kind": "normal"}
    decoder: dict[str, Any] = {"kind": "lstm"}
    head: HeadSettings = HeadSettings()
    labels: LabelSettings = LabelSettings()
    refine: RefineSettings = RefineSettings()
    objective: dict[str, Any] = {"kind": "elbo"}
    beta: dict[str, Any] = {"kind": "linear"}
    optimizer: dict[str, Any] = {"kind": "adamw"}
    training: TrainingSettings = TrainingSettings()

    def save(self, path: Path) -> None:
        """Raises UserError for more than `load` would read again."""
        text = tomli_w.dumps(self.model_dump(exclude_none=True))
        if len(text.encode()) > SMALL:
            raise UserError(
                f"these settings take more than {SMALL:,} bytes: name the files by a pattern in "
                "quotes ('texts/*.txt'), or have fewer labels"
            )
        path.write_text(text, encoding="utf-8")


def load(path: Path) -> Config:
    """A configuration file, complete or partial. Raises UserError."""
    try:
        return resolve(parse_toml(read_text(path), str(path)))
    except RecursionError:
        raise UserError(f"{path}: nested too deeply") from None


def compose(
    recipe: str | None = None, file: Path | None = None, overrides: list[str] | None = None
) -> Config:
    """Defaults < recipe < file < ``a.b=c`` overrides. Raises UserError, naming the wrong key."""
    asked, usual = _read(file), recipe or Config.model_fields["recipe"].default
    # Only a run's own file, which is whole, has the settings of the recipe it names.
    if asked.get("recipe", usual) != usual and not set(tables()) <= set(asked):
        raise UserError(f"{file} only names its recipe: say --recipe {asked['recipe']}")
    config = _laid_over(read_recipe(recipe) if recipe else {}, asked, overrides or [])
    config.recipe = recipe or config.recipe
    return config


def override(config: Config, overrides: list[str], file: Path | None = None) -> Config:
    """A complete configuration with a file and then some ``a.b=c`` over it. Raises UserError."""
    return _laid_over(config.model_dump(exclude_none=True), _read(file), overrides)


def _read(file: Path | None) -> dict[str, Any]:
    if file and not file.is_file():
        raise UserError(f"{file}: no such configuration file")
    return parse_toml(read_text(file), str(file)) if file else {}


def _laid_over(tree: dict[str, Any], asked: dict[str, Any], overrides: list[str]) -> Config:
    if isinstance(overrides, str):
        raise UserError(f"settings are a list of texts: [{overrides!r}]")
    # A kind first, wherever it stands: the other settings are that kind's.
    for text in sorted(overrides, key=lambda text: not _name(text).endswith(".kind")):
        _merge(asked, _override(text))
    _make_room(tree, asked)
    _merge(tree, asked)
    return resolve(tree)


def _make_room(tree: dict[str, Any], asked: Mapping[str, Any]) -> None:
    """A recipe that names no kind of part means any that has its settings: of those that the kind
    asked for does not have nobody has spoken, and they go."""
    for role, table in tables().items():
        held, wanted = tree.get(role), asked.get(role)
        make = table.get(str(wanted.get("kind"))) if isinstance(wanted, Mapping) else None
        if make and isinstance(held, dict) and "kind" not in held:
            tree[role] = {k: v for k, v in held.items() if k in keywords(make)}


def resolve(tree: Mapping[str, Any]) -> Config:
    """Check a tree and fill in every default, also those of the parts' constructors."""
    tree = {k: v for k, v in tree.items() if k not in ("about", "cite")}
    known = list(Config.model_fields)
    for key in tree:
        if key not in known:
            raise UserError(f"there is no setting {key!r}.{nearest(key, known)}")
    for name, value in tree.items():
        section = Config.model_fields[name].annotation
        if not (inspect.isclass(section) and issubclass(section, Section)):
            continue
        for key in value if isinstance(value, Mapping) else ():
            if key not in section.model_fields:
                raise UserError(
                    f"{name} has no setting {key!r}.{nearest(key, list(section.model_fields))}"
                )
    try:
        config = Config.model_validate(dict(tree))
    except ValidationError as error:
        raise UserError(_first(error)) from None
    for role, table in tables().items():
        usual = {"kind": Config.model_fields[role].default["kind"]}
        setattr(config, role, part(role, table, usual | getattr(config, role)))
    if config.latent == 0:  # what a language model cannot have; a recipe may speak of it
        config.training.aggressive, config.training.pretrain = 0, 0.0
        config.refine.steps, config.objective["bow"] = 0, 0.0
    return config


def build(table: Mapping[str, Callable[..., Any]], settings: Mapping[str, Any], *first: Any) -> Any:
    """``table[kind](*first, **the other settings)``."""
    return table[settings["kind"]](*first, **{k: v for k, v in settings.items() if k != "kind"})


@cache
def tables() -> dict[str, Mapping[str, Callable[..., Any]]]:
    """Role -> its table of parts. Imported late: torch is slow to load."""
    from .learning.objectives import OBJECTIVES
    from .learning.optimizers import OPTIMIZERS
    from .learning.schedules import SCHEDULES
    from .parts.decoders import DECODERS
    from .parts.encoders import ENCODERS
    from .parts.posteriors import POSTERIORS
    from .parts.priors import PRIORS

    return {
        "encoder": ENCODERS,
        "posterior": POSTERIORS,
        "prior": PRIORS,
        "decoder": DECODERS,
        "objective": OBJECTIVES,
        "beta": SCHEDULES,
        "optimizer": OPTIMIZERS,
    }


def part(
    role: str,
    table: Mapping[str, Callable[..., Any]],
    value: Mapping[str, Any],
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """One part's settings with ``a=b`` strings laid over, checked and whole. Raises UserError."""
    value = dict(value)
    for text in overrides:
        _merge(value, _override(text))
    kind = str(value.get("kind"))
    if kind not in table and (role, kind) in AFTERWARDS:
        raise UserError(f"{role} {kind!r} cannot be trained with a model: {AFTERWARDS[role, kind]}")
    if kind not in table:
        raise UserError(f"there is no {role} {kind!r}.{nearest(kind, list(table))}")
    fields: dict[str, Any] = {
        name: (p.annotation, p.default) for name, p in keywords(table[kind]).items()
    }
    for key in value:
        if key != "kind" and key not in fields:
            hint = nearest(key, list(fields))
            raise UserError(f"{role} {kind!r} has no setting {key!r}.{hint}")
    schema = create_model("Settings", __config__=ConfigDict(extra="forbid"), **fields)
    try:
        checked = schema(**{k: v for k, v in value.items() if k != "kind"})
    except ValidationError as error:
        raise UserError(f"{role}.{_first(error)}") from None
    settings = checked.model_dump()
    for name, held in settings.items():
        if isinstance(held, int | float) and not abs(held) <= BIGGEST:
            raise UserError(f"{role}.{name} = {held}: it must be a number of sensible size")
        if name in COUNTS and held < 1:
            raise UserError(f"{role}.{name} = {held}: it must be at least 1")
        if name.endswith(("dropout", "_drop")) and isinstance(held, float) and not 0 <= held < 1:
            raise UserError(f"{role}.{name} = {held}: it must be from 0 to 1, below 1")
    return {"kind": kind, **settings}


def keywords(maker: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The settings of a part: what its constructor takes by name alone, and is not bound."""
    bound = maker.keywords if isinstance(maker, partial) else {}
    signature = inspect.signature(maker.func if isinstance(maker, partial) else maker)
    every = signature.parameters.values()
    return {p.name: p for p in every if p.kind is p.KEYWORD_ONLY and p.name not in bound}


def recipes() -> list[str]:
    """Names of the shipped recipes."""
    folder = resources.files(__package__) / "recipes"
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def read_recipe(name: str) -> dict[str, Any]:
    """A shipped recipe as a tree, with its `about` and `cite`."""
    if name not in recipes():
        raise UserError(f"there is no recipe {name!r}.{nearest(name, recipes())}")
    text = (resources.files(__package__) / "recipes" / f"{name}.toml").read_text("utf-8")
    return parse_toml(text, f"recipe {name}")


def _name(text: str) -> str:
    return text.partition("=")[0].strip()


def _override(text: str) -> dict[str, Any]:
    path, (_, equals, value) = _name(text), text.partition("=")
    if not equals or not path:
        raise UserError(f"--set {text}: write it as name=value, for instance latent=64")
    if path == "recipe":
        raise UserError(f"--set {text}: a recipe is many settings, --recipe {value.strip()}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        parsed = value.strip()  # a bare word is a string
    for key in reversed(path.split(".")):
        parsed = {key: parsed}
    return dict(parsed)


def _merge(tree: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Lay `other` over `tree`. Another `kind` of part starts from its own defaults."""
    for key, value in other.items():
        held = tree.get(key)
        if isinstance(value, Mapping):
            if not isinstance(held, dict) or _another(held, value):
                held = tree[key] = {}
            _merge(held, value)
        else:
            tree[key] = value


def _another(held: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Is it another kind of part?"""
    return "kind" in held and held["kind"] != value.get("kind", held["kind"])


def _first(error: ValidationError) -> str:
    """pydantic's first complaint in one line, ``name = value: what it should be``."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    given = repr(first["input"])
    given = given if len(given) < 100 else f"{given[:100]}..."
    return f"{place} = {given}: {first['msg'].lower()}"


def nearest(word: str, known: list[str]) -> str:
    """What may have been meant, to go at the end of a message."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(known) or 'none'}."

"""Every setting that there is: its default, and what the docstring it belongs to says of it.

A docstring says ``name: what it is``, or ``one, another: what they are``, at the beginning of a
sentence; a test holds every part and section to that.
"""

import inspect
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from textwrap import fill
from typing import Any

from . import config
from .config import Config
from .errors import UserError
from .learning import kinds
from .parts.head import Head
from .sections import HeadSettings, Section

WRITTEN_AT = {HeadSettings: Head}
"""Sections whose settings another class's docstring explains."""


FITTED = "fit-prior"


@dataclass(frozen=True)
class Setting:
    """name: as ``--set`` takes it."""

    name: str
    default: str
    about: str


@dataclass(frozen=True)
class Group:
    """The settings of a section, of Config itself (role ""), or of kinds of part that share all;
    or of a prior that is fitted (role `FITTED`), for which ``fit-prior --set`` has no other name
    than the setting's own."""

    role: str
    kinds: tuple[str, ...]
    about: str
    settings: tuple[Setting, ...]

    @property
    def title(self) -> str:
        return f"{self._kind}{' | '.join(self.kinds)}" if self.kinds else self.role or "model"

    @property
    def names(self) -> list[str]:
        """What it may be asked for by."""
        kinds = [f"{self._kind}{kind}" for kind in self.kinds]
        return [self.role or self.title, *([self._kind[:-1], *kinds] if kinds else [])]

    @property
    def _kind(self) -> str:
        return "fit-prior --kind " if self.role == FITTED else f"{self.role}.kind="


def catalogue() -> list[Group]:
    """All of them, in the order in which `config.toml` has them."""
    fields, roles = Config.model_fields, config.tables()
    sections = {name: f.annotation for name, f in fields.items() if _is_section(f.annotation)}
    plain = {n: f.default for n, f in fields.items() if n not in roles and n not in sections}
    groups = [_group("", (), Config, plain)]
    for name in fields:
        if name in sections:
            section: Any = sections[name]
            held = {key: field.default for key, field in section.model_fields.items()}
            groups.append(_group(name, (), section, held))
        elif name in roles:
            groups += _parts(name, roles[name])
    for kind, maker in kinds.PARTS.items():
        whole = kinds.settings_of(kind, [])
        groups.append(_group(FITTED, (whole.pop("kind"),), maker, whole))
    return groups


def about(name: str) -> list[Group]:
    """What goes by a name: all, a section, a role, or one setting. Raises UserError for no such."""
    groups = catalogue()
    if not name:
        return groups
    found = [g for g in groups if name in g.names]
    for group in groups if not found else ():
        settings = tuple(s for s in group.settings if s.name == name)
        if settings:
            found.append(Group(group.role, group.kinds, "", settings))
    if not found:
        known = {n for g in groups for n in g.names} | {s.name for g in groups for s in g.settings}
        raise UserError(f"there is no setting {name!r}.{config.nearest(name, sorted(known))}")
    return found


def as_text(groups: list[Group]) -> str:
    out = []
    for group in groups:
        out += [group.title, *([_indented(group.about, 2)] if group.about else [])]
        out += [f"  {s.name} = {s.default}\n{_indented(s.about, 6)}" for s in group.settings]
        out.append("")
    return "\n".join(out).rstrip()


def as_markdown(groups: list[Group]) -> str:
    """docs/settings.md."""
    out = [
        "# Settings",
        "",
        "What `--set name=value`, a `--config` file and recipes may say, and what each is where "
        "nobody says: a heading for each table of a run's `config.toml`, a part under each of its "
        "kinds; last what `fit-prior --set` may say. Made by `midsentence settings --markdown`.",
        "",
    ]
    for group in groups:
        out += [f"## {group.title}".replace("|", "or"), ""]
        out += [group.about, ""] if group.about else []
        if group.settings:
            out += ["| setting | default | |", "|---|---|---|"]
            for s in group.settings:
                said = s.about.replace("|", r"\|")
                out.append(f"| `{s.name}` | `{s.default}` | {said} |")
            out.append("")
    return "\n".join(out).rstrip()


def _is_section(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, Section)


def _parts(role: str, table: Mapping[str, Callable[..., Any]]) -> list[Group]:
    """One group for all kinds that one class makes with the same settings."""
    alike: dict[Any, list[str]] = {}
    for kind, maker in table.items():
        origin = maker.func if isinstance(maker, partial) else maker
        alike.setdefault((origin, tuple(config.keywords(maker))), []).append(kind)
    groups = []
    for (origin, names), same in alike.items():
        defaults = config.keywords(table[same[0]])
        held = {name: defaults[name].default for name in names}
        groups.append(_group(role, tuple(same), origin, held))
    return groups


def _group(role: str, names: tuple[str, ...], origin: Any, held: Mapping[str, Any]) -> Group:
    origin = WRITTEN_AT.get(origin, origin)
    family = inspect.getmro(origin) if inspect.isclass(origin) else (origin,)
    story = ""
    said: dict[str, str] = {}
    for each in reversed([c for c in family if c.__module__.startswith(__package__)]):
        story, found = explained(each.__doc__ or "", held)
        said |= found
    dot = "" if role in ("", FITTED) else f"{role}."
    settings = (Setting(dot + n, _shown(d), said.get(n, "")) for n, d in held.items())
    return Group(role, names, story, tuple(settings))


def explained(docstring: str, names: Collection[str]) -> tuple[str, dict[str, str]]:
    """(what it says at large, what it says of each name)."""
    story: list[str] = []
    said: dict[str, str] = {}
    name = "|".join(map(re.escape, names)) or "(?!)"
    entry = re.compile(rf"(?:^|(?<=[.;)] ))((?:{name})(?:, (?:{name}))*): ")
    for paragraph in re.split(r"\n\n|\n(?=- )", inspect.cleandoc(docstring)):
        text = " ".join(paragraph.replace("``", "`").split())
        first, *rest = entry.split(re.sub(r"(^| )Raises [^.]*\.", "", text))
        story.append(first.strip())
        for who, text in zip(rest[::2], rest[1::2], strict=True):
            said |= {one: text.strip(" ;") for one in who.split(", ")}
    return "\n\n".join(filter(None, story)), said


def _shown(default: Any) -> str:
    if default is None:
        return "unset"
    return default if isinstance(default, str) else json.dumps(default)


def _indented(text: str, by: int) -> str:
    margin = " " * by
    return "\n".join(
        fill(paragraph, 98, initial_indent=margin, subsequent_indent=margin)
        for paragraph in text.split("\n\n")
    )

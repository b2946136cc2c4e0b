"""Corpora that need no file: for a first run, and with a truth to be held against."""

import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ..errors import UserError
from ..writing import write_whole
from .readers import Line

Phrase = tuple[str, str, str]


@dataclass(frozen=True)
class Builtin:
    """A corpus in one line of words, and its lines given the label field asked for."""

    description: str
    lines: Callable[[str | None], Iterator[Line]]


def lines(name: str, label_field: str | None = None) -> Iterator[Line]:
    """The lines of ``builtin:name``. Raises UserError for an unknown name."""
    if name not in CORPORA:
        raise UserError(f"there is no builtin:{name}; there are: {', '.join(CORPORA)}")
    return CORPORA[name].lines(label_field)


def _grammar(label_field: str | None) -> Iterator[Line]:
    from .grammar import Grammar

    return Grammar().lines(label=label_field)


def _icd10(label_field: str | None) -> Iterator[Line]:
    """Unique descriptions of the ICD-10-CM codes; a group is a three-character category."""
    if label_field not in (None, "chapter"):
        raise UserError("builtin:icd10 has one label field: chapter")
    try:
        version = metadata.version("simple-icd-10-cm")
    except metadata.PackageNotFoundError:
        raise UserError('builtin:icd10 needs: pip install "midsentence[demo]"') from None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "midsentence"
    for code, chapter, text in _cached(home / f"icd10-{version}.tsv.gz"):
        yield Line(text, chapter if label_field else None, code)


def _cached(path: Path) -> Iterator[Phrase]:
    """The phrases from the user's cache, put there at first, for the package is slow to load."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = "".join("\t".join(phrase) + "\n" for phrase in _phrases())
            write_whole(path, lambda part: part.write_bytes(gzip.compress(rows.encode())))
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            held = [row.rstrip("\n").split("\t") for row in file]
        yield from ((code, chapter, text) for code, chapter, text in held)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(
            f"{path}: the cache cannot be used ({error}): delete it, or set "
            "XDG_CACHE_HOME to a folder that can be written"
        ) from None


def _phrases() -> Iterator[Phrase]:
    """Unique descriptions in the package's order, with their category and chapter."""
    import simple_icd_10_cm as icd10  # takes about half a minute to parse its XML

    seen: set[str] = set()
    chapter = ""
    for code in icd10.get_all_codes(with_dots=True):
        text = " ".join(icd10.get_description(code).split())
        if icd10.is_chapter(code):
            chapter = text
        elif not icd10.is_block(code) and text not in seen:
            seen.add(text)
            yield code[:3], chapter, text


CORPORA = {
    "icd10": Builtin("97,000 medical phrases, ICD-10-CM (extra `demo`)", _icd10),
    "grammar": Builtin("sentences of a grammar whose exact probabilities are known", _grammar),
}

"""Corpora that need no file: for a first run, and with a truth to be held against."""

import gzip
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ..errors import UserError
from .readers import Line


@dataclass(frozen=True)
class Builtin:
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
    cache = home / f"icd10-{version}.tsv.gz"
    if not cache.exists():
        _cache_icd10(cache)
    with gzip.open(cache, "rt", encoding="utf-8") as file:
        for row in file:
            code, chapter, text = row.rstrip("\n").split("\t")
            yield Line(text, chapter if label_field else None, code)


def _cache_icd10(cache: Path) -> None:
    import simple_icd_10_cm as icd10  # takes about half a minute to parse its XML

    cache.parent.mkdir(parents=True, exist_ok=True)
    part = cache.with_name(f"{cache.name}.{os.getpid()}.part")
    seen = set()
    with gzip.open(part, "wt", encoding="utf-8") as file:
        for code in icd10.get_all_codes(with_dots=True):
            if icd10.is_chapter(code):
                chapter = icd10.get_description(code)
            if icd10.is_chapter(code) or icd10.is_block(code):
                continue
            text = icd10.get_description(code)
            text = " ".join(text.split())
            if text not in seen:
                seen.add(text)
                file.write(f"{code[:3]}\t{chapter}\t{text}\n")
    part.replace(cache)


CORPORA = {
    "icd10": Builtin("97,000 medical phrases, ICD-10-CM (extra `demo`)", _icd10),
    "grammar": Builtin("sentences of a grammar whose exact probabilities are known", _grammar),
}

"""Lines -> records: CSV, TSV, JSON Lines, and plain text, which is a record a line."""

import csv
import difflib
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from sys import getsizeof
from typing import Any

from ..errors import UserError
from .tolerance import Bad

DEFAULT_FIELD = "text"
TITLES = {DEFAULT_FIELD, "sentence", "sentences"}
"""Of a column, and hardly ever a sentence: a row of them is not to be learned."""
RECORD = 1 << 20
"""Bytes that may be held for one record, whose fields other than the text do not count."""


def rows(
    lines: Iterator[tuple[int, str]],
    kind: str,
    name: str,
    text: str | None,
    label: str | None,
    bad: Bad,
) -> Iterator[tuple[int, str, str | None]]:
    """(line number, text, label) of each record."""
    if kind == ".json":  # JSON Lines by another name, or one large document
        for number, line in lines:
            if line.strip():
                if not _is_object(line):
                    raise UserError(f"{name}:{number}: not an object a line: write it as .jsonl")
                lines, kind = chain([(number, line)], lines), ".jsonl"
                break
    if kind in (".jsonl", ".ndjson"):
        yield from _json_rows(lines, name, text or DEFAULT_FIELD, label, bad)
    elif kind in (".csv", ".tsv") or text is not None or label is not None:
        yield from _columns(lines, "," if kind == ".csv" else "\t", name, text, label, bad)
    else:
        for number, line in lines:
            yield number, line, None


def _json_rows(
    lines: Iterator[tuple[int, str]], name: str, text: str, label: str | None, bad: Bad
) -> Iterator[tuple[int, str, str | None]]:
    had = False
    for number, line in lines:
        if not line.strip():
            continue
        try:
            found = _record(line, text, label, had)
        except ValueError as error:
            bad(f"{name}:{number}: {error}")
            continue
        had = True
        yield number, *found


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def listed(names: Iterable[str]) -> str:
    """Names of a file's columns or keys, which may be anything, to be shown."""
    return ", ".join(map(repr, names))[:200] or "nothing"


def _record(line: str, text: str, label: str | None, had: bool) -> tuple[str, str | None]:
    """(text, label) of a line of JSON. Raises ValueError, saying what is wrong with it.

    had: a record before had the label, so its name is right, and this one has none.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error}): write one object a line") from None
    if not isinstance(record, dict):
        raise ValueError(f"not a JSON object: write {{{text!r}: ...}}")
    keys = listed(record)
    if not isinstance(found := record.get(text), str):
        raise ValueError(
            f"no text under {text!r} but {keys}: give --text-field, where there is one"
        )
    if label is not None and label not in record and not had:
        raise ValueError(
            f"no label {label!r} but {keys}: name a field that is there, or write null"
        )
    mark = record.get(label) if label is not None else None
    if isinstance(mark, dict | list):
        raise ValueError(f"the label {label!r} is no string or number")
    mark = None if mark is None else str(mark)
    if any("\ud800" <= c <= "\udfff" for c in found + (mark or "")):
        raise ValueError("half of a UTF-16 pair: it is not Unicode text")
    return found, mark


def _columns(
    lines: Iterator[tuple[int, str]],
    mark: str,
    name: str,
    text: str | None,
    label: str | None,
    bad: Bad,
) -> Iterator[tuple[int, str, str | None]]:
    """Records of a table. Names are those of the first row; numbers mean that it is no header."""
    held: list[tuple[int, str]] = []
    again: list[tuple[int, str]] = []
    size, width = 0, 0

    def feed() -> Iterator[str]:
        nonlocal size
        while (found := again.pop() if again else next(lines, None)) is not None:
            held.append(found)
            size += getsizeof(found[1])
            # Else one stray quote would swallow the rest of the file.
            if size > RECORD and len(held) > 1:
                raise csv.Error("a quote that opens here is never closed")
            yield found[1] + "\n"

    quotes: Any = csv.QUOTE_MINIMAL if mark == "," else csv.QUOTE_NONE
    csv.field_size_limit(max(csv.field_size_limit(), 4 * RECORD))
    columns: tuple[int, int | None] | None = None
    records = csv.reader(feed(), delimiter=mark, quoting=quotes, strict=True)
    while True:
        try:
            record = next(records, None)
        except csv.Error as error:
            bad(f"{name}:{held[0][0]}: {error}: check its quotes")
            # The lines after a stray quote are records of their own.
            again += reversed(held[1:])
            held, size = [], 0
            records = csv.reader(feed(), delimiter=mark, quoting=quotes, strict=True)
            continue
        if record is None:
            return
        number = held[0][0]
        held, size = [], 0
        if not any(record):
            continue
        if columns is None:
            width = len(record)
            columns, has_header = _layout(record, name, number, text, label)
            if has_header:
                continue
        place, other = columns
        if any(record[width:]):
            bad(
                f"{name}:{number}: {len(record)} columns where the first row has {width}"
                + ": put quotes around text with commas" * (mark == ",")
            )
            continue
        if (most := max(place, other or 0)) >= len(record):
            bad(f"{name}:{number}: has {len(record)} columns: there is no {most}, from 0")
            continue
        yield number, record[place], None if other is None else record[other]


def _layout(
    first: list[str], name: str, number: int, text: str | None, label: str | None
) -> tuple[tuple[int, int | None], bool]:
    """(column of the text, of the label), and whether the first row is a header."""
    if text is None and (DEFAULT_FIELD in first or len(first) == 1):
        text = DEFAULT_FIELD if DEFAULT_FIELD in first else "0"
    if text is None:
        shown = listed(cell[:20] for cell in first[:8])
        raise UserError(
            f"{name}:{number}: {len(first)} columns ({shown}): say which one is the sentence, "
            "where there is --text-field (a name, or a number from 0), or give a file of lines"
        )
    fields = [text] if label is None else [text, label]
    has_header = not all(field.isascii() and field.isdigit() for field in fields)
    places = []
    for field in fields:
        if has_header and field in first:
            places.append(first.index(field))
        elif field.isascii() and field.isdigit():
            places.append(int(field))
        else:
            close = difflib.get_close_matches(field, first, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {listed(first)}"
            raise UserError(f"{name}:{number}: no column {field!r}: {hint}")
    if not has_header and places[0] < len(first) and first[places[0]].casefold() in TITLES:
        raise UserError(
            f"{name}:{number}: the first row looks like a header: name the column, "
            f"--text-field {first[places[0]]}"
        )
    return (places[0], places[1] if label is not None else None), has_header

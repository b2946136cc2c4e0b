"""Lines -> records: CSV, TSV, JSON Lines, and plain text, which is a record a line."""

import csv
import difflib
import json
from collections.abc import Iterator
from typing import Any

from ..errors import UserError
from .tolerance import Bad

DEFAULT_FIELD = "text"
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
    for number, line in lines:
        if not line.strip():
            continue
        try:
            yield number, *_record(line, text, label)
        except ValueError as error:
            bad(f"{name}:{number}: {error}")


def _record(line: str, text: str, label: str | None) -> tuple[str, str | None]:
    """(text, label) of a line of JSON. Raises ValueError, saying what is wrong with it."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error}): write one object a line") from None
    if not isinstance(record, dict):
        raise ValueError(f"not a JSON object: write {{{text!r}: ...}}")
    keys = ", ".join(map(repr, record))[:200] or "nothing"
    if not isinstance(found := record.get(text), str):
        raise ValueError(
            f"no text under {text!r} but {keys}: give --text-field, where there is one"
        )
    if label is not None and label not in record:
        raise ValueError(f"no label {label!r} but {keys}: give --label-field")
    mark = record[label] if label is not None else None
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
    start, here, held, width = 0, 0, 0, 0

    def feed() -> Iterator[str]:
        nonlocal start, here, held
        for here, line in lines:
            start, held = start or here, held + len(line)
            # Else one stray quote would swallow the rest of the file.
            if held > RECORD and here > start:
                raise UserError(f"{name}:{start}: a quote that opens here is never closed")
            yield line + "\n"

    quotes: Any = csv.QUOTE_MINIMAL if mark == "," else csv.QUOTE_NONE
    csv.field_size_limit(max(csv.field_size_limit(), 4 * RECORD))
    columns: tuple[int, int | None] | None = None
    records = csv.reader(feed(), delimiter=mark, quoting=quotes, strict=True)
    while True:
        try:
            record = next(records, None)
        except csv.Error as error:
            bad(f"{name}:{start or here}: {error}: check its quotes")
            start, held = 0, 0
            continue
        if record is None:
            return
        number, start, held = start, 0, 0
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
        shown = ", ".join(cell[:20] for cell in first[:8])
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
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(first)[:200]}"
            raise UserError(f"{name}:{number}: no column {field!r}: {hint}")
    return (places[0], places[1] if label is not None else None), has_header

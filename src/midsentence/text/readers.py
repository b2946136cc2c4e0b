"""Files -> lines: every corpus is read or refused, with the file and the line number."""

import csv
import difflib
import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from io import BufferedIOBase
from itertools import chain
from pathlib import Path
from typing import Any, cast

from ..errors import UserError

PARTS = ("train", "valid", "test")
DEFAULT_FIELD = "text"
BLOCK = 1 << 16
RECORD = 1 << 20
"""Bytes that may be held for one record, whose fields other than the text do not count."""

# Tabs and other control characters (an escape sequence would reach the terminal) become spaces.
CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), " ")


@dataclass(frozen=True)
class Line:
    """One sentence. Lines of one `group` stay on one side of a split."""

    text: str
    label: str | None = None
    group: str | None = None


def read(
    source: str,
    *,
    text_field: str | None = None,
    label_field: str | None = None,
    max_chars: int = 100_000,
) -> Iterator[Line]:
    """Sentences of a path, ``-`` (standard input) or ``builtin:NAME``.

    .txt (or any other ending): one sentence a line. .csv, .tsv: `text_field` and `label_field` are
    column names of the first row, or column numbers from 0 in a file without a header; without
    them, a column headed ``text``, or the only column. Quotes are quotes in .csv and text in .tsv.
    .jsonl: keys, ``text`` by default. A .gz of each is unpacked as it is read. A tab-separated
    file of another name is read as .tsv where a field is given.

    Lines end in LF, CRLF or CR. Empty ones are passed over, white space around the text is taken
    off, and control characters in it become spaces. A text is at most `max_chars` long.

    Raises UserError, naming file and line, for whatever cannot be read; in bounded memory.
    """
    if source.startswith("builtin:"):
        from .builtin import lines

        if text_field is not None:
            raise UserError(f"{source} has no fields to choose from: leave --text-field out")
        yield from lines(source.removeprefix("builtin:"), label_field)
        return
    name = _name(source)
    kind = Path(source.removesuffix(".gz")).suffix.lower()
    found = False
    rows = _rows(raw_lines(source, max_chars), kind, name, text_field, label_field)
    for number, text, label in rows:
        text = _clean(text)
        if len(text) > max_chars:
            raise _too_long(name, number, max_chars)
        if text:
            found = True
            yield Line(text, (_clean(label) or None) if label is not None else None)
    if not found:
        raise UserError(f"{name} holds no line of text: it needs one sentence a line")


def raw_lines(source: str, max_chars: int = 100_000) -> Iterator[tuple[int, str]]:
    """(number, line) of a path or ``-``, as they stand. Raises UserError as `read` does."""
    with _open(source) as file:
        yield from _decoded(file, _name(source), max(4 * max_chars, RECORD), max_chars)


def _name(source: str) -> str:
    return "standard input" if source == "-" else source


def _clean(text: str) -> str:
    return (text if text.isprintable() else text.translate(CONTROLS)).strip()


def _too_long(name: str, number: int, max_chars: int) -> UserError:
    return UserError(
        f"{name}:{number}: longer than {max_chars:,} characters: split it or raise corpus.max_chars"
    )


def _open(source: str) -> AbstractContextManager[BufferedIOBase]:
    if source == "-":
        return nullcontext(cast(BufferedIOBase, sys.stdin.buffer))  # not ours to close
    path = Path(source)
    try:
        if path.is_dir():
            raise UserError(f"{source} is a folder: name a file in it")
        file = path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{source}: no such file{_hint(path)}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{source!r} cannot be opened: {reason}") from None
    if not source.endswith(".gz"):
        return file
    file.close()
    return gzip.GzipFile(path)


def _hint(path: Path) -> str:
    try:
        close = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], 1)
    except OSError:
        return f": there is no folder {path.parent}"
    return f". Did you mean {path.parent / close[0]}?" if close else ""


def _blocks(file: BufferedIOBase, name: str) -> Iterator[bytes]:
    """The file's bytes without a BOM, as they come: a slow pipe's lines are not held back."""
    read = getattr(file, "read1", file.read)
    # A pipe may give its first bytes one by one: enough for any signature is waited for.
    head = file.read(4)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{name}:1: UTF-16, by its byte order mark: save the file as UTF-8")
    if head.startswith(b"\x1f\x8b"):
        raise UserError(f"{name}:1: compressed by gzip: give the file a name that ends in .gz")
    yield head.removeprefix(b"\xef\xbb\xbf")
    while block := read(BLOCK):
        yield block


def _decoded(
    file: BufferedIOBase, name: str, limit: int, max_chars: int
) -> Iterator[tuple[int, str]]:
    """(line number, text without its end). At most `limit` bytes of a line are held."""
    number, rest = 1, b""
    blocks = chain(_blocks(file, name), [b""])  # the empty one ends a last line without an end
    while True:
        try:
            block = next(blocks, None)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{name}:{number}: cannot be read ({error})") from None
        if block is None:
            return
        data = rest + block
        # A CR at the very end may be half of a CRLF: it waits for the next block.
        held = b"\r" if block and data.endswith(b"\r") else b""
        data = data[: len(data) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        if not block and rest:
            lines, rest = [*lines, rest], b""
        for raw in lines:
            yield number, _text(raw, name, number, limit, max_chars)
            number += 1
        if len(rest) > limit:
            raise _too_long(name, number, max_chars)
        rest += held


def _text(raw: bytes, name: str, number: int, limit: int, max_chars: int) -> str:
    if len(raw) > limit:
        raise _too_long(name, number, max_chars)
    if b"\0" in raw:
        raise UserError(f"{name}:{number}: a NUL byte: this is not a text file in UTF-8")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}:{number}: not UTF-8 (byte {error.start + 1} of the line): save it as UTF-8"
        ) from None


def _rows(
    lines: Iterator[tuple[int, str]], kind: str, name: str, text: str | None, label: str | None
) -> Iterator[tuple[int, str, str | None]]:
    """(line number, text, label) of each record."""
    if kind == ".jsonl":
        yield from _json_rows(lines, name, text or DEFAULT_FIELD, label)
    elif kind in (".csv", ".tsv") or text is not None or label is not None:
        yield from _columns(lines, "," if kind == ".csv" else "\t", name, text, label)
    else:
        for number, line in lines:
            yield number, line, None


def _json_rows(
    lines: Iterator[tuple[int, str]], name: str, text: str, label: str | None
) -> Iterator[tuple[int, str, str | None]]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{name}:{number}: not JSON ({error}): write one object a line"
            ) from None
        if not isinstance(record, dict):
            raise UserError(f"{name}:{number}: not a JSON object: write {{{text!r}: ...}}")
        keys = ", ".join(map(repr, record))[:200] or "nothing"
        if not isinstance(found := record.get(text), str):
            raise UserError(
                f"{name}:{number}: no text under {text!r} but {keys}: give --text-field"
            )
        if label is not None and label not in record:
            raise UserError(f"{name}:{number}: no label {label!r} but {keys}: give --label-field")
        mark = record[label] if label is not None else None
        if isinstance(mark, dict | list):
            raise UserError(f"{name}:{number}: the label {label!r} is no string or number")
        mark = None if mark is None else str(mark)
        if any("\ud800" <= c <= "\udfff" for c in found + (mark or "")):
            raise UserError(f"{name}:{number}: half of a UTF-16 pair: it is not Unicode text")
        yield number, found, mark


def _columns(
    lines: Iterator[tuple[int, str]], mark: str, name: str, text: str | None, label: str | None
) -> Iterator[tuple[int, str, str | None]]:
    """Records of a table. Names are those of the first row; numbers mean that it is no header."""
    start, here, held = 0, 0, 0

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
    try:
        for record in csv.reader(feed(), delimiter=mark, quoting=quotes, strict=True):
            number, start, held = start, 0, 0
            if not any(record):
                continue
            if columns is None:
                columns, has_header = _layout(record, name, number, text, label)
                if has_header:
                    continue
            place, other = columns
            if (most := max(place, other or 0)) >= len(record):
                raise UserError(
                    f"{name}:{number}: has {len(record)} columns: there is no {most}, from 0"
                )
            yield number, record[place], None if other is None else record[other]
    except csv.Error as error:
        raise UserError(f"{name}:{start or here}: {error}: check its quotes") from None


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
            "--text-field with a name or a number from 0"
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


def split(
    lines: Iterable[Line], *, valid: float = 0.05, test: float = 0.05, seed: int = 0
) -> Iterator[tuple[str, Line]]:
    """("train", "valid" or "test", line), decided by a keyed hash of the line's group or text.

    So the same line falls on the same side whatever stands around it, duplicates stay together, and
    nothing is held in memory. Raises UserError for fractions that leave no training text.
    """
    if not (valid >= 0 and test >= 0 and valid + test < 1):
        raise UserError(
            "corpus.valid_fraction and test_fraction must be from 0 to 1, below 1 summed"
        )
    key = str(seed).encode()[:64]
    for line in lines:
        held = line.group if line.group is not None else line.text
        digest = blake2b(held.encode(), digest_size=8, key=key).digest()
        place = int.from_bytes(digest, "little") / 2**64
        yield PARTS[1 if place < valid else 2 if place < valid + test else 0], line

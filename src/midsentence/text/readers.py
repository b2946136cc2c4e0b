"""Files -> lines: every corpus is read or refused, with the file and the line number."""

import csv
import difflib
import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, cast

from ..errors import UserError

PARTS = ("train", "valid", "test")


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
    column names of the first row, or column numbers from 0 in a file without a header. .jsonl:
    keys. A .gz of each is unpacked as it is read. Empty lines are passed over. A tab-separated
    .txt is read as .tsv where a text field is given.

    Raises UserError, naming file and line, for whatever cannot be read; in bounded memory.
    """
    if source.startswith("builtin:"):
        from .builtin import lines

        yield from lines(source.removeprefix("builtin:"), label_field)
        return
    name = "standard input" if source == "-" else source
    kind = Path(source.removesuffix(".gz")).suffix.lower()
    with _open(source) as file:
        rows = _rows(_decoded(file, name, max_chars), kind, name, text_field, label_field)
        count = 0
        for number, text, label in rows:
            text = text.strip().replace("\t", " ")
            if len(text) > max_chars:
                raise UserError(f"{name}:{number}: longer than {max_chars:,} characters: split it")
            if text:
                count += 1
                yield Line(text, label)
    if not count:
        raise UserError(f"{name} is empty: it needs one sentence a line")


def _open(source: str) -> BinaryIO:
    if source == "-":
        return sys.stdin.buffer
    path = Path(source)
    if path.is_dir():
        raise UserError(f"{source} is a folder: name a file in it")
    try:
        file = path.open("rb")
    except FileNotFoundError:
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, there, 1)
        hint = f". Did you mean {path.parent / close[0]}?" if close else ""
        raise UserError(f"{source}: no such file{hint}") from None
    except OSError as error:
        raise UserError(f"{source} cannot be opened: {error.strerror}") from None
    return cast(BinaryIO, gzip.open(file)) if source.endswith(".gz") else file


def _decoded(file: BinaryIO, name: str, max_chars: int) -> Iterator[tuple[int, str]]:
    """(line number, text without its end). Lines end in LF, CRLF or CR, and in nothing else."""
    limit = 4 * max_chars + 4
    number, rest, first = 0, b"", True
    while True:
        try:
            block = file.read(1 << 16)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{name}:{number + 1}: cannot be read ({error})") from None
        if first and block[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise UserError(f"{name} is UTF-16: save it as UTF-8")
        if first:
            block, first = block.removeprefix(b"\xef\xbb\xbf"), False
        data = rest + block
        # A CR at the very end may be half of a CRLF: it waits for the next block.
        held = b"\r" if block and data.endswith(b"\r") else b""
        data = data[: len(data) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        rest += held
        if not block and rest:
            lines, rest = [*lines, rest], b""
        for raw in lines:
            number += 1
            if len(raw) > limit:
                break
            if b"\0" in raw:
                raise UserError(f"{name}:{number}: a NUL byte: this is not a text file")
            try:
                yield number, raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{name}:{number}: not UTF-8 (byte {error.start + 1} of the line): "
                    "save the file as UTF-8"
                ) from None
        else:
            if len(rest) <= limit:
                if not block:
                    return
                continue
            number += 1
        raise UserError(f"{name}:{number}: longer than {max_chars:,} characters: split it")


def _rows(
    lines: Iterator[tuple[int, str]], kind: str, name: str, text: str | None, label: str | None
) -> Iterator[tuple[int, str, str | None]]:
    """(line number, text, label) of each record."""
    if kind == ".jsonl":
        yield from _json_rows(lines, name, text or "text", label)
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
            raise UserError(f"{name}:{number}: not JSON ({error})") from None
        if not isinstance(record, dict) or not isinstance(record.get(text), str):
            raise UserError(f"{name}:{number}: no text under {text!r}: give --text-field")
        if label is not None and label not in record:
            raise UserError(f"{name}:{number}: no label under {label!r}: check --label-field")
        yield number, record[text].replace("\n", " "), None if label is None else str(record[label])


def _columns(
    lines: Iterator[tuple[int, str]], mark: str, name: str, text: str | None, label: str | None
) -> Iterator[tuple[int, str, str | None]]:
    """Records of a table. Numbers mean that there is no header; with one column no name is needed."""
    place = [0]

    def feed() -> Iterator[str]:
        for number, line in lines:
            place[0] = number
            yield line + "\n"

    # Quotes mean something in CSV only: in TSV they are text.
    quoting = csv.QUOTE_MINIMAL if mark == "," else csv.QUOTE_NONE
    records = csv.reader(feed(), delimiter=mark, quoting=quoting)
    csv.field_size_limit(sys.maxsize)
    named = [field for field in (text, label) if field is not None and not field.isdigit()]
    columns: list[int | None] | None = None
    try:
        for record in records:
            if not record or record == [""]:
                continue
            if columns is None:
                header = record if named else None
                columns = [_column(field, header, name) for field in (text, label)]
                if columns[0] is None:
                    if len(record) > 1:
                        raise UserError(f"{name} has {len(record)} columns: give --text-field")
                    columns[0] = 0
                if header:
                    continue
            if max(c for c in columns if c is not None) >= len(record):
                raise UserError(f"{name}:{place[0]}: has {len(record)} columns, too few")
            mine = columns[1]
            found = record[cast(int, columns[0])].replace("\n", " ")
            yield place[0], found, None if mine is None else record[mine]
    except csv.Error as error:
        raise UserError(f"{name}:{place[0]}: {error}") from None


def _column(field: str | None, header: list[str] | None, name: str) -> int | None:
    if field is None:
        return None
    if header is not None and field in header:
        return header.index(field)
    if field.isdigit():
        return int(field)
    raise UserError(f"{name}:1: no column {field!r}; there are: {', '.join(header or [])}")


def split(
    lines: Iterable[Line], *, valid: float = 0.05, test: float = 0.05, seed: int = 0
) -> Iterator[tuple[str, Line]]:
    """("train", "valid" or "test", line), decided by a keyed hash of the line's group or text.

    So the same line falls on the same side whatever stands around it, duplicates stay together, and
    nothing is held in memory. Raises UserError for fractions that leave no training text.
    """
    if not (valid >= 0 and test >= 0 and valid + test < 1):
        raise UserError("corpus.valid_fraction and test_fraction must be from 0 to 1, below 1 summed")
    key = seed.to_bytes(8, "little", signed=True)
    for line in lines:
        held = line.group if line.group is not None else line.text
        digest = blake2b(held.encode(), digest_size=8, key=key).digest()
        place = int.from_bytes(digest, "little") / 2**64
        yield PARTS[1 if place < valid else 2 if place < valid + test else 0], line

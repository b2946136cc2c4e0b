"""Files -> lines: every corpus is read or refused, with the file and the line number."""

import zlib
from collections.abc import Iterator, Sequence
from glob import glob
from io import BufferedIOBase
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from .sources import opened
from .tables import RECORD, rows
from .tolerance import Bad

PARTS = ("train", "valid", "test")
ARROW = (".parquet", ".arrow", ".feather")
BLOCK = 1 << 16
# Tabs and other control characters (an escape sequence would reach the terminal) become spaces.
CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), " ")


class Line(NamedTuple):
    """One sentence. Lines of one `group` stay on one side of a split."""

    text: str
    label: str | None = None
    group: str | None = None


def files(source: str | Sequence[str]) -> list[str]:
    """What a source names: a path, ``-``, ``builtin:NAME``, a pattern such as ``data/*.txt``, or
    several of these. Files of a pattern come in alphabetical order. Raises UserError."""
    found: list[str] = []
    for one in [source] if isinstance(source, str) else source:
        if not set(one) & set("*?[") or Path(one).exists():
            found.append(one)
        elif names := sorted(glob(one, recursive=True)):  # noqa: PTH207 (absolute ones too)
            held = [name for name in names if not Path(name).is_dir()]
            if not held:
                raise UserError(f"{one}: only folders are called like that")
            found += held
        else:
            raise UserError(f"{one}: no file is called like that")
    if not found:
        raise UserError("there is no corpus: name a file")
    return found


def read(
    source: str | Sequence[str],
    *,
    text_field: str | None = None,
    label_field: str | None = None,
    max_chars: int = 100_000,
    bad: Bad | None = None,
) -> Iterator[Line]:
    """Sentences of a source (`files`).

    .txt (or any other ending): one sentence a line. .csv, .tsv: `text_field` and `label_field` are
    column names of the first row, or column numbers from 0 in a file without a header; without
    them, a column headed ``text``, or the only column. Quotes are quotes in .csv and text in .tsv.
    .jsonl, .ndjson, .json: keys of an object a line, ``text`` by default. A .gz of each is unpacked
    as it is read. A tab-separated file of another name is read as .tsv where a field is given.
    .parquet, .arrow, .feather: columns by name.

    Lines end in LF, CRLF or CR. Empty ones are passed over, white space around the text is taken
    off, and control characters in it become spaces. A text is at most `max_chars` long.

    Raises UserError, naming file and line, for whatever cannot be read and is not taken by `bad`;
    in bounded memory.
    """
    bad, found, named = bad or Bad(), False, files(source)
    for one in named:
        for line in _sentences(one, text_field, label_field, max_chars, bad):
            found = True
            yield line
    if not found:
        name = " ".join(map(shown, named[:3]))
        raise UserError(f"{name} holds no line of text: it needs one sentence a line{bad.after()}")


def _sentences(
    source: str, text_field: str | None, label_field: str | None, max_chars: int, bad: Bad
) -> Iterator[Line]:
    if source.startswith("builtin:"):
        from .builtin import lines

        if text_field is not None:
            raise UserError(f"{source} has no fields to choose from: leave --text-field out")
        yield from lines(source.removeprefix("builtin:"), label_field)
        return
    name = shown(source)
    kind = Path(source.removesuffix(".gz")).suffix.lower()
    if kind in ARROW:
        from .arrow import rows as arrow_rows

        found = arrow_rows(source, text_field, label_field)
    else:
        found = rows(raw_lines(source, max_chars, bad), kind, name, text_field, label_field, bad)
    for number, text, label in found:
        text = cleaned(text)
        if len(text) > max_chars:
            bad(_too_long(name, number, max_chars))
        elif text:
            yield Line(text, (cleaned(label) or None) if label is not None else None)


def raw_lines(
    source: str, max_chars: int = 100_000, bad: Bad | None = None
) -> Iterator[tuple[int, str]]:
    """(number, line) of a path or ``-``, as they stand. Raises UserError as `read` does."""
    with opened(source) as file:
        limit = max(4 * max_chars, RECORD)
        yield from _decoded(file, shown(source), limit, max_chars, bad or Bad())


def shown(source: str) -> str:
    return "standard input" if source == "-" else source


def cleaned(text: str) -> str:
    """A line as the corpus has it."""
    return plain(text).strip()


def plain(text: str) -> str:
    """The text on one line, with nothing in it that a terminal would obey."""
    return text if text.isprintable() else text.translate(CONTROLS)


def _too_long(name: str, number: int, max_chars: int) -> str:
    return (
        f"{name}:{number}: longer than {max_chars:,} characters: split it or raise corpus.max_chars"
    )


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
    file: BufferedIOBase, name: str, limit: int, max_chars: int, bad: Bad
) -> Iterator[tuple[int, str]]:
    """(line number, text without its end). At most `limit` bytes of a line are held."""
    number, rest, cut = 1, b"", False
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
            text = None if cut else _text(raw, name, number, limit, max_chars, bad)
            if text is not None:
                yield number, text
            number, cut = number + 1, False
        if len(rest) > limit and not cut:
            bad(_too_long(name, number, max_chars))
            cut = True
        rest = held if cut else rest + held


def _text(raw: bytes, name: str, number: int, limit: int, max_chars: int, bad: Bad) -> str | None:
    """A line, or None for one that is left out."""
    if len(raw) > limit:
        bad(_too_long(name, number, max_chars))
        return None
    try:
        if b"\0" not in raw:
            return raw.decode("utf-8")
        bad(f"{name}:{number}: a NUL byte: this is not a text file in UTF-8")
    except UnicodeDecodeError as error:
        bad(f"{name}:{number}: not UTF-8 (byte {error.start + 1} of the line): save it as UTF-8")
    return raw.decode("utf-8", "replace").replace("\0", " ") if bad.how == "replace" else None

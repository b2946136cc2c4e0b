"""Parquet and Arrow files -> rows, through the `data` extra, a batch of rows at a time."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from .tables import listed

ROWS = 1024


def rows(source: str, text: str | None, label: str | None) -> Iterator[tuple[int, str, str | None]]:
    """(row number from 1, text, label). A row without text is an empty one.

    text, label: columns' names; by itself the column ``text``, or the only one of strings. Raises
    UserError.
    """
    try:
        import pyarrow
    except ImportError:
        raise UserError(f'{source} needs: pip install "midsentence[data]"') from None
    number = 0
    try:
        schema, batches_of = _opened(source)
        strings = [field.name for field in schema if _is_text(field.type)]
        if text is None and "text" in schema.names:  # also if it can't be read: no other is meant
            text = "text"
        elif text is None and len(strings) == 1:
            text = strings[0]
        for wanted, known in ((text, strings), (label, schema.names)):
            if wanted is not None and wanted not in schema.names:
                raise UserError(f"{source}: no column {wanted!r} but {listed(known)}")
        if text is None:
            raise UserError(
                f"{source} has the columns {listed(schema.names)}: say which one is the "
                "sentence, where there is --text-field, or give a file of lines"
            )
        if text not in strings:
            kind = str(schema.types[schema.names.index(text)])[:80]
            raise UserError(
                f"{source}: column {text!r} is of type {kind!r}, not text: write it as strings"
            )
        columns = list(dict.fromkeys(name for name in (text, label) if name is not None))
        for batch in batches_of(columns):
            texts = batch.column(text).to_pylist()
            labels = [None] * len(texts) if label is None else batch.column(label).to_pylist()
            for found, mark in zip(texts, labels, strict=True):
                number += 1
                yield number, found or "", None if mark is None else str(mark)
    except FileNotFoundError:
        raise UserError(f"{source}: no such file") from None
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:  # Key: a name twice
        first = str(error).partition("\n")[0]
        raise UserError(f"{source}:{number + 1}: cannot be read ({first})") from None


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _opened(source: str) -> tuple[Any, Callable[[list[str]], Iterator[Any]]]:
    """(schema, batches of some columns) of a file, `ROWS` rows at a time."""
    import pyarrow

    if Path(source).suffix.lower() == ".parquet":
        from pyarrow import parquet

        file = parquet.ParquetFile(source)
        return file.schema_arrow, lambda columns: file.iter_batches(ROWS, columns=columns)
    held = pyarrow.memory_map(source)
    try:
        table = pyarrow.ipc.open_file(held)
        batches = (table.get_batch(i) for i in range(table.num_record_batches))
        return table.schema, lambda columns: _cut(batches)
    except pyarrow.ArrowInvalid:
        held.seek(0)
        stream = pyarrow.ipc.open_stream(held)
        return stream.schema, lambda columns: _cut(stream)


def _cut(batches: Iterable[Any]) -> Iterator[Any]:
    """A file may be one batch: it is mapped, but what becomes Python's is in memory."""
    for batch in batches:
        for begun in range(0, batch.num_rows, ROWS):
            yield batch.slice(begun, ROWS)

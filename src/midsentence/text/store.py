"""The corpus, tokenised once into memory-mapped arrays: flat memory whatever its size."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from io import BufferedIOBase
from itertools import chain
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from ..errors import UserError
from ..opening import LARGE, Newer, known, read_json, verify_early
from ..writing import whole_folder
from .readers import Line
from .tokenizer import Tokenizer

MANY = 1 << 20
"""Sentences whose lengths are held in memory."""

FORMAT = 1
MOST_NAMES, MOST_NAME_CHARS = 100_000, 1 << 22
"""Different labels and their characters, which are held in memory, and in a meta.json of `LARGE`
bytes."""

CHUNK_LINES, CHUNK_CHARS = 4096, 1 << 20
DTYPES = ("uint16", "uint32")
ARRAYS = ("tokens", "offsets", "sizes", "labels")
FILES = ("meta.json", *(f"{name}.bin" for name in ARRAYS))


class TokenStore:
    """Sentences of ids (without ``<s>``, ``</s>``) in a folder of plain arrays.

    tokens: all ids one after the other. offsets: (N + 1,) where each sentence begins. lengths: (N,)
    tokens of each; of many sentences `Lengths`. sizes: (N,) UTF-8 bytes of each line. labels: (N,)
    indices into `label_names`, -1 for none; or None. dropped: lines that were longer than allowed
    and left out.
    """

    def __init__(self, folder: Path):
        try:
            meta = read_json(folder / "meta.json", LARGE)
            # Anything but these two could make a damaged file's bytes into something else.
            known(meta["format"], FORMAT, folder)
            if meta["dtype"] not in DTYPES:
                raise ValueError("another type")
            self.folder = folder
            self.label_names: list[str] = meta["label_names"]
            self.dropped: int = meta["dropped"]
            count, total = int(meta["sentences"]), int(meta["tokens"])
            self.tokens = _map(folder / "tokens.bin", meta["dtype"], total)
            self.offsets = _map(folder / "offsets.bin", "int64", count + 1)
            self.sizes = _map(folder / "sizes.bin", "int32", count)
            labels = _map(folder / "labels.bin", "int32", count)
            self.labels = labels if self.label_names else None
            _check(self.offsets)
            lengths = Lengths(self.offsets)
            self.lengths: Any = np.asarray(lengths) if count <= MANY else lengths
            if self.offsets[0] != 0 or self.offsets[-1] != total:
                raise ValueError("offsets.bin does not fit tokens.bin")
        except Newer:
            raise
        except (OSError, ValueError, KeyError, TypeError, UserError) as error:
            raise _damaged(folder, error) from None

    @classmethod
    def open(cls, folder: Path) -> "TokenStore":
        """Map a written store. Raises UserError where files are missing, damaged or at odds."""
        try:
            verify_early(folder, FILES)
        except Newer:
            raise
        except UserError as error:
            raise _damaged(folder, error) from None
        return cls(folder)

    @classmethod
    def write(
        cls,
        folder: Path,
        lines: Iterable[Line],
        tokenizer: Tokenizer,
        *,
        label_names: list[str] | None = None,
        max_tokens: int | None = None,
    ) -> "TokenStore":
        """Tokenise `lines` into `folder`, a chunk at a time; it appears whole or not at all.

        `label_names` fixes the labels' numbers (valid and test use train's); new ones are added.
        A line of more than `max_tokens` is dropped and counted: cutting it would change the data.
        """
        dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
        with whole_folder(folder, FILES) as temporary:
            with ExitStack() as stack:
                files = {
                    name: stack.enter_context((temporary / f"{name}.bin").open("wb"))
                    for name in ARRAYS
                }
                meta = _fill(files, lines, tokenizer, dtype, list(label_names or []), max_tokens)
            (temporary / "meta.json").write_text(json.dumps(meta, ensure_ascii=False), "utf-8")
        return cls(folder)

    def __len__(self) -> int:
        return len(self.sizes)

    def highest(self) -> int:
        """The greatest id, -1 if there is none; read by blocks, which stay out of memory."""
        most = -1
        with (self.folder / "tokens.bin").open("rb") as file:
            while block := file.read(1 << 20):
                most = max(most, int(np.frombuffer(block, self.tokens.dtype).max()))
        return most

    def __getitem__(self, index: SupportsIndex) -> np.ndarray:
        index = range(len(self))[index]
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def text(self, tokenizer: Tokenizer, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Sentences as strings again."""
        return tokenizer.decode([self[int(i)].tolist() for i in indices])


def _damaged(folder: Path, error: Exception) -> UserError:
    return UserError(f"{folder} is no whole token store ({error}): train afresh")


def _fill(
    files: Mapping[str, BufferedIOBase],
    lines: Iterable[Line],
    tokenizer: Tokenizer,
    dtype: str,
    label_names: list[str],
    max_tokens: int | None,
) -> dict[str, Any]:
    """Write the arrays and return what meta.json says of them."""
    numbers = {name: i for i, name in enumerate(label_names)}
    total, count, dropped = 0, 0, 0
    files["offsets"].write(np.zeros(1, np.int64).tobytes())
    for chunk in _chunks(lines):
        pairs = list(zip(chunk, tokenizer.encode([line.text for line in chunk]), strict=True))
        kept = [(line, ids) for line, ids in pairs if max_tokens is None or len(ids) <= max_tokens]
        ends = total + np.cumsum([len(ids) for _, ids in kept], dtype=np.int64)
        sizes = [len(line.text.encode()) for line, _ in kept]
        before = len(numbers)
        labels = [
            -1 if line.label is None else numbers.setdefault(line.label, len(numbers))
            for line, _ in kept
        ]
        if len(numbers) > MOST_NAMES:
            raise UserError(
                f"the label field has more than {MOST_NAMES:,} different values: choose another "
                "--label-field"
            )
        if len(numbers) > before and sum(map(len, numbers)) > MOST_NAME_CHARS:
            raise UserError(
                f"the label field's different values have more than {MOST_NAME_CHARS:,} characters"
                " in all: choose another --label-field"
            )
        files["tokens"].write(np.array(list(chain(*(ids for _, ids in kept))), dtype).tobytes())
        files["offsets"].write(ends.tobytes())
        files["sizes"].write(np.array(sizes, np.int32).tobytes())
        files["labels"].write(np.array(labels, np.int32).tobytes())
        total = int(ends[-1]) if kept else total
        count, dropped = count + len(kept), dropped + len(chunk) - len(kept)
    return {
        "format": FORMAT,
        "dtype": dtype,
        "sentences": count,
        "tokens": total,
        "dropped": dropped,
        "label_names": list(numbers),
    }


def _chunks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """A few thousand lines at a time, or fewer where they are long: memory stays flat."""
    chunk: list[Line] = []
    held = 0
    for line in lines:
        chunk.append(line)
        held += len(line.text)
        if len(chunk) >= CHUNK_LINES or held >= CHUNK_CHARS:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


class Lengths:
    """Tokens of each sentence, found when asked for: an array would grow with the corpus."""

    def __init__(self, offsets: np.ndarray):
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: Any) -> Any:
        """Of a slice of sentences, or of an array of indices."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return np.diff(self.offsets[start : max(start, stop) + 1]).astype(np.int32)[::step]
        return (self.offsets[rows + 1] - self.offsets[rows]).astype(np.int32)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        found = np.diff(self.offsets).astype(np.int32)
        return found if dtype is None else found.astype(dtype)

    def sum(self) -> int:
        return int(self.offsets[-1])

    def mean(self) -> float:
        return self.sum() / max(1, len(self))


class Pick:
    """Some sentences of a store, in an order of their own."""

    def __init__(self, store: Any, rows: np.ndarray):
        self.store, self.rows = store, rows
        self.lengths, self.sizes = store.lengths[rows], np.asarray(store.sizes)[rows]
        self.labels = None if store.labels is None else store.labels[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.store[int(self.rows[index])]


def pick(store: Any, most: int, seed: int) -> Pick:
    """At most `most` sentences, drawn without replacement, in the store's order."""
    chance = np.random.default_rng(seed)
    if len(store) > MANY:  # a permutation of all of them would take their memory
        rows = chance.choice(len(store), min(most, len(store)), replace=False)
    else:
        rows = chance.permutation(len(store))[:most]
    return Pick(store, np.sort(rows))


def _check(offsets: np.ndarray) -> None:
    for start in range(0, len(offsets) - 1, 1 << 18):
        part = np.diff(offsets[start : start + (1 << 18) + 1])
        if (part < 0).any() or (part > np.iinfo(np.int32).max).any():
            raise ValueError("offsets.bin does not fit tokens.bin")


def _map(path: Path, dtype: str, count: int) -> np.ndarray:
    if count < 0 or path.stat().st_size != count * np.dtype(dtype).itemsize:
        raise ValueError(f"{path.name} is not of the size it should be")
    return np.memmap(path, dtype, mode="r", shape=(count,)) if count else np.zeros(0, dtype)

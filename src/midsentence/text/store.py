"""The corpus, tokenised once into memory-mapped arrays: flat memory whatever its size."""

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import UserError
from .readers import Line
from .tokenizer import Tokenizer

CHUNK = 4096


class TokenStore:
    """Sentences of ids (without ``<s>``, ``</s>``) in a folder of plain arrays.

    tokens: all ids one after the other. offsets: (N + 1,) where each sentence begins. sizes: (N,)
    UTF-8 bytes of each line. labels: (N,) indices into `label_names`, -1 for none; or None.
    dropped: lines that were longer than allowed and left out.
    """

    def __init__(self, folder: Path):
        try:
            meta = json.loads((folder / "meta.json").read_text("utf-8"))
            self.label_names: list[str] = meta["label_names"]
            self.dropped: int = meta["dropped"]
            count, total, dtype = meta["sentences"], meta["tokens"], np.dtype(meta["dtype"])
            self.tokens = _map(folder / "tokens.bin", dtype, total)
            self.offsets = _map(folder / "offsets.bin", np.dtype(np.int64), count + 1)
            self.sizes = _map(folder / "sizes.bin", np.dtype(np.int32), count)
            self.labels = (
                _map(folder / "labels.bin", np.dtype(np.int32), count) if self.label_names else None
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} is no whole token store ({error}): train afresh") from None
        self.lengths: np.ndarray = np.diff(self.offsets)

    @classmethod
    def open(cls, folder: Path) -> "TokenStore":
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
        """Tokenise `lines` into `folder`, a few thousand at a time; it appears whole or not at all.

        `label_names` fixes the labels' numbers (valid and test use train's); new ones are added.
        """
        names = list(label_names or [])
        index = {name: i for i, name in enumerate(names)}
        dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        offset, count, dropped = 0, 0, 0
        source = iter(lines)
        with (
            (temporary / "tokens.bin").open("wb") as tokens,
            (temporary / "offsets.bin").open("wb") as offsets,
            (temporary / "sizes.bin").open("wb") as sizes,
            (temporary / "labels.bin").open("wb") as labels,
        ):
            offsets.write(np.zeros(1, np.int64).tobytes())
            while chunk := list(islice(source, CHUNK)):
                for line, ids in zip(chunk, tokenizer.encode([x.text for x in chunk]), strict=True):
                    if max_tokens is not None and len(ids) > max_tokens:
                        dropped += 1
                        continue
                    offset, count = offset + len(ids), count + 1
                    tokens.write(np.asarray(ids, dtype).tobytes())
                    offsets.write(np.int64(offset).tobytes())
                    sizes.write(np.int32(len(line.text.encode())).tobytes())
                    label = -1
                    if line.label is not None:
                        label = index.setdefault(line.label, len(index))
                    labels.write(np.int32(label).tobytes())
        meta = {
            "format": 1,
            "dtype": dtype.name,
            "sentences": count,
            "tokens": offset,
            "dropped": dropped,
            "label_names": list(index),
        }
        (temporary / "meta.json").write_text(json.dumps(meta, ensure_ascii=False), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        return cls(folder)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def text(self, tokenizer: Tokenizer, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Sentences as strings again."""
        return tokenizer.decode([self[int(i)].tolist() for i in indices])


def _map(path: Path, dtype: np.dtype, count: int) -> np.ndarray:
    if path.stat().st_size != count * dtype.itemsize:
        raise ValueError(f"{path.name} is not of the size it should be")
    return np.memmap(path, dtype, mode="r") if count else np.zeros(0, dtype)

"""Which line is for training, which for validation, which for the test."""

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from ..errors import UserError
from .readers import PARTS, Line


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

"""One seed, many independent streams of random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LARGEST = (1 << 43) - 1
"""A seed that a person may give: a million times it (`measuring.survey`) is still a seed."""

LABELS, WORDS, SAMPLED, BLIND, PARTS, FITTED, CHOSEN = 1, 2, 3, 4, 5, 6, 7
"""What is drawn for a sentence beside its z, which has the seed itself: its label, its words, the
words of the vocabulary that its likelihood is estimated by, and a z that knows nothing of it. What
the sentences of a later part of a file are drawn by. And the z that a prior or a proposal is fitted
to, and those that its best step is chosen by: fitted to the noise that it is measured with, a
mixture would know it by heart."""


def seed_of(*key: int) -> int:
    """A seed that is a function of the key, and unlike that of any other key.

    Two draws from generators of the same seed are the same numbers: a sentence whose words were
    chosen by those its z was made of would not be a draw from p(z) p(x|z).
    """
    import numpy as np  # the command line, which reads the bound, starts without it

    whole = [number % (1 << 64) for number in key]
    return int(np.random.SeedSequence(whole).generate_state(1, np.uint64)[0])


def seed_of_part(seed: int, number: int) -> int:
    """For part `number`, from 0, of what does not fit at once; the first has the seed itself."""
    return seed_of(seed, PARTS, number) % (LARGEST + 1) if number else seed


def reseed(seed: int, device: torch.device) -> None:
    """`torch.manual_seed` where it is called for every batch: torch asks each kind of device that
    there could be, and keeps a trace of who asked, which takes longer than a small batch."""
    import torch

    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":  # this one alone: others may be somebody else's
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from `seed`; those of everybody else are left alone."""
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        reseed(seed, device)
        yield

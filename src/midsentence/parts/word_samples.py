"""A few words that stand for the vocabulary: how they are drawn."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEAST = 1e-3
"""A word is drawn as if it had at least this part of the mean mass: weights are bounded."""


@dataclass
class Words:
    """So many words of the vocabulary, and the generator that they are drawn by: the global one is
    for z, which is then the same whatever words there are."""

    count: int
    chance: torch.Generator


def draw_words(
    mass: Float[Tensor, "*P W"], count: int, chance: torch.Generator | None = None
) -> tuple[Int[Tensor, "*P S"], Float[Tensor, "*P S"]]:
    """`count` (below W) different words, and by how much each counts: one over its chance.

    A word's chance is proportional to its mass, and 1 where that would pass 1, so whatever has most
    mass is certain. They are drawn by equal steps along the summed chances from one random start
    (systematic sampling with probability proportional to size: Madow 1949; the weights: Horvitz &
    Thompson 1952).
    """
    size = mass.double()
    size = (size + LEAST * size.mean(-1, keepdim=True)).clamp_min(1e-300)
    top, steps = size.topk(count).values, torch.arange(count, device=size.device)
    tail = size.sum(-1, keepdim=True) - top.cumsum(-1) + top
    certain = (top * (count - steps) <= tail).int().argmax(-1, keepdim=True)
    share = (size * ((count - certain) / tail.gather(-1, certain))).clamp_max(1)
    start = torch.rand(*size.shape[:-1], 1, device=size.device, generator=chance).double()
    drawn = torch.searchsorted(share.cumsum(-1), steps + start, right=True)
    drawn = drawn.clamp_max(size.shape[-1] - 1)
    return drawn, (1 / share.gather(-1, drawn)).to(mass.dtype)

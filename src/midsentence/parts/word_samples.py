"""A few words that stand for the vocabulary: how they are drawn, and likelihoods by them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEAST = 1e-3
"""A word is drawn as if it had at least this part of the mean mass: weights are bounded."""

ROOM = 1 << 19
"""Logits made at once by `log_prob_together`: 2 MB in fp32, so that they stay in the cache."""


def draw_words(
    mass: Float[Tensor, "*P W"], count: int
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
    chance = (size * ((count - certain) / tail.gather(-1, certain))).clamp_max(1)
    start = torch.rand(*size.shape[:-1], 1, device=size.device).double()
    drawn = torch.searchsorted(chance.cumsum(-1), steps + start, right=True)
    drawn = drawn.clamp_max(size.shape[-1] - 1)
    return drawn, (1 / chance.gather(-1, drawn)).to(mass.dtype)


def log_prob_together(
    hidden: Float[Tensor, "P K H"],
    words: Float[Tensor, "W H"],
    bias: Float[Tensor, "W"],
    target: Int[Tensor, "P"],
    kind: torch.dtype,
    count: int,
) -> Float[Tensor, "P K"]:
    """log p(target | hidden) in nats of K hidden states a position, by `count` words a position.

    The states of a position, of K latents of one sentence, lie close together. So their mean alone
    looks at all W words: by the probabilities it gives them `count` are drawn, the likeliest for
    certain, and the normaliser of each state is summed over these, right in its mean. What is drawn
    has most of the mass anyway, and of the rest each state's mass is what the mean state's is times
    something near one, so little is left to chance. The target's own part is exact.

    The logits are those of the mean state, and what a state is away from it times the words: only
    this, which is small, is made in `kind`. Without gradients.
    """
    middle = hidden.mean(1)
    about = middle @ words.t() + bias
    own = (hidden * words[target][:, None]).sum(2) + bias[target][:, None]
    chosen, weights = draw_words(about.softmax(1).scatter_(1, target[:, None], 0), count)
    offset = about.gather(1, chosen) + weights.log()
    offset = offset.masked_fill_(chosen == target[:, None], -torch.inf)
    others = torch.empty_like(own)
    for p in torch.arange(len(hidden)).split(max(1, ROOM // (hidden.shape[1] * count))):
        away = (hidden[p] - middle[p, None]).to(kind)
        logits = away @ words[chosen[p]].to(kind).mT
        others[p] = (logits.to(offset.dtype) + offset[p, None]).logsumexp(2)
    return own - own.logaddexp(others)

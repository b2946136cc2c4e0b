"""K latents of one sentence, as importance weighting has them: what they share is computed once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .word_samples import draw_words

ROOM = 1 << 19
"""Logits made at once by `log_prob_together`: 2 MB in fp32, so that they stay in the cache."""


def lstm_together(
    net: nn.LSTM,
    words: Float[Tensor, "B T X"],
    latents: Float[Tensor, "K B X"],
    h: Float[Tensor, "N H"],
    c: Float[Tensor, "N H"],
) -> Float[Tensor, "N T H"]:
    """Hidden states of an LSTM of one layer that reads words + latents, N = K B.

    Half of its work is the product of what it reads with the weights: it is made once for the words
    of a sentence and once for each latent, not for each word of each latent. Without gradients;
    `c` is overwritten.
    """
    into, back, bias, more = (parameter.detach() for parameter in net.parameters())
    of_words = nn.functional.linear(words, into, bias + more)
    of_latents = nn.functional.linear(latents, into)
    found = h.new_empty(len(h), words.shape[1], h.shape[1])
    for t in range(words.shape[1]):
        gates = (of_latents + of_words[:, t]).flatten(0, 1).addmm_(h, back.t())
        keep, forget, new, out = gates.chunk(4, 1)  # in torch's order
        c.mul_(forget.sigmoid_()).addcmul_(keep.sigmoid_(), tanh(new))
        h = torch.mul(out.sigmoid_(), tanh(c), out=found[:, t])
    return found


def tanh(x: Tensor) -> Tensor:
    """By the sigmoid, which torch computes several times as fast on a processor."""
    return (2 * x).sigmoid_().mul_(2).sub_(1)


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
    own = (hidden @ words[target][:, :, None])[..., 0] + bias[target][:, None]
    chosen, weights = draw_words(about.softmax(1).scatter_(1, target[:, None], 0), count)
    offset = about.gather(1, chosen) + weights.log()
    offset = offset.masked_fill_(chosen == target[:, None], -torch.inf)
    most, others = offset.amax(1, keepdim=True), torch.empty_like(own)
    for p in torch.arange(len(hidden)).split(max(1, ROOM // (hidden.shape[1] * count))):
        away = (hidden[p] - middle[p, None]).to(kind)
        logits = (away @ words[chosen[p]].to(kind).mT).to(offset.dtype)
        # The mean state's largest logit is near each state's: theirs are not looked for.
        found = (logits + (offset - most)[p, None]).exp_().sum(2).log() + most[p]
        if not found.isfinite().all():
            found = (logits + offset[p, None]).logsumexp(2)
        others[p] = found
    return own - own.logaddexp(others)

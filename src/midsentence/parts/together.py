"""K latents of one sentence, as importance weighting has them: what they share is computed once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .word_samples import Words, draw_words

ROOM = 1 << 19
"""Numbers made at once by `log_prob_together`, logits or rows of the table: 2 MB in fp32, so that
they stay in the cache. Where all words are looked at, twice as many."""


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
    into, back = map(net.get_parameter, ("weight_ih_l0", "weight_hh_l0"))
    bias = net.get_parameter("bias_ih_l0") + net.get_parameter("bias_hh_l0")
    of_words = nn.functional.linear(words, into, bias)
    of_latents = nn.functional.linear(latents, into)
    found = h.new_empty(len(h), words.shape[1], h.shape[1])
    for t in range(words.shape[1]):
        gates = (of_latents + of_words[:, t]).flatten(0, 1).addmm_(h, back.t())
        take, forget, new, out = gates.chunk(4, 1)  # in torch's order
        c.mul_(forget.sigmoid_()).addcmul_(take.sigmoid_(), tanh(new))
        h = torch.mul(out.sigmoid_(), tanh(c), out=found[:, t])
    return found


def tanh(x: Tensor) -> Tensor:
    """By the sigmoid, which torch computes several times as fast on a processor."""
    return (2 * x).sigmoid_().mul_(2).sub_(1)


@torch.no_grad()
def log_prob_together(
    hidden: Float[Tensor, "P K H"],
    table: Float[Tensor, "W H"],
    bias: Float[Tensor, "W"],
    target: Int[Tensor, "P"],
    kind: torch.dtype,
    words: Words,
) -> Float[Tensor, "P K"]:
    """log p(target | hidden) in nats of K hidden states a position, by a few of the W words.

    The states of a position, of K latents of one sentence, lie close together. So their mean alone
    looks at all words: by the probabilities it gives them some are drawn, the likeliest for
    certain, and the normaliser of each state is summed over these, right in its mean. What is drawn
    has most of the mass anyway, and of the rest each state's mass is what the mean state's is times
    something near one, so little is left to chance. The target's own part is exact.

    The logits are those of the mean state, and what a state is away from it times the words: only
    this, which is small, is made in `kind`. Without gradients.
    """
    many = max(1, 2 * ROOM // len(table))
    pairs = zip(hidden.split(many), target.split(many), strict=True)
    return torch.cat([_some_positions(h, table, bias, t, kind, words) for h, t in pairs])


def _some_positions(
    hidden: Tensor, table: Tensor, bias: Tensor, target: Tensor, kind: torch.dtype, words: Words
) -> Float[Tensor, "P K"]:
    middle = hidden.mean(1)
    about = middle @ table.t() + bias
    own = (hidden @ table[target][:, :, None])[..., 0] + bias[target][:, None]
    mass = about.softmax(1).scatter_(1, target[:, None], 0)
    chosen, weights = draw_words(mass, words.count, words.chance)
    offset = about.gather(1, chosen) + weights.log()
    offset = offset.masked_fill_(chosen == target[:, None], -torch.inf)
    most, others = offset.amax(1, keepdim=True), torch.empty_like(own)
    few = max(1, ROOM // (words.count * max(hidden.shape[1:])))
    for begun in range(0, len(hidden), few):
        p = slice(begun, begun + few)
        away = (hidden[p] - middle[p, None]).to(kind)
        logits = (away @ table[chosen[p]].to(kind).mT).to(offset.dtype)
        # The mean state's largest logit is near each state's: theirs are not looked for.
        total = (logits + (offset - most)[p, None]).exp_().sum(2).log() + most[p]
        if not total.isfinite().all():
            total = (logits + offset[p, None]).logsumexp(2)
        others[p] = total
    return own - own.logaddexp(others)

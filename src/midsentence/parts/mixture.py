"""A mixture of softmaxes in the place of one: words that no single product can tell apart."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from ..errors import UserError
from .head import Head, Writer
from .log_softmax import BLOCK, CHUNK
from .word_samples import Words


def make_head(hidden: int, embedding: nn.Embedding, *, softmaxes: int, **settings: Any) -> Head:
    """The head that the settings ask for; `settings` are those of `Head`."""
    if softmaxes == 1:
        return Head(hidden, embedding, **settings)
    return MixtureHead(hidden, embedding, softmaxes=softmaxes, **settings)


class MixtureHead(Head):
    """log p(word | h) = log sum_k pi_k(h) softmax(W tanh(C_k h) + b)[word], k of K softmaxes.

    The logits of one softmax over V words lie in as many dimensions as h has, far fewer than
    language needs; the logarithm of a mixture is not so bound. Table and bias are shared, so it
    costs time (the head's K times over) and few parameters. Yang et al. 2018, "Breaking the Softmax
    Bottleneck: A High-Rank RNN Language Model", section 2.3.

    Raises UserError with label smoothing, which takes a mean of logits that a mixture has not.
    """

    def __init__(self, hidden: int, embedding: nn.Embedding, *, softmaxes: int, **settings: Any):
        super().__init__(hidden, embedding, **settings)
        if self.label_smoothing:
            raise UserError("head.label_smoothing goes with one softmax: set head.softmaxes to 1")
        self.map = None  # the contexts are as wide as the table
        self.softmaxes = softmaxes
        self.contexts = nn.Linear(hidden, softmaxes * self.table.shape[1])
        self.shares = nn.Linear(hidden, softmaxes, bias=False)

    def mixed(
        self, hidden: Float[Tensor, "*N H"]
    ) -> tuple[Float[Tensor, "*N K E"], Float[Tensor, "*N K"]]:
        """What each softmax reads, tanh(C_k h), and log pi."""
        read = self.contexts(hidden).tanh().unflatten(-1, (self.softmaxes, -1))
        return read, self.shares(hidden).log_softmax(-1)

    def log_prob(
        self, hidden: Float[Tensor, "M H"], targets: Int[Tensor, "M"]
    ) -> Float[Tensor, "M"]:
        read, log_pi = self.mixed(hidden)
        each = super().log_prob(read.flatten(0, 1), targets.repeat_interleave(self.softmaxes))
        return (each.view_as(log_pi) + log_pi).logsumexp(-1)

    def log_prob_together(
        self, hidden: Float[Tensor, "P L H"], targets: Int[Tensor, "P"], words: Words
    ) -> Float[Tensor, "P L"]:
        if words.count >= len(self.bias):
            return super().log_prob_together(hidden, targets, words)  # by `log_prob`
        read, log_pi = self.mixed(hidden)
        one = super().log_prob_together
        each = [one(states, targets, words) for states in read.unbind(2)]
        return (torch.stack(each, 2) + log_pi).logsumexp(2)

    def logits(self, hidden: Float[Tensor, "*N H"]) -> Float[Tensor, "*N V"]:
        """log p of every id, in the precision of the parameters; their softmax is p again."""
        read, log_pi = self.mixed(hidden)
        each = (read @ self.table.t() + self.biases()).log_softmax(-1)
        return (each + log_pi[..., None]).logsumexp(-2)

    def writer(self) -> Writer:
        return MixtureWriter(self)


class MixtureWriter(Writer):
    """Words are chosen by what the softmaxes say together, which has to be made whole."""

    def __init__(self, head: MixtureHead):
        self.head, self.bias = head, head.biases()
        self.rows = max(1, CHUNK // (len(self.bias) * head.softmaxes))

    def parts(
        self, hidden: Float[Tensor, "N H"]
    ) -> Iterator[tuple[Float[Tensor, "M H"], Float[Tensor, "M W"]]]:
        for some in hidden.split(self.rows):
            with torch.no_grad():
                found = self.head.logits(some)
            yield some, pad(found, (0, -found.shape[1] % BLOCK), value=-torch.inf)

    def exact(
        self, hidden: Float[Tensor, "N H"], words: Int[Tensor, "N K"], logits: Float[Tensor, "N W"]
    ) -> Float[Tensor, "N K"]:
        return logits.gather(1, words)

"""Encoders: a batch of sentences -> one summary vector each."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..text.batches import Batch
from .layers import Block, Dropout, Pooling, check_heads, positions, reverse, word_embedding
from .lstm import read


class RecurrentEncoder(nn.Module):
    """LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al. 2014), then pooling over time.

    Reads the words and ``</s>``.
    `summary` is the width of what comes out.

    embedding: size of a word's vector. hidden: size of a state. layers: one over the other.
    bidirectional: a second net reads from the end, and the summary is twice as wide. pooling: of
    the states over time: ``max``, ``mean``, ``last`` or ``attention``. dropout: of the words'
    vectors, and between the layers.
    """

    def __init__(
        self,
        vocab: int,
        *,
        cell: type[nn.LSTM] | type[nn.GRU],
        embedding: int = 256,
        hidden: int = 256,
        layers: int = 1,
        bidirectional: bool = False,
        pooling: str = "max",
        dropout: float = 0.0,
    ):
        super().__init__()
        self.embedding = word_embedding(vocab, embedding)
        self.summary = hidden * (1 + bidirectional)
        widths = [embedding] + [self.summary] * (layers - 1)
        # One plain net a direction: unlike packed sequences these run on the fused CPU kernels,
        # and right padding cannot reach a forward net's real positions.
        self.forwards = nn.ModuleList(cell(w, hidden, batch_first=True) for w in widths)
        self.backwards = nn.ModuleList(
            cell(w, hidden, batch_first=True) for w in widths if bidirectional
        )
        self.pool = Pooling(pooling, hidden)
        self.pool_back = Pooling(pooling, hidden) if bidirectional else None
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch) -> Float[Tensor, "B H"]:
        x, mask, lengths = self.embedding(batch.targets), batch.mask, batch.lengths
        for layer, net in enumerate(self.forwards):
            x = self.dropout(x)
            ahead = read(net, x)
            if not self.backwards:
                x = ahead
                continue
            back = read(self.backwards[layer], reverse(x, lengths))
            x = torch.cat([ahead, reverse(back, lengths)], -1)
        if self.pool_back is None:
            return self.pool(x, mask)
        # `back` is still in its own order, so that "last" means its own last state.
        return torch.cat([self.pool(ahead, mask), self.pool_back(back, mask)], -1)


class TransformerEncoder(nn.Module):
    """Bidirectional Transformer over the words and ``</s>``.

    hidden: size of a word's vector and of a state. layers: one over the other. heads: of attention.
    pooling: of the states over time: ``max``, ``mean``, ``last`` (the state at ``</s>``) or
    ``attention``. dropout: of the words' vectors, and in the layers.
    """

    def __init__(
        self,
        vocab: int,
        *,
        hidden: int = 256,
        layers: int = 2,
        heads: int = 4,
        pooling: str = "max",
        dropout: float = 0.0,
    ):
        super().__init__()
        check_heads(hidden, heads)
        self.embedding = word_embedding(vocab, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.pool = Pooling(pooling, hidden)
        self.dropout = Dropout(dropout)
        self.summary = hidden

    def forward(self, batch: Batch) -> Float[Tensor, "B H"]:
        x = self.embedding(batch.targets) * self.summary**0.5
        x = self.dropout(x + positions(0, x.shape[1], self.summary, x))
        visible = batch.mask[:, None, None, :]
        for block in self.blocks:
            x, _ = block(x, None, visible)
        return self.pool(self.norm(x), batch.mask)


class NoEncoder(nn.Module):
    """Reads nothing: what a language model (`latent = 0`) has where a VAE has an encoder."""

    nothing: Tensor
    summary = 0

    def __init__(self, vocab: int):
        super().__init__()
        # Empty, but it knows the model's device and precision.
        self.register_buffer("nothing", torch.zeros(1, 0), persistent=False)

    def forward(self, batch: Batch) -> Float[Tensor, "B H"]:
        return self.nothing.expand(len(batch), 0)


ENCODERS: dict[str, Callable[..., Any]] = {
    "lstm": partial(RecurrentEncoder, cell=nn.LSTM),
    "gru": partial(RecurrentEncoder, cell=nn.GRU),
    "transformer": TransformerEncoder,
    "none": NoEncoder,
}

"""The ways in which z enters a decoder: with the words that it reads, and after it has read."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import UserError
from ..text.tokenizer import BOS, UNK
from .layers import Dropout, dropout, word_embedding

WAYS = ("state", "input", "add", "gate", "skip")
"""That every decoder has, each in its own form: ``state`` is where it starts from."""


class LatentInput(nn.Module):
    """Word embeddings with z mixed in, and the dropouts of the input side.

    - ``input``: [e_t ; z] at every step (Bowman et al. 2016; He et al. 2019).
    - ``add``: e_t + W z at every step (Optimus, Li et al. 2020).

    Word dropout replaces words by ``<unk>``, so that the decoder needs z (Bowman et al. 2016).
    Embedding dropout takes away whole words of the vocabulary, wherever they stand in a batch: a
    row of the table is missing, the others grow by as much (Gal & Ghahramani 2016, "A Theoretically
    Grounded Application of Dropout in Recurrent Neural Networks", section 4.2).
    """

    def __init__(
        self,
        vocab: int,
        embedding: int,
        latent: int,
        inject: list[str],
        dropout: Dropout,
        word_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
    ):
        super().__init__()
        self.embedding = word_embedding(vocab, embedding)
        self.add = nn.Linear(latent, embedding, bias=False) if "add" in inject else None
        self.concatenate = "input" in inject
        self.scale = 1.0
        self.dropout, self.word_dropout = dropout, word_dropout
        self.embedding_dropout = embedding_dropout
        self.width = embedding + (latent if self.concatenate else 0)

    def forward(self, tokens: Int[Tensor, "N T"], z: Float[Tensor, "N D"]) -> Tensor:
        if self.training and self.word_dropout:
            hidden = torch.rand(tokens.shape, device=tokens.device) < self.word_dropout
            tokens = tokens.masked_fill(hidden & (tokens != BOS), UNK)
        x = self.embedding(tokens) * self.scale
        if self.training and self.embedding_dropout:
            every = x.new_ones(self.embedding.num_embeddings, 1)
            x = x * dropout(every, self.embedding_dropout)[tokens]
        if self.add is not None:
            x = x + self.add(z)[:, None]
        x = self.dropout(x)
        if self.concatenate:
            x = torch.cat([x, z[:, None].expand(-1, x.shape[1], -1)], -1)
        return x

    def of_latent(self, z: Float[Tensor, "*N D"]) -> Float[Tensor, "*N X"]:
        """What z adds to every position, where nothing is dropped."""
        shape = (*z.shape[:-1], self.embedding.embedding_dim)
        added = z.new_zeros(shape) if self.add is None else self.add(z)
        return torch.cat([added, z], -1) if self.concatenate else added


class LatentOutput(nn.Module):
    """What z changes of the hidden states, right before the vocabulary.

    ``gate``: h_t * (1 + G z), each unit made more or less of; G begins at 0. ``skip``: h_t + U z
    (Dieng et al. 2019, "Avoiding Latent Variable Collapse with Generative Skip Models"). Both are
    FiLM (Perez et al. 2018, "FiLM: Visual Reasoning with a General Conditioning Layer", eq. 2).
    """

    gate: nn.Linear | None
    skip: nn.Linear | None

    def ways_out(self, inject: list[str], latent: int, hidden: int) -> None:
        self.gate = nn.Linear(latent, hidden, bias=False) if "gate" in inject else None
        self.skip = nn.Linear(latent, hidden, bias=False) if "skip" in inject else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)

    def leave(self, hidden: Float[Tensor, "N T H"], z: Float[Tensor, "N D"]) -> Tensor:
        if self.gate is not None:
            hidden = hidden * (1 + self.gate(z))[:, None]
        return hidden if self.skip is None else hidden + self.skip(z)[:, None]


def check_injection(inject: list[str], latent: int, allowed: tuple[str, ...]) -> list[str]:
    """The ways in which z enters, none when there is no z. Raises UserError for unknown ones."""
    for name in inject:
        if name not in allowed:
            raise UserError(f"inject = {name!r} is not possible here: use {', '.join(allowed)}")
    if latent and not inject:
        raise UserError("inject = [] would hide z from the decoder: name at least one way in")
    return list(inject) if latent else []

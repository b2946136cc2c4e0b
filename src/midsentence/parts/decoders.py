"""Decoders: z and the words so far -> hidden states, by one `step` for training and writing."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import UserError
from . import lstm
from .injection import WAYS, LatentInput, LatentOutput, check_injection
from .layers import Block, Dropout, check_heads, dropout, positions
from .together import lstm_together

State = dict[str, Tensor]
"""Whatever a decoder carries between steps. Every tensor leads with N, so that ``{k: v[rows]}``
drops finished sentences and reorders beams for every decoder alike."""


def select(state: State, rows: Tensor) -> State:
    """The state of the sentences `rows` (indices or a mask), in that order."""
    return {name: value[rows] for name, value in state.items()}


class Decoder(LatentOutput):
    """What every decoder is: `start` from z, then `step` over any number of words.

    Teacher forcing (`forward`) is one long step; writing is many short ones; a law test holds the
    two equal. `width` is H, the size of the hidden states; `input` the embedding that it reads;
    `many` latents are written together where nobody says how many.

    inject: the ways in which z enters, any of: ``state``, where it starts; ``input``, beside every
    word; ``add``, to every word; ``gate`` and ``skip``, to what it has read; ``memory``, a
    Transformer's (`parts.injection`). word_dropout: the part of the words read in training that are
    ``<unk>`` (Bowman et al. 2016). embedding_dropout: the part of the vocabulary that a training
    step does without (Gal & Ghahramani 2016).
    """

    width: int
    many = 1024
    input: LatentInput

    def start(self, z: Float[Tensor, "N D"]) -> State:
        raise NotImplementedError

    def step(
        self, tokens: Int[Tensor, "N T"], state: State
    ) -> tuple[Float[Tensor, "N T H"], State]:
        raise NotImplementedError

    def forward(
        self, tokens: Int[Tensor, "N T"], z: Float[Tensor, "N D"]
    ) -> Float[Tensor, "N T H"]:
        return self.step(tokens, self.start(z))[0]

    def together(
        self, tokens: Int[Tensor, "B T"], z: Float[Tensor, "K B D"]
    ) -> Float[Tensor, "N T H"]:
        """The same of K latents a sentence, N = K B; the sentences come K times over."""
        found: Tensor = self(tokens.expand(len(z), -1, -1).flatten(0, 1), z.flatten(0, 1))
        return found


class RecurrentDecoder(Decoder):
    """LSTM or GRU language model that z conditions (Bowman et al. 2016).

    ``state``: the published form, c0 = W z and h0 = tanh(c0) (He et al. 2019); a GRU starts from
    h0. weight_drop: the part of the weights from state to state that a training step does without,
    the same ones at every word (Merity et al. 2018, "Regularizing and Optimizing LSTM Language
    Models", section 2). dropout: before, between and after the layers. locked_dropout: one mask for
    all words of a sentence (Gal & Ghahramani 2016). embedding: size of a word's vector. hidden:
    size of a state. layers: one over the other.
    """

    many = 4096  # its state does not grow with the sentence

    def __init__(
        self,
        vocab: int,
        latent: int,
        *,
        cell: type[nn.LSTM] | type[nn.GRU],
        embedding: int = 256,
        hidden: int = 256,
        layers: int = 1,
        inject: list[str] = ["state", "input"],  # noqa: B006 (never changed)
        dropout: float = 0.0,
        locked_dropout: bool = False,
        word_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ):
        super().__init__()
        inject = check_injection(inject, latent, WAYS)
        self.dropout = Dropout(dropout, locked_dropout)
        self.input = LatentInput(
            vocab, embedding, latent, inject, self.dropout, word_dropout, embedding_dropout
        )
        self.net: nn.LSTM | nn.GRU = cell(
            self.input.width, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0
        )
        first = layers * hidden
        self.first = nn.Linear(latent, first, bias=False) if "state" in inject else None
        self.ways_out(inject, latent, hidden)
        self.width, self.layers = hidden, layers
        self.weight_drop = weight_drop

    def start(self, z: Float[Tensor, "N D"]) -> State:
        rows, size = z.shape[0], self.layers * self.width
        c = z.new_zeros(rows, size) if self.first is None else self.first(z)
        c = c.view(rows, self.layers, self.width)
        state = {"z": z, "h": c.tanh()}
        return state | {"c": c} if isinstance(self.net, nn.LSTM) else state

    def step(
        self, tokens: Int[Tensor, "N T"], state: State
    ) -> tuple[Float[Tensor, "N T H"], State]:
        z = state["z"]
        # The nets want (layers, N, H); the state leads with N.
        now = {k: v.transpose(0, 1).contiguous() for k, v in state.items() if k != "z"}
        x = self.input(tokens, z)
        carried: Any = (now["h"], now["c"]) if "c" in now else now["h"]
        hidden, carried = self._read(x, carried)
        after = dict(zip(now, carried if "c" in now else [carried], strict=True))
        hidden = self.leave(self.dropout(hidden), z)
        return hidden, {"z": z} | {k: v.transpose(0, 1) for k, v in after.items()}

    def together(
        self, tokens: Int[Tensor, "B T"], z: Float[Tensor, "K B D"]
    ) -> Float[Tensor, "N T H"]:
        # GRUs have no such short cut here; cuDNN's and oneDNN's bf16 need none.
        net, kind = self.net, z.device.type
        plain = self.training or torch.is_grad_enabled() or torch.is_autocast_enabled(kind)
        if plain or kind != "cpu" or not isinstance(net, nn.LSTM) or len(z) == 1:
            return super().together(tokens, z)
        every = z.flatten(0, 1)
        state = self.start(every)
        words, latents = self.input(tokens, torch.zeros_like(z[0])), self.input.of_latent(z)
        hidden = lstm_together(net, words, latents, state["h"][:, 0], state["c"][:, 0])
        for layer in range(1, self.layers):
            begun = [state[name][None, :, layer].contiguous() for name in "hc"]
            hidden = lstm.one_layer(hidden, begun, self._weights(layer))[0]
        return self.leave(hidden, every)

    def _read(self, x: Tensor, carried: Any) -> tuple[Tensor, Any]:
        """The net over x: by its own forward, or layer by layer where that would not do."""
        net, states = self.net, carried if isinstance(self.net, nn.LSTM) else (carried,)
        locked = self.dropout.locked and self.dropout.p > 0 and self.layers > 1
        layerwise = self.training and (self.weight_drop > 0 or locked)
        if not layerwise and not lstm.gradient_is_wrong(net, x):
            read: tuple[Tensor, Any] = net(x, carried)
            return read
        ends = []
        for layer in range(self.layers):
            x = self.dropout(x) if layer else x
            x, *end = lstm.one_layer(x, [s[layer, None] for s in states], self._weights(layer))
            ends.append(end)
        after = [torch.cat(layers) for layers in zip(*ends, strict=True)]
        return x, after if len(after) > 1 else after[0]

    def _weights(self, layer: int) -> list[Tensor]:
        """A layer's; in training some of those from state to state are 0."""
        drop = self.weight_drop if self.training else 0.0
        return [
            dropout(weight, drop) if drop and name.startswith("weight_hh") else weight
            for name, weight in self.net.named_parameters()
            if name.endswith(f"_l{layer}")
        ]


class TransformerDecoder(Decoder):
    """Causal Transformer with a cache of keys and values.

    ``memory``: z becomes `memory` extra keys and values that every layer may look at
    (Optimus, Li et al. 2020, section 3.2). ``state``: W z is added to ``<s>`` alone, the nearest
    thing to an initial state. ``input`` concatenates and projects back to the layers' width.

    hidden: size of a word's vector and of a state. layers: one over the other. heads: of attention.
    memory: how many keys and values z becomes. dropout: of the words' vectors, and in the layers.
    """

    def __init__(
        self,
        vocab: int,
        latent: int,
        *,
        hidden: int = 256,
        layers: int = 2,
        heads: int = 4,
        inject: list[str] = ["add", "memory"],  # noqa: B006 (never changed)
        memory: int = 4,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
    ):
        super().__init__()
        check_heads(hidden, heads)
        inject = check_injection(inject, latent, (*WAYS, "memory"))
        if "memory" in inject and memory < 1:
            raise UserError("decoder.memory must be at least 1 where inject has 'memory'")
        self.prefix = (
            nn.Linear(latent, layers * memory * 2 * hidden) if "memory" in inject else None
        )
        self.begin = nn.Linear(latent, hidden, bias=False) if "state" in inject else None
        self.input = LatentInput(
            vocab, hidden, latent, inject, Dropout(0.0), word_dropout, embedding_dropout
        )
        self.narrow = nn.Linear(self.input.width, hidden) if "input" in inject else None
        self.input.scale = hidden**0.5
        self.blocks = nn.ModuleList(Block(hidden, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.dropout = Dropout(dropout)
        self.ways_out(inject, latent, hidden)
        self.width = hidden
        self.memory = memory if "memory" in inject else 0

    def start(self, z: Float[Tensor, "N D"]) -> State:
        layers = len(self.blocks)
        past = z.new_zeros(z.shape[0], layers, self.memory, 2 * self.width)
        if self.prefix is not None:
            past = self.prefix(z).view_as(past)
        return {"z": z, "past": past}

    def step(
        self, tokens: Int[Tensor, "N T"], state: State
    ) -> tuple[Float[Tensor, "N T H"], State]:
        x, grown = self._read(tokens, state)
        return x, {"z": state["z"], "past": torch.stack(grown, 1)}

    def forward(
        self, tokens: Int[Tensor, "N T"], z: Float[Tensor, "N D"]
    ) -> Float[Tensor, "N T H"]:
        return self._read(tokens, self.start(z))[0]  # no cache is put together for nobody

    def _read(self, tokens: Tensor, state: State) -> tuple[Tensor, list[Tensor]]:
        """Hidden states, and every layer's keys and values."""
        z, past = state["z"], state["past"]
        seen = past.shape[2] - self.memory
        x = self.input(tokens, z)
        if self.narrow is not None:
            x = self.narrow(x)
        new, old = x.shape[1], past.shape[2]
        x = x + positions(seen, new, self.width, x)
        if self.begin is not None:
            first = torch.arange(seen, seen + new, device=x.device) == 0
            x = x + self.begin(z)[:, None] * first[:, None]
        x = self.dropout(x)
        mask = None
        if new > 1:
            here = torch.arange(old, old + new, device=x.device)
            mask = torch.arange(old + new, device=x.device) <= here[:, None]
        grown = []
        for layer, block in enumerate(self.blocks):
            x, kept = block(x, past[:, layer], mask)
            grown.append(kept)
        return self.leave(self.dropout(self.norm(x)), z), grown


DECODERS: dict[str, Callable[..., Any]] = {
    "lstm": partial(RecurrentDecoder, cell=nn.LSTM),
    "gru": partial(RecurrentDecoder, cell=nn.GRU),
    "transformer": TransformerDecoder,
}

"""Layers that encoders and decoders share: dropout, pooling, an attention block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import UserError


def dropout(x: Float[Tensor, "*N"], p: float) -> Float[Tensor, "*N"]:
    """Zeros for a part `p` of the elements, the others grown by as much (Srivastava et al. 2014).

    On a CPU, p is rounded to sixteen bits: four elements share a draw of the generator, where
    torch's dropout makes one for each, and not by several threads.
    """
    zeros = round(p * (1 << 16))
    if x.device.type != "cpu" or not 0 < zeros < 1 << 16 or torch.compiler.is_compiling():
        return F.dropout(x, p)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    noise = draws.random_(torch.iinfo(torch.int64).min, None).view(torch.int16)
    kept = noise[: x.numel()].view(x.shape) >= zeros - (1 << 15)
    return x * kept.to(x.dtype).mul_(1 / (1 - zeros / (1 << 16)))


class Dropout(nn.Module):
    """Dropout on (N, T, H); `locked` keeps one mask for all T of a sentence.

    The locked (variational) form is from Gal & Ghahramani 2016, "A Theoretically Grounded
    Application of Dropout in Recurrent Neural Networks". It regularises small corpora better and
    draws T times fewer random numbers.
    """

    def __init__(self, p: float, locked: bool = False):
        super().__init__()
        self.p, self.locked = p, locked

    def forward(self, x: Float[Tensor, "N T H"]) -> Float[Tensor, "N T H"]:
        if not self.training or self.p == 0:
            return x
        if not self.locked:
            return dropout(x, self.p)
        return x * dropout(x.new_ones(x.shape[0], 1, x.shape[2]), self.p)


class Pooling(nn.Module):
    """Hidden states (B, T, H) -> one summary (B, H), over the positions that are not padding.

    - ``last``: the state at the last token (for a bidirectional net, each direction's own last).
    - ``mean``, ``max``: over time; max pooling keeps the latent alive (Long et al. 2019,
      "Preventing Posterior Collapse in Sequence VAEs with Pooling").
    - ``attention``: a learned query, softmax over time (Lin et al. 2017).
    """

    KINDS = ("last", "mean", "max", "attention")

    def __init__(self, kind: str, width: int):
        super().__init__()
        if kind not in self.KINDS:
            raise UserError(f"pooling = {kind!r} is not one of {', '.join(self.KINDS)}")
        self.kind = kind
        self.query = nn.Linear(width, 1, bias=False) if kind == "attention" else None

    def forward(self, x: Float[Tensor, "B T H"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B H"]:
        if self.kind == "last":
            return x[torch.arange(x.shape[0], device=x.device), mask.sum(1) - 1]
        if self.kind == "mean":
            return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        if self.kind == "max":
            return x.masked_fill(~mask[..., None], -torch.inf).amax(1)
        assert self.query is not None
        weights = self.query(x).squeeze(-1).masked_fill(~mask, -torch.inf).softmax(1)
        return (weights[..., None] * x).sum(1)


def reverse(x: Tensor, lengths: Int[Tensor, "B"]) -> Tensor:
    """Reverse each row's first `length` positions along dim 1; padding stays where it is."""
    time = torch.arange(x.shape[1], device=x.device)
    index = torch.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)
    return x.gather(1, index[..., None].expand_as(x))


def positions(start: int, count: int, width: int, like: Tensor) -> Float[Tensor, "T H"]:
    """Sinusoidal position codes (Vaswani et al. 2017, section 3.5): no longest sentence."""
    time = torch.arange(start, start + count, device=like.device, dtype=torch.float32)
    rates = torch.exp(
        torch.arange(0, width, 2, device=like.device) * (-torch.log(torch.tensor(1e4)) / width)
    )
    angles = time[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width].to(like.dtype)


def word_embedding(vocab: int, width: int) -> nn.Embedding:
    """Uniform with variance 1 / width, so that a tied head starts with logits of order one."""
    table = nn.Embedding(vocab, width)
    bound = (3 / width) ** 0.5
    nn.init.uniform_(table.weight, -bound, bound)
    return table


def check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise UserError(f"hidden = {width} cannot be shared by heads = {heads}: choose a divisor")


class Block(nn.Module):
    """Pre-norm Transformer layer (Vaswani et al. 2017; Xiong et al. 2020 for the norm's place).

    recompute: in training only what goes in is kept, and the layer is computed once more for its
    gradient (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
    """

    recompute = False

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "N T H"], past: Tensor | None, mask: Tensor | None
    ) -> tuple[Float[Tensor, "N T H"], Tensor]:
        """`past`: keys and values seen so far, (N, S, 2H); `mask`: True where one may look,
        broadcast to (N, 1, T, S + T). Returns the new x and the grown past."""
        if self.recompute and self.training:
            found: tuple[Tensor, Tensor] = checkpoint(
                self._forward, x, past, mask, use_reentrant=False
            )
            return found
        return self._forward(x, past, mask)

    def _forward(
        self, x: Tensor, past: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        query, fresh = self.qkv(self.norm_attention(x)).tensor_split([x.shape[-1]], dim=-1)
        past = fresh if past is None else torch.cat([past, fresh], 1)
        key, value = past.chunk(2, dim=-1)
        split = (x.shape[0], -1, self.heads, x.shape[-1] // self.heads)
        query, key, value = (y.reshape(split).transpose(1, 2) for y in (query, key, value))
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.dropout(self.out(seen.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm_mlp(x))))), past


@contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """No gradient is computed for these."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)

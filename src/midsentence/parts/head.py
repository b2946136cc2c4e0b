"""The vocabulary head: hidden states -> log-probabilities of words. Most of the time goes here."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import UserError

FIRST = 2
"""<pad> and <s> are never written, so the head has no rows for them: row r is word r + FIRST."""

CHUNK = 1 << 23
"""Logits made at once, rows x words: 32 MB in fp32, 16 MB in bf16."""


class Head(nn.Module):
    """log p(word | hidden) = log softmax(W h + b), without <pad> and <s>.

    `log_prob` never holds (M x V) in fp32: with bf16 products the unnormalised probabilities are
    kept once, in bf16; in fp32 they are made chunk by chunk and once more for the gradient. Sums
    over words and the target's own logit are fp32 either way.

    tied: the word embedding of the decoder is W (Press & Wolf 2017; Inan et al. 2017); when it is
    narrower or wider than the hidden states, a linear map stands between.
    precision: ``float32``, ``bfloat16`` or ``auto`` (bfloat16 where the processor multiplies it
    natively).
    """

    def __init__(
        self,
        hidden: int,
        embedding: nn.Embedding,
        *,
        tied: bool = False,
        precision: str = "auto",
    ):
        super().__init__()
        if precision not in ("auto", "float32", "bfloat16"):
            raise UserError(f"head.precision = {precision!r}: use auto, float32 or bfloat16")
        vocab, width = embedding.weight.shape
        self.tied, self.precision = tied, precision
        self.map = nn.Linear(hidden, width) if tied and width != hidden else None
        if tied:
            self.table = embedding.weight
        else:
            self.table = nn.Parameter(torch.empty(vocab, hidden))
            nn.init.uniform_(self.table, -(hidden**-0.5), hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(vocab - FIRST))

    def log_prob(
        self, hidden: Float[Tensor, "M H"], targets: Int[Tensor, "M"]
    ) -> Float[Tensor, "M"]:
        """log p(target | hidden) in nats, one a row."""
        if self.map is not None:
            hidden = self.map(hidden)
        return _TargetLogProb.apply(
            hidden, self.table[FIRST:], self.bias, targets - FIRST, self._products(hidden)
        )

    def logits(self, hidden: Float[Tensor, "*N H"]) -> Float[Tensor, "*N V"]:
        """fp32 logits of every id; minus infinity for <pad> and <s>."""
        if self.map is not None:
            hidden = self.map(hidden)
        bias = nn.functional.pad(self.bias, (FIRST, 0), value=-torch.inf)
        return nn.functional.linear(hidden, self.table, bias)

    def _products(self, hidden: Tensor) -> torch.dtype:
        if self.precision == "bfloat16":
            return torch.bfloat16
        if self.precision == "float32":
            return hidden.dtype  # float64 stays float64
        fast = hidden.dtype == torch.float32 and has_fast_bfloat16(hidden.device)
        return torch.bfloat16 if fast else hidden.dtype


def has_fast_bfloat16(device: torch.device) -> bool:
    """Does this device multiply bf16 natively?"""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


class _TargetLogProb(torch.autograd.Function):
    """log softmax(h W' + b)[target] by rows, with the gradient written out.

    With e = exp(logits - max) and s = sum(e), d log p / d logits = onehot - e / s. A row's weight
    g / s multiplies the small (M, H) side of the two products, so the (M, V) side is touched by
    one product, one max, one exp and one sum, and by nothing else.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, bias: Tensor, target: Tensor, kind: torch.dtype
    ) -> Tensor:
        exact = (hidden * table[target]).sum(1) + bias[target]
        w, b, h = table.to(kind), bias.to(kind), hidden.to(kind)
        keep = kind == torch.bfloat16 and any(ctx.needs_input_grad)
        log_probs, totals, kept = [exact[:0]], [exact[:0]], []
        for rows in _chunks(hidden, table):
            e, top = _exponentials(h[rows], w, b)
            # The target's own share is replaced by its exact value: p can't pass 1.
            own = exact[rows] - top
            mine = e.gather(1, target[rows, None]).squeeze(1)
            total = e.sum(1, dtype=own.dtype) - mine + own.exp()
            log_probs.append((own - total.log()).clamp_max(0))
            totals.append(total)
            if keep:
                kept.append(e)
        ctx.kind = kind
        ctx.save_for_backward(hidden, table, bias, target, torch.cat(totals), *kept)
        return torch.cat(log_probs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, table, bias, target, total, *kept = ctx.saved_tensors
        w, b, h = table.to(ctx.kind), bias.to(ctx.kind), hidden.to(ctx.kind)
        # A column of ones beside h makes the bias's gradient a part of the same product.
        wide = torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1)
        scaled = (wide * (grad / total)[:, None]).to(ctx.kind)
        d_wide = wide.new_zeros(len(table), wide.shape[1])
        d_hidden = torch.empty_like(hidden)
        for chunk, rows in enumerate(_chunks(hidden, table)):
            e = kept[chunk] if kept else _exponentials(h[rows], w, b)[0]
            d_wide -= e.t() @ scaled[rows]
            d_hidden[rows] = (e @ w).to(hidden.dtype)
        d_hidden = (table[target] - d_hidden / total[:, None]) * grad[:, None]
        d_wide.index_add_(0, target, wide * grad[:, None])
        return d_hidden, d_wide[:, :-1], d_wide[:, -1], None, None


def _chunks(hidden: Tensor, table: Tensor) -> list[slice]:
    size = max(1, CHUNK // len(table))
    return [slice(start, start + size) for start in range(0, len(hidden), size)]


def _exponentials(hidden: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(exp(logits - top), top): (m, V) in the products' precision and (m,) in at least fp32."""
    logits = torch.addmm(b, hidden, w.t())
    top = logits.amax(1)
    return logits.sub_(top[:, None]).exp_(), top.to(torch.promote_types(top.dtype, torch.float32))


class BagOfWords(nn.Module):
    """log p(bag | z): every word of the sentence predicted from z alone, in any order.

    One hidden tanh layer, one softmax a sentence, summed over the words and ``</s>``. Added to the
    objective with its own weight, it makes z carry what the sentence is about. Zhao, Zhao &
    Eskenazi 2017, "Learning Discourse-level Diversity for Neural Dialog Models using CVAE", eq. 6.
    Use it when the KL stays near zero in spite of annealing; it is no part of the likelihood.
    """

    def __init__(self, latent: int, vocab: int, hidden: int = 256):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, vocab - FIRST)
        )

    def forward(
        self, z: Float[Tensor, "K B D"], targets: Int[Tensor, "B T"], mask: Tensor
    ) -> Float[Tensor, "K B"]:
        log_probs = self.net(z).log_softmax(-1)
        index = (targets - FIRST).clamp_min(0).expand(len(z), -1, -1)
        return (log_probs.gather(-1, index) * mask).sum(-1)

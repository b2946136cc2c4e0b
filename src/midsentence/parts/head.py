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

FAR = 1e30
"""The odds against a target beyond which its own logit is no good shift for its row."""

BLOCK = 128
"""Words summed together before the sum of all is taken."""


class Head(nn.Module):
    """log p(word | hidden) = log softmax(W h + b), without <pad> and <s>.

    `log_prob` never holds (M x V) in fp32 beyond a chunk: with bf16 products the unnormalised
    probabilities are kept once, in bf16; in fp32 they are made chunk by chunk and, unless one chunk
    is all, once more for the gradient. Sums over words and the target's own logit are fp32 anyway.

    tied: the word embedding of the decoder is W (Press & Wolf 2017; Inan et al. 2017); when it is
    narrower or wider than the hidden states, a linear map stands between.
    label_smoothing: in training every word takes this part of the target's place, evenly (Szegedy
    et al. 2016, section 7). Bounds reported while training are then of the smoothed target.
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
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError("head.label_smoothing is a part of the probability: 0 to below 1")
        if precision not in ("auto", "float32", "bfloat16"):
            raise UserError(f"precision = {precision!r}: use auto, float32 or bfloat16")
        vocab, width = embedding.weight.shape
        self.tied, self.precision, self.label_smoothing = tied, precision, label_smoothing
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
        kind = self.products()
        found: Tensor = _TargetLogProb.apply(hidden, self.table, self.bias, targets - FIRST, kind)
        if self.training and self.label_smoothing:
            # The normaliser is the same for every word: only the logits are mixed.
            mean = hidden @ self.table[FIRST:].mean(0) + self.bias.mean()
            own = (hidden * self.table[targets]).sum(1) + self.bias[targets - FIRST]
            found = found + self.label_smoothing * (mean - own)
        return found

    def apart(self, a: Float[Tensor, "M H"], b: Float[Tensor, "M H"]) -> Float[Tensor, "M"]:
        """Mean over words of the squared difference of the logits of two hidden states.

        |W (a - b)|^2 / V = (a - b) W'W (a - b) / V, so that no logit is made.
        """
        difference = a - b if self.map is None else self.map(a) - self.map(b)
        words = self.table[FIRST:]
        return ((difference @ (words.t() @ words)) * difference).sum(-1) / len(words)

    def logits(self, hidden: Float[Tensor, "*N H"]) -> Float[Tensor, "*N V"]:
        """Of every id; minus infinity for <pad> and <s>."""
        return Writer(self).logits(hidden)

    def products(self) -> torch.dtype:
        """In what the large products are made."""
        held = self.bias
        if self.precision == "bfloat16":
            return torch.bfloat16
        if self.precision == "float32":
            return held.dtype  # float64 stays float64
        fast = held.dtype == torch.float32 and has_fast_bfloat16(held.device)
        return torch.bfloat16 if fast else held.dtype


class Writer:
    """The head while words are chosen: its weights made ready once for many small calls."""

    def __init__(self, head: Head):
        kind = head.products()
        never = head.bias.new_full((FIRST,), -torch.inf)
        self.map, self.table, self.bias = head.map, head.table, torch.cat([never, head.bias])
        self.quick = self.table.to(kind), self.bias.to(kind)

    def logits(self, hidden: Float[Tensor, "*N H"]) -> Float[Tensor, "*N V"]:
        """Of every id, as the products' precision has them; minus infinity for <pad> and <s>."""
        table, bias = self.quick
        found = nn.functional.linear(self._mapped(hidden).to(table.dtype), table, bias)
        return found.to(hidden.dtype)

    def exact(
        self, hidden: Float[Tensor, "N H"], words: Int[Tensor, "N K"]
    ) -> Float[Tensor, "N K"]:
        """Logits of a few words a row, in the precision of the parameters."""
        rows = self.table[words] @ self._mapped(hidden)[:, :, None]
        return rows[..., 0] + self.bias[words]

    def _mapped(self, hidden: Tensor) -> Tensor:
        return hidden if self.map is None else self.map(hidden)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Does this device multiply bf16 natively?"""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def has_bfloat16_layers(device: torch.device) -> bool:
    """Can every layer run in bf16 here, natively or not? oneDNN has no such LSTM for processors
    without AVX-512, and torch asks nothing else for one."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return True
    found: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return found


class _TargetLogProb(torch.autograd.Function):
    """log softmax(h W' + b)[target] by rows, with the gradient written out.

    Every row is shifted by its target's own logit, which is exact: with e = exp(logits - own) and
    s the sum of e over the *other* words, log p = -log(1 + s), and no maximum has to be looked for.
    Where s passes FAR a chunk of rows is done again, shifted by its maxima. The gradient
    is s / (1 + s) at the target and -e / (1 + s) elsewhere; the row's weight multiplies the small
    (M, H) side of the two products, so the (M, V) side is touched by the product, one exp and one
    sum, and by nothing else.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, bias: Tensor, target: Tensor, kind: torch.dtype
    ) -> Tensor:
        own = (hidden * table[target + FIRST]).sum(1) + bias[target]
        words = _words(table, bias, kind)
        small = kind == torch.bfloat16 or len(hidden) == _rows(hidden, words)
        keep = small and any(ctx.needs_input_grad)
        shift, others, kept = own.clone(), torch.empty_like(own), []
        room = None if keep else _room(hidden, words)
        for rows in _chunks(hidden, words, whole=keep):
            e = _exponentials(hidden[rows], words, target[rows], shift[rows], room)
            others[rows] = _row_sums(e)
            if not (others[rows] < FAR).all():
                shift[rows] += _logits(hidden[rows], words, shift[rows]).amax(1)
                e = _exponentials(hidden[rows], words, target[rows], shift[rows], room)
                others[rows] = _row_sums(e)
            if keep:
                kept.append(e)
        total = others + (own - shift).exp()
        ctx.save_for_backward(hidden, table, target, words, shift, others, total, *kept)
        return (own - shift - total.log()).clamp_max(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, table, target, words, shift, others, total, *kept = ctx.saved_tensors
        w = words[:, : table.shape[1]]
        rest = -grad / total
        scaled, weights = (hidden * rest[:, None]).to(w.dtype), rest[None].to(w.dtype)
        d_hidden = torch.empty_like(hidden)
        d_table, d_bias = torch.empty_like(table), hidden.new_zeros(len(w))
        d_table[:FIRST] = 0
        room = None if kept else _room(hidden, words)
        for chunk, rows in enumerate(_chunks(hidden, words, whole=bool(kept))):
            if kept:
                e = kept[0]
            else:
                e = _exponentials(hidden[rows], words, target[rows], shift[rows], room)
            product = e.t() @ scaled[rows]
            if chunk:
                d_table[FIRST:] += product
            else:
                d_table[FIRST:] = product
            d_bias += (weights[:, rows] @ e)[0]
            d_hidden[rows] = (e @ w).to(hidden.dtype)
        at_target = grad * others / total
        d_hidden = d_hidden * rest[:, None] + table[target + FIRST] * at_target[:, None]
        d_table.index_add_(0, target + FIRST, hidden * at_target[:, None])
        d_bias.index_add_(0, target, at_target)
        return d_hidden, d_table, d_bias, None, None


def _rows(hidden: Tensor, words: Tensor) -> int:
    """Of a chunk."""
    return min(max(1, CHUNK // len(words)), len(hidden))


def _room(hidden: Tensor, words: Tensor) -> Tensor:
    """Where chunk after chunk is made: fresh memory would have to be cleared each time."""
    return words.new_empty(_rows(hidden, words), len(words))


def _chunks(hidden: Tensor, words: Tensor, whole: bool) -> list[slice]:
    """`whole`: one for all rows, where what is made is kept anyway."""
    size = (len(hidden) if whole else _rows(hidden, words)) or 1
    return [slice(start, start + size) for start in range(0, len(hidden) or 1, size)]


def _pair(vector: Tensor, kind: torch.dtype) -> Tensor:
    """Two columns that sum to the vector: its value in `kind`, and what that leaves."""
    value = vector.to(kind)
    return torch.stack([value, (vector - value).to(kind)], 1)


def _operand(matrix: Tensor, *columns: Tensor) -> Tensor:
    """The matrix with columns beside it, in their precision, filled with zeros to an even width."""
    kind, width = columns[0].dtype, matrix.shape[1] + sum(c.shape[1] for c in columns)
    spare = columns[0].new_zeros(len(matrix), -width % 16)
    return torch.cat([matrix.to(kind), *columns, spare], 1)


def _words(table: Tensor, bias: Tensor, kind: torch.dtype) -> Tensor:
    """The right side of the product: the bias rides along, and two ones for the shift.

    h w + 1 b - shift 1 is then rounded once: bias and shift cost no pass over (M, V), and the
    likeliest words, whose shifted logits are near 0, lose least in bf16.
    """
    b = _pair(bias, kind)
    return _operand(table[FIRST:], b, torch.ones_like(b))


def _logits(hidden: Tensor, words: Tensor, shift: Tensor, room: Tensor | None = None) -> Tensor:
    down = _pair(-shift, words.dtype)
    rows = _operand(hidden, torch.ones_like(down), down)
    return torch.mm(rows, words.t(), out=None if room is None else room[: len(rows)])


def _exponentials(
    hidden: Tensor, words: Tensor, target: Tensor, shift: Tensor, room: Tensor | None = None
) -> Tensor:
    """exp(logits - shift), (m, V) in the products' precision, and 0 at the target."""
    e = _logits(hidden, words, shift, room).exp_()
    rows = torch.arange(len(e), device=e.device)
    return e.index_put_((rows, target), e.new_zeros(()))


def _row_sums(e: Tensor) -> Tensor:
    """(m,) in at least fp32. Blocks of words are summed first: reductions keep their running sum
    in fp32, but asked for an fp32 result they would copy all of a bf16 `e` to fp32."""
    if e.dtype != torch.bfloat16:
        return e.sum(1)
    whole = e.shape[1] // BLOCK * BLOCK
    blocks = e[:, :whole].unflatten(1, (-1, BLOCK)).sum(-1)
    return blocks.sum(1, dtype=torch.float32) + e[:, whole:].sum(1, dtype=torch.float32)


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

"""log softmax(h W' + b)[target], with its gradient: the hot kernel of the whole system.

Products of positions x words are most of the work in training, evaluation and writing. Here they
are kept to one forward and two backward, the matrix between them to one exp and one sum; and in
training they may be made of a sample of the words, backward alone or forward too.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from .word_samples import draw_words

FIRST = 2
"""<pad> and <s> are never written, so the head has no rows for them: row r is word r + FIRST."""

CHUNK = 1 << 23
"""Logits made at once, rows x words: 32 MB in fp32, 16 MB in bf16."""

FAR = 1e30
"""The odds against a target beyond which its own logit is no good shift for its row."""

EVEN = 64
"""Rows are filled up to a multiple of so many where oneDNN multiplies bf16: for a number of rows
that it has not met it makes a program first, which takes longer than the product."""

BLOCK = 128
"""Words whose sum or maximum is taken first, before that of all words."""

PILOT = 64
"""Rows that say, before the others are looked at, which words have mass."""


class TargetLogProb(torch.autograd.Function):
    """(M,) log-probabilities of the targets, nats; the gradient is written out.

    Every row is shifted by its target's own logit, which is exact: with e = exp(logits - own) and
    s the sum of e over the *other* words, log p = -log(1 + s), and no maximum has to be looked for.
    Where s passes FAR a chunk of rows is done again, shifted by its maxima; an accelerator always
    takes these off, for it would have to be waited for to know whether it must. The gradient
    is s / (1 + s) at the target and -e / (1 + s) elsewhere; the row's weight multiplies the small
    (M, H) side of the two products, so the (M, V) side is touched by the product, one exp and one
    sum, and by nothing else.

    sampled: the gradient's sum over the other words is made of so many of them (0: of all), drawn
    by `draw_words` and weighted, so that its mean is the exact gradient. Their logits are made
    again, and nothing of M x V outlives its chunk. The value is exact, the target's own part too.

    early: they are drawn before the rows are summed, by the mass that PILOT rows give to the words
    and by the targets. s is then a sum over them alone, right in its mean; log p, which is no
    linear function of s, is a little too high, and the gradient as little off. Sampled softmax:
    Bengio & Senécal 2008, "Adaptive Importance Sampling to Accelerate Training of a Neural
    Probabilistic Language Model"; Jean et al. 2015, section 3.

    rows: where words are sampled, the table's gradient is a sparse tensor of their rows and of the
    targets', which may come twice.

    learns: whether there will be a gradient, which nothing in here can tell: parameters want one
    also where nobody asks, and a bf16 M x V would be kept for it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "M H"],
        table: Float[Tensor, "V H"],
        bias: Float[Tensor, "W"],
        target: Int[Tensor, "M"],
        kind: torch.dtype,
        sampled: int,
        early: bool,
        rows: bool,
        learns: bool,
    ) -> Float[Tensor, "M"]:
        own = (hidden * table[target + FIRST]).sum(1) + bias[target]
        chosen, place = None, target
        draws = learns and len(hidden) > 0 and 0 < sampled < len(bias)
        late = draws and not early
        if draws and early:
            mass = _pilot_mass(hidden, table[FIRST:], bias, target, kind)
            chosen, place, words = _sample(mass, sampled, table, bias, target, kind)
        else:
            words = _words(table[FIRST:], bias, kind)
        spare = -len(hidden) % EVEN if kind == torch.bfloat16 and hidden.device.type == "cpu" else 0
        hidden, own, place = _filled(hidden, spare), _filled(own, spare), _filled(place, spare, -1)
        small = kind == torch.bfloat16 or _rows(hidden, words) == len(hidden)
        keep = learns and small and not late
        weigh = len(target) if late else 0
        shift, others, mass, kept = _sums(hidden, own, words, place, keep=keep, weigh=weigh)
        total = others + (own - shift).exp()
        if late:
            chosen, place, words = _sample(mass, sampled, table, bias, target, kind)
            place = _filled(place, spare, -1)
        ctx.rows = rows and chosen is not None
        ctx.save_for_backward(
            hidden, table, target, words, shift, others, total, chosen, place, *kept
        )
        return (own - shift - total.log())[: len(target)].clamp_max(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, table, target, words, shift, others, total, chosen, place, *kept = ctx.saved_tensors
        grad = _filled(grad, len(total) - len(grad))  # what fills the rows up has none
        w, rest = words[:, : table.shape[1]], -grad / total
        scaled, row = (hidden * rest[:, None]).to(w.dtype), rest[None].to(w.dtype)
        d_hidden = torch.empty_like(hidden)
        learns = any(ctx.needs_input_grad[1:3])  # else the head is frozen
        d_rows = table.new_empty(FIRST + len(w) if learns else FIRST, table.shape[1])
        d_rows[:FIRST] = 0
        d_words = d_rows[FIRST:]
        d_bias = hidden.new_zeros(len(w))
        room = None if kept else _room(hidden, words)
        for chunk, rows in enumerate(_chunks(hidden, words, whole=bool(kept))):
            if kept:
                e = kept[0]
            else:
                e = _exponentials(hidden[rows], words, place[rows], shift[rows], room)
            d_hidden[rows] = (e @ w).to(hidden.dtype)
            if not learns:
                continue
            product = e.t() @ scaled[rows]
            if chunk:
                d_words += product
            else:
                d_words.copy_(product)
            d_bias += (row[:, rows] @ e)[0]
        real = slice(len(target))
        at_target = (grad * others / total)[real]
        d_hidden = d_hidden[real] * rest[real, None] + table[target + FIRST] * at_target[:, None]
        if not learns:
            return d_hidden, *[None] * 8
        if chosen is not None:
            d_bias = d_bias.new_zeros(len(table) - FIRST).index_put_((chosen,), d_bias)
        reached = hidden[real] * at_target[:, None]
        if chosen is None:
            d_table = d_rows.index_add_(0, target + FIRST, reached)
        else:
            places = torch.cat([chosen, target]) + FIRST
            d_table = _spread(torch.cat([d_words, reached]), places, table, ctx.rows)
        d_bias.index_add_(0, target, at_target)
        return d_hidden, d_table, d_bias, None, None, None, None, None, None


def waits(device: torch.device) -> bool:
    """Must it finish what it was given before a number there can be asked for?"""
    return device.type != "cpu"


def _filled(x: Tensor, spare: int, value: int = 0) -> Tensor:
    """With so many more rows. Padding by nothing would copy what there is."""
    return pad(x, (0, 0) * (x.ndim - 1) + (0, spare), value=value) if spare else x


def _spread(values: Tensor, rows: Tensor, table: Tensor, sparse: bool) -> Tensor:
    """The sum of these rows, as large as the table."""
    if not sparse:
        return torch.zeros_like(table).index_add_(0, rows, values)
    return torch.sparse_coo_tensor(rows[None], values, table.shape, check_invariants=False)


def _sums(
    hidden: Tensor, own: Tensor, words: Tensor, target: Tensor, *, keep: bool, weigh: int
) -> tuple[Float[Tensor, "M"], Float[Tensor, "M"], Float[Tensor, "W"], list[Tensor]]:
    """The rows' shifts; their sums over the other words; the probability of every word, summed over
    those of the first `weigh` rows whose target it is not; with `keep`, the exponentials."""
    shift, others, kept = own.clone(), torch.empty_like(own), []
    room = None if keep else _room(hidden, words)
    mass = own.new_zeros(len(words))
    always = waits(hidden.device)
    for rows in _chunks(hidden, words, whole=keep):
        e = _exponentials(hidden[rows], words, target[rows], shift[rows], room, lower=always)
        others[rows] = _row_sums(e)
        if not always and not (others[rows] < FAR).all():
            shift[rows] += _logits(hidden[rows], words, shift[rows]).amax(1).clamp_min(0)
            e = _exponentials(hidden[rows], words, target[rows], shift[rows], room)
            others[rows] = _row_sums(e)
        if weigh:
            part = 1 / (others[rows] + (own[rows] - shift[rows]).exp())
            part[max(0, weigh - rows.start) :] = 0
            mass += (part[None].to(words.dtype) @ e)[0]
        if keep:
            kept.append(e)
    return shift, others, mass, kept


def _pilot_mass(
    hidden: Tensor, table: Tensor, bias: Tensor, target: Tensor, kind: torch.dtype
) -> Float[Tensor, "W"]:
    """The mass of every word as some of the rows have it, and each target's one.

    One row is drawn from each of so many equal parts: at equal distances they might all be the
    first words of their sentences. So few are not worth a table with columns beside it: in fp32
    none is copied."""
    count = min(PILOT, len(hidden))
    place = torch.arange(count, device=hidden.device) + torch.rand(count, device=hidden.device)
    some = (place * (len(hidden) / count)).long().clamp_max(len(hidden) - 1)
    p = (hidden[some].to(kind) @ table.to(kind).t() + bias).softmax(1)
    mass = p.scatter_(1, target[some, None], 0).sum(0) * (len(hidden) / len(p))
    return mass.index_add_(0, target, mass.new_ones(len(target)))


def _sample(
    mass: Tensor, count: int, table: Tensor, bias: Tensor, target: Tensor, kind: torch.dtype
) -> tuple[Int[Tensor, "S"], Int[Tensor, "M"], Tensor]:
    """Words drawn by their mass; where each row's target is among them (-1: nowhere); their side of
    the product, with the logarithm of what each counts in its bias."""
    chosen, weights = draw_words(mass, count)
    place = chosen.new_full((len(bias),), -1)
    place[chosen] = torch.arange(len(chosen), device=chosen.device)
    return chosen, place[target], _words(table[chosen + FIRST], bias[chosen] + weights.log(), kind)


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
    return _operand(table, b, torch.ones_like(b))


def _logits(hidden: Tensor, words: Tensor, shift: Tensor, room: Tensor | None = None) -> Tensor:
    down = _pair(-shift, words.dtype)
    rows = _operand(hidden, torch.ones_like(down), down)
    return torch.mm(rows, words.t(), out=None if room is None else room[: len(rows)])


def _exponentials(
    hidden: Tensor, words: Tensor, target: Tensor, shift: Tensor, room: Tensor | None = None,
    *, lower: bool = False,
) -> Tensor:  # fmt: skip
    """exp(logits - shift), (m, V) in the products' precision, and 0 at the target.

    A target below 0 is none of these words. lower: the shifts are raised to the rows' maxima."""
    e = _logits(hidden, words, shift, room)
    if lower:
        most = e.amax(1).clamp_min_(0)
        shift += most
        e -= most[:, None]
    e.exp_()
    at = target.clamp_min(0)[:, None]
    return e.scatter_(1, at, e.gather(1, at).where(target[:, None] < 0, 0))


def _row_sums(e: Tensor) -> Tensor:
    """(m,) in at least fp32. Blocks of words are summed first: reductions keep their running sum
    in fp32, but asked for an fp32 result they would copy all of a bf16 `e` to fp32."""
    if e.dtype != torch.bfloat16:
        return e.sum(1)
    whole = e.shape[1] // BLOCK * BLOCK
    blocks = e[:, :whole].unflatten(1, (-1, BLOCK)).sum(-1)
    return blocks.sum(1, dtype=torch.float32) + e[:, whole:].sum(1, dtype=torch.float32)

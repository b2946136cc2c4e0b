"""One layer of a recurrent net: torch's own, but for an LSTM whose gradient torch gets wrong."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .together import tanh

WRONG = 0.1
"""Relative error of a gradient in bf16; rounding alone makes half a hundredth."""


@lru_cache(1)  # once
def hide_from_compiler() -> None:
    """From now on torch.compile calls these and does not look into them: it would unroll a layer,
    for each length anew, and answer for a net of its own. Call them as `lstm.one_layer`.

    Not by decorators: those import the compiler, which takes as long as torch, in every command.
    """
    for function in (one_layer, gradient_is_wrong):
        globals()[function.__name__] = torch.compiler.disable(function)


def read(net: Any, x: Float[Tensor, "N T X"]) -> Float[Tensor, "N T H"]:
    """Hidden states of an `nn.LSTM` or `nn.GRU` of one layer over x."""
    if not gradient_is_wrong(net, x):
        hidden: Tensor = net(x)[0]
        return hidden
    nothing = x.new_zeros(1, len(x), net.hidden_size)
    return one_layer(x, [nothing, nothing], list(net.parameters()))[0]


def one_layer(
    x: Float[Tensor, "N T X"],
    start: Sequence[Float[Tensor, "1 N H"]],
    weights: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """Hidden states (N, T, H) of an LSTM that starts from (h, c), or of a GRU from (h,); its end,
    (1, N, H) each. weights: into the gates, from state to gates, and both biases."""
    own = len(start) == 2 and _wrong(x, weights[0].shape[1], weights[1].shape[1])
    found: tuple[Tensor, ...] = (_own_layer if own else _torch_layer)(x, start, weights)
    return found


def _torch_layer(x: Tensor, start: Sequence[Tensor], weights: Sequence[Tensor]) -> Any:
    run: Any = partial(torch.lstm, x, start) if len(start) == 2 else partial(torch.gru, x, start[0])
    return run(weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)


def _own_layer(x: Tensor, start: Sequence[Tensor], weights: Sequence[Tensor]) -> Any:
    h, c = (s[0] for s in start)
    hidden, h, c = Lstm.apply(x, h, c, *weights, torch.bfloat16)
    return hidden, h[None], c[None]


def gradient_is_wrong(net: nn.Module, x: Tensor) -> bool:
    """Would torch's own forward of `net` over x lead to a wrong gradient?

    oneDNN 3.12, which torch 2.13 has, computes one for LSTMs in bf16 on processors with AMX, of
    1,024 units or more: that of what the layer reads has a relative error of 1.
    """
    return isinstance(net, nn.LSTM) and _wrong(x, net.input_size, net.hidden_size)


def _wrong(x: Tensor, width: int, hidden: int) -> bool:
    bf16 = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    bf16 = bf16 and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return bf16 and torch.is_grad_enabled() and _measured_wrong(width, hidden)


@lru_cache
def _measured_wrong(width: int, hidden: int) -> bool:
    """Measured once, on two words: no version or processor has to be named, now or later."""
    draw = torch.Generator().manual_seed(0)
    sizes = (2, 2, width), (4 * hidden, width), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,)
    x, *weights = (torch.rand(size, generator=draw) - 0.5 for size in sizes)
    weights = [w * 2 * hidden**-0.5 for w in weights]
    start = [torch.zeros(1, 2, hidden)] * 2
    with torch.autocast("cpu", enabled=False), torch.enable_grad():
        right = _slope(x, start, weights)
        with torch.autocast("cpu", torch.bfloat16):
            found = _slope(x, start, weights)
    return not bool((found - right).norm() < WRONG * right.norm())


def _slope(x: Tensor, start: list[Tensor], weights: list[Tensor]) -> Tensor:
    x = x.requires_grad_()
    hidden = _torch_layer(x, start, weights)[0].float()
    return torch.autograd.grad(hidden.square().sum(), x)[0]


class Lstm(torch.autograd.Function):
    """An LSTM layer (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000), its
    large products made in `kind`; gates, cells and their slopes are as exact as the weights.

    x: (N, T, X), h and c: (N, H). What all words are read by is one product, as are the gradients
    of the weights.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, c: Tensor, into: Tensor, back: Tensor,
        bias_in: Tensor, bias_back: Tensor, kind: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        (rows, words, _), size = x.shape, back.shape[1]
        read = x.transpose(0, 1).to(kind).flatten(0, 1)
        into, back = into.to(kind), back.to(kind)
        gates = torch.addmm((bias_in + bias_back).to(kind), read, into.t())
        gates = gates.view(words, rows, 4 * size)
        exact = bias_in.dtype  # start and words may come in `kind`
        cells = c.new_empty(words + 1, rows, size, dtype=exact)
        hidden = c.new_empty(words + 1, rows, size, dtype=kind)
        cells[0], hidden[0] = c, h
        for t in range(words):
            now = gates[t].addmm_(hidden[t], back.t()).to(exact)
            new = tanh(now[:, 2 * size : 3 * size])
            now.sigmoid_()[:, 2 * size : 3 * size] = new
            gates[t] = now
            take, forget, new, out = now.chunk(4, 1)  # in torch's order
            torch.mul(cells[t], forget, out=cells[t + 1]).addcmul_(take, new)
            hidden[t + 1] = out * tanh(cells[t + 1])
        ctx.save_for_backward(read, gates, cells, hidden, into, back)
        ctx.read = x.dtype
        return hidden[1:].transpose(0, 1), hidden[-1], cells[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dhidden: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        read, gates, cells, hidden, into, back = ctx.saved_tensors
        words, rows, size = hidden[1:].shape
        exact = cells.dtype
        slopes, dh, dc = torch.empty_like(gates), dh.to(exact), dc.to(exact, copy=True)
        for t in reversed(range(words)):
            gate = gates[t].to(exact)
            take, forget, new, out = gate.chunk(4, 1)
            seen = tanh(cells[t + 1])
            dh = dh + dhidden[:, t]
            dc.addcmul_(dh * out, 1 - seen * seen)
            by = torch.addcmul(gate, gate, gate, value=-1)  # of a sigmoid
            by[:, 2 * size : 3 * size] = 1 - new * new
            slopes[t] = by.mul_(torch.cat([dc * new, dc * cells[t], dc * take, dh * seen], 1))
            dc.mul_(forget)
            dh = (slopes[t] @ back).to(exact)
        flat = slopes.flatten(0, 1)
        dx = (flat @ into).view(words, rows, -1).transpose(0, 1).to(ctx.read)
        if not ctx.needs_input_grad[3]:  # it is frozen
            return dx, dh, dc, *[None] * 5
        dinto, dback = flat.t() @ read, flat.t() @ hidden[:-1].flatten(0, 1)
        dbias = flat.sum(0, dtype=exact)
        return dx, dh, dc, dinto.to(exact), dback.to(exact), dbias, dbias, None

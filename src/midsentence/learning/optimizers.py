"""Optimisers with their learning-rate rules: how a gradient becomes a step."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from ..processes import whole
from ..vae import VAE
from .schedules import hold_cosine, warm_cosine

Named = Iterable[tuple[str, nn.Parameter]]

READING = ("encoder.", "posterior.")
"""The inference network; everything else writes."""


def _bare(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method as it is under what torch's compiler wants around it, if that is still there."""
    return getattr(method, "__wrapped__", method)


class Bare(torch.optim.Optimizer):
    """Without torch's compiler, which its optimisers import to tell it that they are none of its
    business: every training would begin 2.6 s later, and be 70 MB larger."""

    add_param_group = _bare(torch.optim.Optimizer.add_param_group)
    state_dict = _bare(torch.optim.Optimizer.state_dict)
    load_state_dict = _bare(torch.optim.Optimizer.load_state_dict)

    grad_scale: torch.Tensor
    found_inf: torch.Tensor


def given_rows(
    optimizer: torch.optim.Optimizer,
) -> list[tuple[nn.Parameter, torch.Tensor, torch.Tensor, dict[str, Any]]]:
    """(table, places, rows, its settings) of all that have a gradient of a few rows (`few_rows`),
    which is taken from them."""
    found = []
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None and p.grad.is_sparse:
                found.append((p, p.grad.indices()[0], p.grad.values(), group))
                p.grad = None
    return found


class BareAdamW(Bare, torch.optim.AdamW):
    """A few rows are laid into a table of zeros, which is kept and has only them cleared again."""

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.zeros: dict[nn.Parameter, torch.Tensor] = {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        given = given_rows(self)
        for p, places, rows, _ in given:
            if p not in self.zeros:
                self.zeros[p] = torch.zeros_like(p)
            p.grad = self.zeros[p].index_copy_(0, places, rows)
        _bare(torch.optim.AdamW.step)(self)
        for p, places, _, _ in given:
            self.zeros[p].index_fill_(0, places, 0)
            p.grad = None


class PlainSGD(Bare, torch.optim.SGD):
    """SGD without momentum: what is not among a few rows only decays."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for p, places, rows, group in given_rows(self):
            if not self.found_inf:
                if group["weight_decay"]:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                p.index_add_(0, places, rows, alpha=-group["lr"] / float(self.grad_scale))
        _bare(torch.optim.SGD.step)(self)


LARGE = 4
"""A table is passed over as a whole unless it has so many times the rows that a batch reaches."""


def few_rows(vae: VAE, words: int, parts: int = 1) -> None:
    """Large tables of words get gradients of the rows that a batch of so many words reaches.

    A whole gradient is ten megabytes that are cleared, filled and measured for the sake of a few.
    parts: of a batch; the head draws its words anew for each.
    """

    def worth(table: torch.Tensor, reached: int) -> bool:
        return LARGE * reached < len(table)

    head = vae.head
    sampled = 0 if head.label_smoothing or vae.twice else head.drawn  # these reach every row
    rows = head.softmaxes * words + parts * sampled
    head.gives_rows = sampled > 0 and worth(head.table, rows)
    for part in vae.modules():
        if isinstance(part, nn.Embedding):
            alone = part.weight is not head.table
            part.sparse = worth(part.weight, words) if alone else head.gives_rows


class Rule:
    """What validations mean to a learning rate: nothing, unless a rule says so."""

    @property
    def over(self) -> bool:
        """Has the rate been taken down to its end?"""
        return False

    def validated(self, bound: float, epoch: float) -> bool:
        """Told every validation; does training go on from the best weights?"""
        return False

    def begin_anew(self) -> None:
        """The decoder is a new one: what was learned from validations is void."""

    def state(self) -> dict[str, float]:
        """What it knows of validations, for a checkpoint."""
        return {}

    def restore(self, state: Mapping[str, float], best: float) -> None:
        """Go on from a `state`. best: the best bound there was, which older ones do not have."""


class AdamW(Rule):
    """AdamW (Loshchilov & Hutter 2019), a line up over `warmup`, half a cosine down to `floor`.

    Raises UserError for an lr that is not above 0, or a beta2 that is no decay.

    lr: the rate at its highest. weight_decay: of matrices alone. warmup: the part of the run in
    which the rate rises. floor: where it ends, a part of `lr`. beta2: decay of the second moment.
    """

    def __init__(
        self,
        parameters: Named,
        *,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.02,
        floor: float = 0.02,
        beta2: float = 0.99,
    ):
        self.each = [adamw((p for _, p in parameters), lr, weight_decay, beta2)]
        self.lr, self.warmup, self.floor = lr, warmup, floor

    def rates(self, progress: float) -> list[float]:
        return [self.lr * warm_cosine(progress, warmup=self.warmup, floor=self.floor)]


class SGD(Rule):
    """Plain SGD, halved when validation stops improving: the published protocol.

    From epoch `halve_from` on, `halve_after` validations in a row that are no better halve the rate
    and go back to the best weights; training ends at the `halvings`-th (He et al. 2019, "Lagging
    Inference Networks and Posterior Collapse in Variational Autoencoders", appendix B). Better is
    as in their code: than the best since the last halving, the one that brought it included. Raises
    UserError for an lr that is not above 0.

    lr: the rate until it is halved. halve_from: the epoch from which on it may be. halve_after:
    validations in a row that are no better. halvings: the last of them ends the training.
    """

    def __init__(
        self,
        parameters: Named,
        *,
        lr: float = 1.0,
        halve_from: float = 15,
        halve_after: int = 2,
        halvings: int = 5,
    ):
        _above_0(lr=lr)
        self.each = [PlainSGD((p for _, p in parameters), lr=lr, fused=True)]
        self.lr, self.halve_from, self.halve_after = lr, halve_from, halve_after
        self.halvings = halvings
        self.begin_anew()

    def rates(self, progress: float) -> list[float]:
        return [self.lr * 0.5**self.halved]

    def begin_anew(self) -> None:
        self.halved, self.stale = 0, 0
        self.reached = -math.inf

    def state(self) -> dict[str, float]:
        return {"halved": self.halved, "stale": self.stale, "reached": self.reached}

    def restore(self, state: Mapping[str, float], best: float) -> None:
        self.halved, self.stale = int(state["halved"]), int(state["stale"])
        self.reached = state.get("reached", best)

    @property
    def over(self) -> bool:
        return self.halved >= self.halvings

    def validated(self, bound: float, epoch: float) -> bool:
        better = bound > self.reached
        self.stale = 0 if better else self.stale + 1
        if better:
            self.reached = bound
        if self.stale < self.halve_after or epoch < self.halve_from:
            return False
        self.halved, self.stale, self.reached = self.halved + 1, 0, bound
        return True


class Mixed(Rule):
    """AdamW for what reads (encoder, posterior), plain SGD for what writes (all the rest).

    On small corpora SGD finds a decoder that generalises better, while under SGD the encoder wakes
    too late to save the latent. Each clips its own gradient. Raises UserError as `AdamW` does, for
    `sgd_lr` too.

    lr: AdamW's rate at its highest. sgd_lr: SGD's, for gradients of nats per sentence. hold: the
    part of the run after which SGD's falls, by half a cosine. sgd_decay: weight decay under SGD.
    weight_decay: under AdamW, of matrices alone. warmup: the part of the run in which AdamW's rate
    rises. floor: where both end, a part of their highest. beta2: decay of AdamW's second moment.
    """

    def __init__(
        self,
        parameters: Named,
        *,
        lr: float = 1.5e-3,
        sgd_lr: float = 1.0,
        hold: float = 0.5,
        weight_decay: float = 0.01,
        sgd_decay: float = 0.0,
        warmup: float = 0.02,
        floor: float = 0.02,
        beta2: float = 0.99,
    ):
        _above_0(lr=lr, sgd_lr=sgd_lr)
        named = list(parameters)
        reads = [p for n, p in named if n.startswith(READING)]
        writes = [p for n, p in named if not n.startswith(READING)]
        self.each: list[torch.optim.Optimizer] = [
            PlainSGD(writes, lr=sgd_lr, weight_decay=sgd_decay, fused=True)
        ]
        if reads:
            self.each.append(adamw(reads, lr, weight_decay, beta2))
        self.lr, self.sgd_lr, self.hold = lr, sgd_lr, hold
        self.warmup, self.floor = warmup, floor

    def rates(self, progress: float) -> list[float]:
        return [
            self.sgd_lr * hold_cosine(progress, hold=self.hold, floor=self.floor),
            self.lr * warm_cosine(progress, warmup=self.warmup, floor=self.floor),
        ][: len(self.each)]


def _above_0(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0 < rate < math.inf:
            raise UserError(f"optimizer.{name} = {rate}: it must be a number above 0")


def adamw(
    parameters: Iterable[nn.Parameter], lr: float, decay: float, beta2: float
) -> torch.optim.Optimizer:
    _above_0(lr=lr)
    if not 0 <= beta2 < 1:
        raise UserError(f"optimizer.beta2 = {beta2}: it must be from 0 to 1, below 1")
    held = list(parameters)
    groups = [
        {"params": [p for p in held if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in held if p.ndim < 2], "weight_decay": 0.0},
    ]
    return BareAdamW(groups, lr=lr, betas=(0.9, beta2), fused=True)


def set_rates(each: Sequence[torch.optim.Optimizer], rates: Sequence[float]) -> None:
    """The learning rate of every optimiser."""
    for optimizer, rate in zip(each, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate


def clipped_step(
    each: Sequence[torch.optim.Optimizer], clip: float, still: Sequence[nn.Parameter] = ()
) -> torch.Tensor:
    """One step of every optimiser, each with its gradient scaled to a norm of `clip` at most. What
    is `still` counts in that norm and does not move.

    Returns the norm of the whole gradient; where that is not finite nothing was changed. The fused
    kernels scale, and skip, as they read: gradients are passed over once less, and nothing waits
    for a device.
    """
    norms = []
    for optimizer in each:
        held = []
        for p in (p for g in optimizer.param_groups for p in g["params"] if p.grad is not None):
            if p.grad.is_sparse:
                p.grad = p.grad.coalesce()  # a row that came twice is one
            held.append(p.grad.values() if p.grad.is_sparse else p.grad)
        if held:  # else everything that it steps is frozen
            norms.append((optimizer, whole(torch.nn.utils.get_total_norm(held))))
    norm = torch.stack([own for _, own in norms]).norm()
    for parameter in still:
        parameter.grad = None
    skip = (~norm.isfinite()).float()
    for optimizer, own in norms:
        # The attributes by which torch.amp.GradScaler talks to fused optimisers.
        optimizer.grad_scale, optimizer.found_inf = (own / clip).clamp_min(1.0), skip  # type: ignore[attr-defined]
        optimizer.step()
    return norm


OPTIMIZERS = {"adamw": AdamW, "sgd": SGD, "mixed": Mixed}
Optimizer = AdamW | SGD | Mixed

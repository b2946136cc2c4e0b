"""Normalizing flows: invertible maps T with known Jacobians, z = loc + scale * T(eps).

One table serves posteriors (maps that depend on the summary h) and priors (maps that depend on
nothing). Every map starts as the identity or near it, so that a model begins as its Gaussian self.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn import functional


@runtime_checkable
class Step(Protocol):
    """An invertible map of (.., D) with the log-determinants (..) of its Jacobians."""

    def ahead(self, x: Tensor) -> tuple[Tensor, Tensor]: ...
    def back(self, z: Tensor) -> tuple[Tensor, Tensor]: ...


class Flowed(Distribution):
    """The law of loc + scale * T(eps), eps ~ N(0, I), T the steps one after another.

    Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", eq. 5-6. `mean` is
    where eps = 0 goes, which is the mean only where T is affine: a centre to decode from.
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(
        self, loc: Float[Tensor, "*B D"], scale: Float[Tensor, "*B D"], steps: Sequence[Step]
    ):
        self.loc, self.scale, self.steps = loc, scale, steps
        unit = Normal(torch.zeros_like(loc), torch.ones_like(loc), validate_args=False)
        self.base = Independent(unit, 1)
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    def rsample_and_log_prob(self, sample_shape: Any = torch.Size()) -> tuple[Tensor, Tensor]:  # noqa: B008
        """Samples with their log-density, without inverting a step."""
        x = self.base.rsample(torch.Size(sample_shape))
        log_q = self.base.log_prob(x)
        for step in self.steps:
            x, slope = step.ahead(x)
            log_q = log_q - slope
        return self.loc + self.scale * x, log_q - self.scale.log().sum(-1)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self.rsample_and_log_prob(sample_shape)[0]

    def log_prob(self, value: Tensor) -> Tensor:
        x = (value - self.loc) / self.scale
        log_q = -self.scale.log().sum(-1)
        for step in reversed(self.steps):
            x, slope = step.back(x)
            log_q = log_q + slope
        return log_q + self.base.log_prob(x)

    @property
    def mean(self) -> Tensor:
        x = torch.zeros_like(self.loc)
        for step in self.steps:
            x, _ = step.ahead(x)
        return self.loc + self.scale * x


class Planar:
    """f(x) = x + u tanh(w x + b), with w u > -1 so that it can be inverted.

    Rezende & Mohamed 2015, eq. 10-12 and appendix A.1.
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor):
        along = (u * w).sum(-1, keepdim=True)
        self.w, self.b = w, b
        self.u = u + (functional.softplus(along) - 1 - along) * w / (w * w).sum(-1, keepdim=True)
        self.slope = (self.u * w).sum(-1)

    def ahead(self, x: Tensor) -> tuple[Tensor, Tensor]:
        bend = torch.tanh((self.w * x).sum(-1) + self.b)
        return x + self.u * bend[..., None], (self.slope * (1 - bend * bend)).log1p()

    def back(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """a = w x solves a + (w u) tanh(a + b) = w z, whose left side only rises: bisection, then
        one Newton step that also carries the gradient."""
        goal = (self.w * z).sum(-1)
        with torch.no_grad():
            reach = self.slope.abs() + torch.zeros_like(goal)
            low, high = goal - reach, goal + reach
            for _ in range(60):
                middle = (low + high) / 2
                over = middle + self.slope * torch.tanh(middle + self.b) > goal
                low, high = torch.where(over, low, middle), torch.where(over, middle, high)
            found = (low + high) / 2
        bend = torch.tanh(found + self.b)
        rise = 1 + self.slope.detach() * (1 - bend * bend).detach()
        # At the solution this is `found` in value and the implicit function in gradient.
        a = found - (found + self.slope * torch.tanh(found + self.b) - goal) / rise.detach()
        x = z - self.u * torch.tanh(a + self.b)[..., None]
        return x, -self.ahead(x)[1]


class Radial:
    """f(x) = x + beta (x - c) / (alpha + |x - c|), alpha > 0, beta > -alpha.

    Rezende & Mohamed 2015, eq. 14 and appendix A.2. The inverse is the root of a quadratic.
    """

    def __init__(self, centre: Tensor, alpha: Tensor, beta: Tensor):
        self.centre, self.alpha = centre, functional.softplus(alpha)
        self.beta = functional.softplus(beta) - self.alpha

    def ahead(self, x: Tensor) -> tuple[Tensor, Tensor]:
        away = x - self.centre
        return x + self._pull(away), self._slope(away.norm(dim=-1), x.shape[-1])

    def back(self, z: Tensor) -> tuple[Tensor, Tensor]:
        away = z - self.centre
        far = away.norm(dim=-1)
        half = (self.alpha + self.beta - far) / 2
        radius = (half * half + self.alpha * far).sqrt() - half
        x = self.centre + away / (1 + self.beta / (self.alpha + radius))[..., None]
        return x, -self._slope(radius, z.shape[-1])

    def _pull(self, away: Tensor) -> Tensor:
        return away * (self.beta / (self.alpha + away.norm(dim=-1)))[..., None]

    def _slope(self, radius: Tensor, size: int) -> Tensor:
        pull = self.beta / (self.alpha + radius)
        outward = self.beta * self.alpha / (self.alpha + radius).square()
        return (size - 1) * pull.log1p() + outward.log1p()


class _Steps(nn.Module):
    """`layers` steps whose parameters are a linear function of the context, or free without one."""

    def __init__(self, make: Callable[..., Step], sizes: list[int], layers: int, context: int):
        super().__init__()
        self.make, self.sizes, self.layers = make, sizes, layers
        free = torch.empty(layers * sum(sizes)).normal_(std=0.1)
        self.free = nn.Parameter(free)
        self.project = nn.Linear(context, len(free), bias=False) if context else None
        if self.project is not None:
            nn.init.normal_(self.project.weight, std=0.01)

    def forward(self, context: Tensor | None) -> list[Step]:
        given = self.free if self.project is None else self.free + self.project(context)
        parts = given.unflatten(-1, (self.layers, -1)).split(self.sizes, -1)
        return [
            self.make(*(p[..., i, 0] if p.shape[-1] == 1 and size == 1 else p[..., i, :]
                        for p, size in zip(parts, self.sizes, strict=True)))
            for i in range(self.layers)
        ]  # fmt: skip


class _Zuko:
    """A step of zuko's. `inverted` exchanges its quick direction, which is its own `ahead`."""

    def __init__(self, transform: Any, inverted: bool):
        self.forwards, self.backwards = transform, transform.inv
        if inverted:
            self.forwards, self.backwards = self.backwards, self.forwards

    def ahead(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, slope = self.forwards.call_and_ladj(x)
        return y, slope

    def back(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = self.backwards.call_and_ladj(z)
        return x, slope


class _Autoregressive(nn.Module):
    """Masked autoregressive steps, every second one in the opposite order."""

    def __init__(
        self, latent: int, layers: int, width: int, context: int, *,
        passes: int | None = None, spline: bool = False, inverted: bool = False,
    ):  # fmt: skip
        super().__init__()
        from zuko.flows import MaskedAutoregressiveTransform
        from zuko.transforms import MonotonicRQSTransform

        bins = 8
        bent = {"univariate": MonotonicRQSTransform, "shapes": ([bins], [bins], [bins - 1])}
        self.inverted = inverted
        with torch.device("cpu"):  # where zuko counts on its masks to be
            order = torch.arange(latent)
            self.steps = nn.ModuleList(
                MaskedAutoregressiveTransform(
                    latent, context, passes=passes, order=order.flip(0) if i % 2 else order,
                    hidden_features=(width, width), activation=nn.ELU, **(bent if spline else {}),
                )
                for i in range(layers)
            )  # fmt: skip
        for step in self.steps:
            last: Any = [m for m in step.modules() if isinstance(m, nn.Linear)][-1]
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)

    def forward(self, context: Tensor | None) -> list[Step]:
        return [_Zuko(step(context), self.inverted) for step in self.steps]


BENT = (_Steps, _Autoregressive)
"""The nets behind steps. They begin with next to no effect."""


def planar(latent: int, layers: int, width: int, context: int) -> nn.Module:
    steps = _Steps(Planar, [latent, latent, 1], layers, context)
    with torch.no_grad():
        u, w, _ = steps.free.view(layers, -1).split(steps.sizes, -1)
        w.div_(w.norm(dim=-1, keepdim=True))
        u.add_(math.log(math.e - 1) * w)  # which is what `Planar` takes off to be invertible
    return steps


def radial(latent: int, layers: int, width: int, context: int) -> nn.Module:
    return _Steps(Radial, [latent, 1, 1], layers, context)


FLOWS: dict[str, Callable[..., nn.Module]] = {
    "planar": planar,
    "radial": radial,
    # The same net, read in one direction or the other (Kingma et al. 2016; Papamakarios et al.
    # 2017): IAF samples in one pass and finds densities in D, MAF the other way round.
    "iaf": _Autoregressive,
    "maf": partial(_Autoregressive, inverted=True),
    "realnvp": partial(_Autoregressive, passes=2),  # Dinh et al. 2017
    "nsf": partial(_Autoregressive, passes=2, spline=True),  # Durkan et al. 2019
}

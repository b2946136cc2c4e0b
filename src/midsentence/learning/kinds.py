"""The priors that can be fitted after training, and how each begins and is judged."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .. import config as configuration
from ..parts.diffusion import Diffusion
from ..parts.priors import Aggregate, FlowPrior, Mixture

CLUSTERED = 20_000
"""Latents that a mixture's first components are sought among."""


@dataclass(frozen=True)
class Kind:
    """How a prior is fitted, always to standardised points.

    settings: other than the part's own defaults. begin: parameters from the points. loss: what is
    minimised, one number a point. stretch: makes the law of u that of loc + scale * u.
    """

    settings: dict[str, Any]
    rate: float
    begin: Callable[[Any, Tensor], None]
    loss: Callable[[Any, Tensor], Tensor]
    stretch: Callable[[Any, Tensor, Tensor], None]


def nll(prior: nn.Module, points: Tensor) -> Tensor:
    found: Tensor = -prior().log_prob(points)
    return found


def cluster(prior: Mixture, points: Float[Tensor, "N D"]) -> None:
    """Components from k-means: shares, means and variances of its clusters."""
    points = points[torch.randperm(len(points), device=points.device)[:CLUSTERED]]
    means = spread_out(points, len(prior.means))
    for _ in range(10):
        nearest = torch.cdist(points, means).argmin(1)
        means, counts = centred(points, nearest, means)
    squares = (points - means[nearest]).square()
    # One point's worth of the whole data's variance, 1, keeps small clusters from vanishing.
    spread = (torch.zeros_like(means).index_add(0, nearest, squares) + 1) / (counts + 1)
    prior.means.copy_(means)
    prior.log_scales.copy_(0.5 * spread.log())
    prior.logits.copy_(((counts[:, 0] + 1) / len(points)).log())


def centred(
    points: Float[Tensor, "N D"], label: Int[Tensor, "N"], centres: Float[Tensor, "C D"]
) -> tuple[Float[Tensor, "C D"], Float[Tensor, "C 1"]]:
    """(the mean of each cluster, or its centre where it has no point; how many points it has)."""
    counts = torch.bincount(label, minlength=len(centres))[:, None].to(points)
    sums = torch.zeros_like(centres).index_add(0, label, points)
    return torch.where(counts > 0, sums / counts.clamp_min(1), centres), counts


def spread_out(
    points: Float[Tensor, "N D"], count: int, chance: torch.Generator | None = None
) -> Float[Tensor, "C D"]:
    """`count` of the points, each likelier the further (squared) it is from those before.

    Arthur & Vassilvitskii 2007, "k-means++: The Advantages of Careful Seeding".
    """
    chosen = [torch.randint(len(points), (), device=points.device, generator=chance)]
    far = torch.full_like(points[:, 0], math.inf)
    for _ in range(count - 1):
        far = torch.minimum(far, (points - points[chosen[-1]]).square().sum(1))
        chosen.append(torch.multinomial(far + 1e-12, 1, generator=chance)[0])
    return points[torch.stack(chosen)]


def stretch_mixture(prior: Mixture, loc: Tensor, scale: Tensor) -> None:
    prior.means.mul_(scale).add_(loc)
    prior.log_scales.add_(scale.log())


def stretch_flow(prior: FlowPrior, loc: Tensor, scale: Tensor) -> None:
    prior.loc.mul_(scale).add_(loc)
    prior.log_scale.add_(scale.log())


def stretch_diffusion(prior: Diffusion, loc: Tensor, scale: Tensor) -> None:
    prior.loc.copy_(loc)
    prior.scale.copy_(scale)


def as_it_is(prior: nn.Module, points: Tensor) -> None:
    """A flow and a diffusion begin as N(0, I), which is the points' Gaussian."""


PARTS: dict[str, Callable[..., nn.Module]] = {
    "mog": Mixture,
    "flow": FlowPrior,
    "diffusion": Diffusion,
    "aggregate": Aggregate,
}
KINDS = {
    "mog": Kind({"components": 64}, 1e-2, cluster, nll, stretch_mixture),
    "flow": Kind({}, 2e-3, as_it_is, nll, stretch_flow),
    "diffusion": Kind({}, 2e-3, as_it_is, Diffusion.loss, stretch_diffusion),
}


def settings_of(kind: str, overrides: list[str]) -> dict[str, Any]:
    """A prior's settings, whole, from ``a=b`` strings. Raises UserError naming the wrong one."""
    usual = KINDS[kind].settings if kind in KINDS else {}
    return configuration.part("prior", PARTS, {"kind": kind, **usual}, overrides)


def build(settings: Mapping[str, Any], latent: int) -> nn.Module:
    """The part that `settings` describe, for a model of `latent` dimensions."""
    part: nn.Module = configuration.build(PARTS, settings, latent, nn.Identity())
    return part

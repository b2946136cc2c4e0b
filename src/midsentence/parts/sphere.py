"""Distributions on the unit sphere: von Mises-Fisher and uniform."""

import math
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, register_kl


@cache
def log_bessel(order: float, x: float) -> float:
    """log I_order(x), the modified Bessel function of the first kind, by its power series."""
    k = torch.arange(int(2 * x) + 100, dtype=torch.float64)
    log_terms = (
        (2 * k + order) * math.log(x / 2) - torch.lgamma(k + 1) - torch.lgamma(k + order + 1)
    )
    return float(log_terms.logsumexp(0))


def log_area(size: int) -> float:
    """Of the unit sphere in `size` dimensions."""
    return math.log(2) + size / 2 * math.log(math.pi) - math.lgamma(size / 2)


class Uniform(Distribution):
    """Evenly on the unit sphere of D dimensions; nats against its area."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, zeros: Float[Tensor, "D"]):
        self.zeros = zeros
        super().__init__(torch.Size(), zeros.shape, validate_args=False)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        shape = (*sample_shape, *self.event_shape)
        drawn = torch.randn(shape, device=self.zeros.device, dtype=self.zeros.dtype)
        return drawn / drawn.norm(dim=-1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        return value.new_full(value.shape[:-1], -log_area(value.shape[-1]))


class VonMisesFisher(Distribution):
    """Density proportional to exp(kappa mu z) on the unit sphere; mu a unit vector, kappa fixed.

    Sampled by Wood's rejection along mu and a reflection that takes the first axis to mu
    (Davidson et al. 2018, "Hyperspherical Variational Auto-Encoders", algorithms 1-2); samples
    carry gradients to mu. Needs D >= 2.
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, mu: Float[Tensor, "*B D"], kappa: float):
        self.mu, self.kappa = mu, kappa
        super().__init__(mu.shape[:-1], mu.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.mu * self._length

    @property
    def _length(self) -> float:
        """Of the mean vector: I_{D/2}(kappa) / I_{D/2 - 1}(kappa)."""
        half = self.mu.shape[-1] / 2
        return math.exp(log_bessel(half, self.kappa) - log_bessel(half - 1, self.kappa))

    @property
    def log_normalizer(self) -> float:
        half = self.mu.shape[-1] / 2
        return (
            (half - 1) * math.log(self.kappa)
            - half * math.log(2 * math.pi)
            - log_bessel(half - 1, self.kappa)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_normalizer + self.kappa * (self.mu * value).sum(-1)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape) + self.batch_shape
        along = self._along(shape)
        across = torch.randn((*shape, self.mu.shape[-1] - 1), device=self.mu.device).to(self.mu)
        across = across / across.norm(dim=-1, keepdim=True)
        z = torch.cat([along, (1 - along.square()).clamp_min(0).sqrt() * across], -1)
        first = torch.zeros_like(self.mu)
        first[..., 0] = 1
        normal = first - self.mu
        # mu on the first axis already needs no reflection; the tiny number only avoids 0 / 0.
        normal = normal / normal.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return z - 2 * (z * normal).sum(-1, keepdim=True) * normal

    def _along(self, shape: torch.Size) -> Tensor:
        """mu z of samples, (.., 1)."""
        size, kappa, device = self.mu.shape[-1] - 1, self.kappa, self.mu.device
        b = (math.sqrt(4 * kappa**2 + size**2) - 2 * kappa) / size
        x0 = (1 - b) / (1 + b)
        most = kappa * x0 + size * math.log(1 - x0 * x0)
        found = torch.empty(shape.numel(), device=device, dtype=torch.float64)
        open_ = torch.arange(len(found), device=device)
        half = torch.full((), size / 2, dtype=torch.float64)
        beta = torch.distributions.Beta(half, half)
        while len(open_):
            drawn = beta.sample(open_.shape).to(device)
            w = (1 - (1 + b) * drawn) / (1 - (1 - b) * drawn)
            chance = torch.rand(len(w), dtype=torch.float64).to(device)
            kept = kappa * w + size * torch.log(1 - x0 * w) - most >= chance.log()
            found[open_[kept]] = w[kept]
            open_ = open_[~kept]
        return found.view(*shape, 1).to(self.mu.dtype)


@register_kl(VonMisesFisher, Uniform)
def _kl_vmf_uniform(q: VonMisesFisher, p: Uniform) -> Tensor:
    """kappa A(kappa) + log C(kappa) + log area: the same for every mu (Xu & Durrett 2018)."""
    size = q.mu.shape[-1]
    value = q.kappa * q._length + q.log_normalizer + log_area(size)
    return q.mu.new_full(q.batch_shape, value)

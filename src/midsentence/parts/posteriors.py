"""Posteriors: a summary of the sentence -> the distribution q(z|x)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    register_kl,
)

from ..errors import UserError
from .flows import FLOWS, Flowed
from .sphere import VonMisesFisher


class FixedGamma(nn.BatchNorm1d):
    """Batch normalisation of the posterior means with a scale that is not learned (BN-VAE).

    Their variance over the corpus is gamma^2 whatever the decoder does, so the mean KL is at least
    D gamma^2 / 2 and cannot vanish. Zhu et al. 2020, "A Batch Normalized Inference Network Keeps
    the KL Vanishing Away", eq. 6-8.

    A batch of ours holds sentences of one length, and is no sample of the corpus: what comes out is
    normalised by the mean and variance of the last MEMORY sentences, in training as in evaluation,
    and the gradient is that of the batch's own. Ioffe 2017, "Batch Renormalization", algorithm 1.
    """

    MEMORY = 4096
    MOST = 3.0
    """Times a batch's variation is stretched at most, while the running one is far from it."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor  # of sentences

    def __init__(self, latent: int, gamma: float):
        # torch's own eps of 1e-5 is a way out: the encoder shrinks its means until it drowns them.
        super().__init__(latent, eps=1e-12)
        self.weight.requires_grad_(False).fill_(gamma)

    def forward(self, mean: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        if not self.training or len(mean) == 1:  # one has no variance to normalise by
            return self.scaled((mean - self.running_mean) / self._root(self.running_var))
        centre, scale = mean.mean(0), self._root(mean.var(0, correction=0))
        with torch.no_grad():
            self._remember(centre, scale.square(), len(mean))
            wide = self._root(self.running_var)
            stretch = (scale / wide).clamp_max(self.MOST)
            move = (centre - self.running_mean) / wide
        return self.scaled((mean - centre) / scale * stretch + move)

    def scaled(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias

    def _root(self, variance: Tensor) -> Tensor:
        return (variance + self.eps).sqrt()

    def _remember(self, centre: Tensor, variance: Tensor, count: int) -> None:
        self.num_batches_tracked += count
        pace = (count / self.num_batches_tracked.clamp_max(self.MEMORY)).clamp_max(1)
        away = centre - self.running_mean
        self.running_mean += pace * away
        # What the batches' means vary by among each other is a part of it.
        self.running_var.lerp_(variance + (1 - pace) * away.square(), pace.to(variance))


class GaussianPosterior(nn.Module):
    """What the Gaussian ones share: a mean, linear in the summary, and other numbers beside it.

    bias: of the linear map. gamma: above 0, the means are batch-normalised with this fixed scale
    (`FixedGamma`); 0 is off.
    """

    sphere = False

    def __init__(self, summary: int, latent: int, others: int, gamma: float, bias: bool = True):
        super().__init__()
        if gamma < 0:
            raise UserError("posterior.gamma is a scale: 0 (off) or above")
        # A language model has no latent, and torch warns about initialising an empty matrix.
        self.project = nn.Linear(summary, latent + others, bias) if latent else None
        self.normalise = FixedGamma(latent, gamma) if gamma and latent else None
        self.summary, self.latent = summary, latent

    def split(self, h: Float[Tensor, "B H"]) -> tuple[Tensor, Tensor]:
        """(means, the other numbers)."""
        both = self.project(h) if self.project else h.new_zeros(len(h), 0)
        mean, others = both[:, : self.latent], both[:, self.latent :]
        return mean if self.normalise is None else self.normalise(mean), others


class Gaussian(GaussianPosterior):
    """Diagonal Gaussian, q(z|x) = N(mu(h), diag(sigma(h)^2)), reparameterised.

    mu and log sigma^2 are linear in the summary h; z = mu + sigma * eps.
    Kingma & Welling 2014, "Auto-Encoding Variational Bayes", section 3.

    delta: a rate that is committed, in nats a sentence; above 0, no sigma can exceed the s < 1
    whose KL from N(0, 1) is delta / D even at mean 0, so that KL(q || N(0, I)) >= delta whatever is
    learned. Razavi et al. 2019, "Preventing Posterior Collapse with delta-VAEs", section 2.
    bias: without one the map from h is W h, as in the published text VAEs.
    """

    def __init__(
        self,
        summary: int,
        latent: int,
        *,
        gamma: float = 0.0,
        delta: float = 0.0,
        bias: bool = True,
    ):
        super().__init__(summary, latent, latent, gamma, bias)
        if delta < 0:
            raise UserError("posterior.delta is a rate in nats: 0 (off) or above")
        self.widest = widest_variance(delta / latent) if delta and latent else None

    def forward(self, h: Float[Tensor, "B H"]) -> Distribution:
        mean, log_variance = self.split(h)
        if self.widest is None:
            scale = torch.exp(0.5 * log_variance)
        else:
            scale = (self.widest * torch.sigmoid(log_variance)).sqrt()
        return Independent(Normal(mean, scale, validate_args=False), 1)


def widest_variance(nats: float) -> float:
    """The v < 1 with KL(N(0, v) || N(0, 1)) = (v - 1 - ln v) / 2 = `nats`, by bisection."""
    low, high = math.exp(-2 * nats - 1), 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if (middle - 1 - math.log(middle)) / 2 > nats:
            low = middle
        else:
            high = middle
    return low


class FullGaussian(GaussianPosterior):
    """Gaussian with a whole covariance L L', L lower triangular with a positive diagonal.

    Its dimensions may lean on each other within one sentence. Costs D (D + 1) / 2 numbers a
    sentence. Kingma & Welling 2019, "An Introduction to Variational Autoencoders", section 2.5.1.
    """

    def __init__(self, summary: int, latent: int, *, gamma: float = 0.0):
        super().__init__(summary, latent, latent * (latent + 1) // 2, gamma)

    def forward(self, h: Float[Tensor, "B H"]) -> Distribution:
        mean, others = self.split(h)
        return leaning(mean, others[:, : self.latent].exp(), others[:, self.latent :])


def leaning(
    mean: Float[Tensor, "B D"], scale: Float[Tensor, "B D"], below: Float[Tensor, "B E"]
) -> MultivariateNormal:
    """The Gaussian with covariance L L', `scale` being L's diagonal and `below` what is under it,
    row by row."""
    row, column = torch.tril_indices(mean.shape[1], mean.shape[1], -1, device=mean.device)
    triangle = torch.diag_embed(scale).index_put(
        (torch.arange(len(mean), device=mean.device)[:, None], row, column), below
    )
    return Leaning(mean, scale_tril=triangle, validate_args=False)


class Leaning(MultivariateNormal):
    """torch's own copies the covariance's root for each of K samples, D x D numbers a sentence."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        noise = torch.empty_like(self.loc.expand(self._extended_shape(sample_shape))).normal_()
        each = noise.view(-1, *self.loc.shape)
        return self.loc + torch.einsum("bij,kbj->kbi", self.scale_tril, each).view_as(noise)


class LowRankGaussian(GaussianPosterior):
    """Gaussian with covariance F F' + diag(sigma^2), between the diagonal and the full one.

    Ong, Nott & Smith 2018, "Gaussian Variational Approximation with a Factor Covariance Structure".

    rank: columns of F. Raises UserError for one below 1.
    """

    def __init__(self, summary: int, latent: int, *, rank: int = 4, gamma: float = 0.0):
        if rank < 1:
            raise UserError("posterior.rank must be at least 1")
        super().__init__(summary, latent, latent * (rank + 1), gamma)

    def forward(self, h: Float[Tensor, "B H"]) -> Distribution:
        mean, others = self.split(h)
        log_variance, factor = others[:, : self.latent], others[:, self.latent :]
        factor = factor.unflatten(1, (self.latent, -1))
        try:
            return LowRankMultivariateNormal(mean, factor, log_variance.exp(), validate_args=False)
        except torch.linalg.LinAlgError:  # diverged, which is to show as with any other posterior
            nothing = torch.zeros_like(factor)
            return LowRankMultivariateNormal(
                mean * torch.nan, nothing, torch.ones_like(mean), validate_args=False
            )


class Flow(GaussianPosterior):
    """A Gaussian bent by a flow, z = mu(h) + sigma(h) * T(eps; h) (`parts.flows`).

    Rezende & Mohamed 2015; Kingma et al. 2016 for `iaf`.

    layers: steps of T. width: of the nets in the autoregressive ones, and of what they see of the
    summary.
    """

    def __init__(
        self,
        summary: int,
        latent: int,
        *,
        flow: str,
        layers: int = 4,
        width: int = 64,
        gamma: float = 0.0,
    ):
        super().__init__(summary, latent, latent, gamma)
        if latent < 2 or layers < 1:
            raise UserError("a flow needs at least two latent dimensions and one layer")
        self.context = nn.Linear(summary, width)
        self.flow = FLOWS[flow](latent, layers, width, width)

    def forward(self, h: Float[Tensor, "B H"]) -> Distribution:
        mean, log_variance = self.split(h)
        return Flowed(mean, torch.exp(0.5 * log_variance), self.flow(self.context(h)))


class VonMisesFisherPosterior(nn.Module):
    """von Mises-Fisher on the unit sphere, direction linear in the summary.

    The KL to the uniform prior depends on kappa alone, so it can neither collapse nor grow. Goes
    with ``prior.kind = "sphere"``. Xu & Durrett 2018, "Spherical Latent Spaces for Stable
    Variational Autoencoders"; Davidson et al. 2018.

    kappa: how narrow, fixed; above 0, 10,000 at most.
    """

    sphere = True

    def __init__(self, summary: int, latent: int, *, kappa: float = 80.0):
        super().__init__()
        if latent < 2 or not 0 < kappa <= 10_000:
            raise UserError("posterior 'vmf' needs latent >= 2 and 0 < kappa <= 10000")
        self.project, self.kappa = nn.Linear(summary, latent), kappa
        self.summary = summary

    def forward(self, h: Float[Tensor, "B H"]) -> Distribution:
        return VonMisesFisher(nn.functional.normalize(self.project(h), dim=-1), self.kappa)


@register_kl(MultivariateNormal, Independent)
@register_kl(LowRankMultivariateNormal, Independent)
def _kl_to_a_diagonal(q: Distribution, p: Independent) -> Tensor:
    """-H(q) - E_q[log p], for a Gaussian q of any covariance and a diagonal Gaussian p."""
    if not isinstance(p.base_dist, Normal):
        raise NotImplementedError
    loc, scale = p.base_dist.loc, p.base_dist.scale
    spread = (q.variance + (q.mean - loc).square()) / scale.square()
    return 0.5 * (spread + (2 * torch.pi * scale.square()).log()).sum(-1) - q.entropy()


POSTERIORS: dict[str, Callable[..., nn.Module]] = {
    "gaussian": Gaussian,
    "full": FullGaussian,
    "lowrank": LowRankGaussian,
    **{name: partial(Flow, flow=name) for name in FLOWS},
    "vmf": VonMisesFisherPosterior,
}

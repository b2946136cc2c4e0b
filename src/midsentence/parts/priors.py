"""Priors: the distribution p(z) that sentences are sampled from."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from ..errors import UserError
from .flows import FLOWS, Flowed
from .sphere import Uniform


class StandardNormal(nn.Module):
    """p(z) = N(0, I) (Kingma & Welling 2014). Has no parameters."""

    zeros: torch.Tensor
    sphere = False

    def __init__(self, latent: int, posterior: nn.Module):
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent), persistent=False)

    def forward(self) -> Distribution:
        unit = Normal(self.zeros, torch.ones_like(self.zeros), validate_args=False)
        return Independent(unit, 1)


class Sphere(StandardNormal):
    """Uniform on the unit sphere, for ``posterior.kind = "vmf"`` (Davidson et al. 2018)."""

    sphere = True

    def forward(self) -> Distribution:
        return Uniform(self.zeros)


class Mixture(nn.Module):
    """A learned mixture of diagonal Gaussians, p(z) = sum_c pi_c N(mu_c, diag(sigma_c^2)).

    Dilokthanakul et al. 2016, "Deep Unsupervised Clustering with Gaussian Mixture Variational
    Autoencoders". Room for clusters that N(0, I) would press together; the KL is by Monte Carlo.

    components: Gaussians, C.
    """

    sphere = False

    def __init__(self, latent: int, posterior: nn.Module, *, components: int = 20):
        super().__init__()
        check(components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.empty(components, latent).normal_(std=0.5))
        self.log_scales = nn.Parameter(torch.zeros(components, latent))

    def forward(self) -> Distribution:
        return Gaussians(self.logits, self.means, self.log_scales.exp())


class Aggregate(Mixture):
    """The aggregate posterior of training sentences, p(z) = (1/C) sum_n q(z|x_n), by `fit-prior`.

    Of all priors the one with the largest bound on those sentences (Hoffman & Johnson 2016;
    Tomczak & Welling 2018, eq. 6-8); with a sentence a component it is the exemplar VAE's (Norouzi,
    Fleet & Norouzi 2020, "Exemplar VAE"). Nothing is learned, and each component is what the
    encoder says of one sentence.

    components: sentences at most.
    """

    def __init__(self, latent: int, posterior: nn.Module, *, components: int = 100_000):
        super().__init__(latent, posterior, components=components)

    def forward(self) -> Distribution:
        return Exemplars(self.logits, self.means, self.log_scales.exp())


class Vamp(nn.Module):
    """The posterior of learned pseudo-inputs, p(z) = sum_c pi_c q(z|u_c) (VampPrior).

    Tomczak & Welling 2018, "VAE with a VampPrior", eq. 10. The pseudo-inputs u_c are summaries,
    what the encoder would say of a sentence, since words cannot be learned by gradient.

    components: pseudo-inputs, C.
    """

    def __init__(self, latent: int, posterior: Any, *, components: int = 100):
        super().__init__()
        check(components)
        if getattr(posterior, "normalise", None) is not None:
            raise UserError("prior 'vamp' would mix its pseudo-inputs into posterior.gamma's means")
        self.sphere: bool = posterior.sphere
        # In a list, or it would be a part of both.
        self.posterior = [posterior]
        self.logits = nn.Parameter(torch.zeros(components))
        self.inputs = nn.Parameter(torch.empty(components, posterior.summary).normal_(std=0.5))

    def forward(self) -> Distribution:
        return mixture(self.logits, self.posterior[0](self.inputs))


class FlowPrior(nn.Module):
    """N(0, I) bent by a flow with parameters of its own (`parts.flows`), by Monte Carlo.

    Huang et al. 2017, "Learnable Explicit Density for Continuous Latent Space and Variational
    Inference".

    flow: ``realnvp``, ``maf``, ``nsf`` or any other of the table. layers: maps one after the other.
    width: of the nets in them.
    """

    sphere = False

    def __init__(
        self,
        latent: int,
        posterior: nn.Module,
        *,
        flow: str = "realnvp",
        layers: int = 4,
        width: int = 64,
    ):
        super().__init__()
        if flow not in FLOWS:
            raise UserError(f"there is no flow {flow!r}: use {', '.join(FLOWS)}")
        if latent < 2 or layers < 1:
            raise UserError("a flow needs at least two latent dimensions and one layer")
        self.loc = nn.Parameter(torch.zeros(latent))
        self.log_scale = nn.Parameter(torch.zeros(latent))
        self.flow = FLOWS[flow](latent, layers, width, 0)

    def forward(self) -> Distribution:
        return Flowed(self.loc, self.log_scale.exp(), self.flow(None))


SHARP = 1e5
"""|mean| / scale beyond which its square, in float64, has few digits left for what is near it."""

LIGHT = 1e3
"""Sum of squares of (mean - centre) / scale up to which fp32 has a density to a ten-thousandth."""


def log_densities(
    means: Float[Tensor, "C D"],
    scales: Float[Tensor, "C D"],
    log_weights: Float[Tensor, "C"] | None = None,
) -> Callable[[Float[Tensor, "M D"]], Float[Tensor, "M C"]]:
    """z -> its log-density in nats under each of C diagonal Gaussians (plus each one's log weight).

    The squares are multiplied out, around the centre of the means, so that it is one product of
    matrices; it is made in float64 where fp32 would lose what they cancel. Of scales so small that
    float64 would too, as in an autoencoder, they are summed one dimension after the other.
    """
    given, centre = means.dtype, means.detach().double().mean(0)
    means, scales = means.double() - centre, scales.double()
    constant = -scales.log().sum(1) - 0.5 * math.log(2 * math.pi) * means.shape[1]
    if log_weights is not None:
        constant = constant + log_weights.double()
    precision = scales.square().reciprocal()
    loads = (means.square() * precision).sum(1)
    kind = given if bool((loads <= LIGHT).all()) else torch.double
    columns = [means * precision, -0.5 * precision, (constant - 0.5 * loads)[:, None]]
    table = torch.cat(columns, 1).to(kind).T
    sharp = (means.abs() >= SHARP * scales).any(1).nonzero()[:, 0]

    def densities(z: Tensor) -> Tensor:
        z = z.double() - centre
        found = torch.cat([z, z.square(), z.new_ones(len(z), 1)], 1).to(kind) @ table
        if not len(sharp):
            return found
        direct = constant[sharp].expand(len(z), -1)
        for column, mean, scale in zip(z.T, means[sharp].T, scales[sharp].T, strict=True):
            direct = direct - 0.5 * ((column[:, None] - mean) / scale).square()
        return found.index_copy(1, sharp, direct)

    return densities


class Gaussians(MixtureSameFamily):
    """A mixture of C diagonal Gaussians, as fast for a hundred thousand of them as for a few."""

    ROOM = 1 << 20
    """Densities of points under components that are held at once: so few stay in the cache."""

    DRAWN = 1 << 27
    """Numbers that are drawn at once at most: torch draws of every component, not of the chosen
    one. A seed's text under a mixture depends on it, so it is left where there is room."""

    def __init__(
        self, logits: Float[Tensor, "C"], means: Float[Tensor, "C D"], scales: Float[Tensor, "C D"]
    ):
        parts = Independent(Normal(means, scales, validate_args=False), 1)
        chosen = Categorical(logits=logits, validate_args=False)  # else a device is waited for
        super().__init__(chosen, parts, validate_args=False)
        self.means, self.scales = means, scales

    @cached_property
    def parts(self) -> Callable[[Float[Tensor, "M D"]], Float[Tensor, "M C"]]:
        """Made once, with or without gradients as the first that asks."""
        return log_densities(self.means, self.scales, self.mixture_distribution.logits)

    def log_prob(self, value: Float[Tensor, "*K D"]) -> Float[Tensor, "*K"]:
        rows = value.reshape(-1, value.shape[-1]).split(max(1, self.ROOM // len(self.means)))
        found = torch.cat([self.parts(z).logsumexp(1) for z in rows])
        return found.view(value.shape[:-1]).to(value.dtype)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        if torch.Size(sample_shape).numel() * self.means.numel() <= self.DRAWN:
            return super().sample(sample_shape)
        with torch.no_grad():
            chosen = self.mixture_distribution.sample(torch.Size(sample_shape))
            return torch.normal(self.means[chosen], self.scales[chosen])


class Exemplars(Gaussians):
    """The same with so many components that each draw is always of the chosen one alone."""

    DRAWN = 0


class Parts(MixtureSameFamily):
    """A mixture of whatever; of very many samples a part is drawn at a time, as torch draws of
    every component for each."""

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        shape, draw = torch.Size(sample_shape), super().sample
        every = self.component_distribution
        room = max(1, Gaussians.DRAWN // (every.batch_shape + every.event_shape).numel())
        if shape.numel() <= room:
            return draw(shape)
        counts = [min(room, shape.numel() - begun) for begun in range(0, shape.numel(), room)]
        drawn = torch.cat([draw(torch.Size([count])) for count in counts])
        return drawn.view(shape + self.event_shape)


def mixture(logits: torch.Tensor, parts: Distribution) -> Distribution:
    chosen = Categorical(logits=logits, validate_args=False)
    return Parts(chosen, parts, validate_args=False)


def check(components: int) -> None:
    if components < 1:
        raise UserError("prior.components must be at least 1")


PRIORS: dict[str, Callable[..., nn.Module]] = {
    "normal": StandardNormal,
    "mog": Mixture,
    "vamp": Vamp,
    "flow": FlowPrior,
    "sphere": Sphere,
}

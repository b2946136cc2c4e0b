"""Priors: the distribution p(z) that sentences are sampled from."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
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
    """

    sphere = False

    def __init__(self, latent: int, posterior: nn.Module, *, components: int = 20):
        super().__init__()
        check(components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.empty(components, latent).normal_(std=0.5))
        self.log_scales = nn.Parameter(torch.zeros(components, latent))

    def forward(self) -> Distribution:
        parts = Independent(Normal(self.means, self.log_scales.exp(), validate_args=False), 1)
        return mixture(self.logits, parts)


class Vamp(nn.Module):
    """The posterior of learned pseudo-inputs, p(z) = sum_c pi_c q(z|u_c) (VampPrior).

    Tomczak & Welling 2018, "VAE with a VampPrior", eq. 10. The pseudo-inputs u_c are summaries,
    what the encoder would say of a sentence, since words cannot be learned by gradient.
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

    flow: ``realnvp``, ``maf``, ``nsf`` or any other of the table. Huang et al. 2017, "Learnable
    Explicit Density for Continuous Latent Space and Variational Inference".
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


def mixture(logits: torch.Tensor, parts: Distribution) -> Distribution:
    return MixtureSameFamily(Categorical(logits=logits), parts, validate_args=False)


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

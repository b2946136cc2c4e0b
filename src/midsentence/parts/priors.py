"""Priors: the distribution p(z) that sentences are sampled from."""

from collections.abc import Callable

import torch
from torch import nn
from torch.distributions import Distribution, Independent, Normal


class StandardNormal(nn.Module):
    """p(z) = N(0, I) (Kingma & Welling 2014). Has no parameters."""

    zeros: torch.Tensor

    def __init__(self, latent: int, posterior: nn.Module):
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent), persistent=False)

    def forward(self) -> Distribution:
        unit = Normal(self.zeros, torch.ones_like(self.zeros), validate_args=False)
        return Independent(unit, 1)


PRIORS: dict[str, Callable[..., nn.Module]] = {"normal": StandardNormal}

"""Posteriors: a summary of the sentence -> the distribution q(z|x)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal


class Gaussian(nn.Module):
    """Diagonal Gaussian, q(z|x) = N(mu(h), diag(sigma(h)^2)), reparameterised.

    mu and log sigma^2 are linear in the summary h; z = mu + sigma * eps.
    Kingma & Welling 2014, "Auto-Encoding Variational Bayes", section 3.
    """

    def __init__(self, summary: int, latent: int):
        super().__init__()
        # A language model has no latent, and torch warns about initialising an empty matrix.
        self.project = nn.Linear(summary, 2 * latent) if latent else None

    def forward(self, h: Float[Tensor, "B H"]) -> Distribution:
        both = self.project(h) if self.project else h.new_zeros(len(h), 0)
        mean, log_variance = both.chunk(2, dim=-1)
        return Independent(Normal(mean, torch.exp(0.5 * log_variance), validate_args=False), 1)


POSTERIORS: dict[str, Callable[..., nn.Module]] = {"gaussian": Gaussian}

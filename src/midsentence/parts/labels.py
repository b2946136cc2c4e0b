"""Labels: what is known of a sentence besides its words, y -> a condition for every other part."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal


class Moved(Distribution):
    """The law of loc + scale * u, u ~ base: one for each row of loc, (N, D)."""

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, base: Distribution, loc: Float[Tensor, "N D"], scale: Float[Tensor, "N D"]):
        self.base, self.loc, self.scale = base, loc, scale
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """The gradient reaches loc and scale, and the base where it can be reparameterised."""
        draw = self.base.rsample if self.base.has_rsample else self.base.sample
        return self.loc + self.scale * draw(torch.Size(sample_shape) + self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        u = (value - self.loc) / self.scale
        return self.base.log_prob(u) - self.scale.log().sum(-1)


class Labels(nn.Module):
    """The conditional VAE: p(z|y), p(x|z, y) and q(z|x, y).

    Sohn, Lee & Yan 2015, "Learning Structured Output Representation using Deep Conditional
    Generative Models". y is a learned vector of `size`, joined to the encoder's summary and to the
    z that the decoder reads; the prior is moved and stretched by y, z = loc_y + scale_y * u with
    u ~ p. A line without a label has a y of its own, so that both kinds may stand in one corpus.

    shares: name -> its part of the training lines; what is missing to 1 has no label.
    """

    def __init__(self, shares: dict[str, float], size: int, latent: int):
        super().__init__()
        self.names, self.size = list(shares), size
        self.shares = [*shares.values(), max(0.0, 1 - sum(shares.values()))]
        self.vectors = nn.Embedding(len(self.shares), size)
        self.loc = nn.Parameter(torch.zeros(len(self.shares), latent))
        self.log_scale = nn.Parameter(torch.zeros(len(self.shares), latent))

    def rows(self, labels: Int[Tensor, "N"] | None, count: int) -> Int[Tensor, "N"]:
        """Indices of y; -1, None and labels that training had not are `no label`."""
        none = len(self.names)
        if labels is None:
            return torch.full((count,), none, device=self.loc.device)
        labels = labels.to(self.loc.device)
        return labels.masked_fill((labels < 0) | (labels >= none), none)

    def join(
        self, x: Float[Tensor, "*K N X"], labels: Int[Tensor, "N"] | None
    ) -> Float[Tensor, "*K N Y"]:
        """[x ; y], y the same for all K."""
        vectors = self.vectors(self.rows(labels, x.shape[-2])).to(x.dtype)
        return torch.cat([x, vectors.expand(*x.shape[:-1], -1)], -1)

    def base(
        self, z: Float[Tensor, "*K N D"], labels: Int[Tensor, "N"] | None
    ) -> Float[Tensor, "*K N D"]:
        """The u of z = loc_y + scale_y * u: what the base prior is the law of."""
        rows = self.rows(labels, z.shape[-2])
        return (z - self.loc[rows]) / self.log_scale[rows].exp()

    def prior(
        self, base: Distribution, labels: Int[Tensor, "N"] | None, count: int
    ) -> Distribution:
        """p(z|y), a batch of N; N(0, I) moved is a Gaussian, so that its KL keeps a closed form."""
        rows = self.rows(labels, count)
        loc, scale = self.loc[rows], self.log_scale[rows].exp()
        if isinstance(base, Independent) and isinstance(base.base_dist, Normal):
            return Independent(Normal(loc, scale, validate_args=False), 1)
        return Moved(base, loc, scale)

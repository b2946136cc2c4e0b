"""A diffusion over z: a prior that can be sampled and has no likelihood to ask for.

Fitted after training (`learning.fitting`), never trained with a model: the bound needs log p(z).
"""

import math
from itertools import pairwise
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from ..errors import UserError

BANDS = 16
"""Frequencies by which the net is told the angle."""


class Denoised(Distribution):
    """The law of what the denoiser makes of N(0, I). It can be sampled; it has no density.

    Deterministic: the probability-flow equation (Song et al. 2021, "Score-Based Generative
    Modeling through Stochastic Differential Equations", eq. 13), which by angle is dx/da = v, from
    pi/2 to 0 by Heun's rule (Karras et al. 2022, algorithm 1). DDIM's steps instead would shrink
    even N(0, I), by 1 % in 100 of them; these leave it as it is.
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, prior: "Diffusion"):
        self.prior = prior
        super().__init__(torch.Size(), prior.loc.shape, validate_args=False)

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        prior = self.prior
        x = torch.randn(*sample_shape, *self.event_shape, device=prior.loc.device).to(prior.loc)
        angles = torch.linspace(math.pi / 2, 0, prior.steps + 1).tolist()
        for now, later in pairwise(angles):
            first = prior.velocity(x, x.new_tensor([now]))
            second = prior.velocity(x + (later - now) * first, x.new_tensor([later]))
            x = x + (later - now) * (first + second) / 2
        return prior.loc + prior.scale * x

    def log_prob(self, value: Tensor) -> NoReturn:
        raise NotImplementedError("a diffusion prior can be sampled, but it has no log p(z)")


class Diffusion(nn.Module):
    """p(z) as the end of a denoising: noise at angle pi/2, data at angle 0.

    x_a = cos(a) x + sin(a) eps with x = (z - loc) / scale. The net is told x_a and a, and says the
    velocity v = cos(a) eps - sin(a) x, which is dx_a / da (Salimans & Ho 2022, section 4, after Ho
    et al. 2020, "Denoising Diffusion Probabilistic Models", eq. 14). Of a standard normal x the
    best velocity is 0, which is what the net says at first: it starts as N(loc, diag(scale^2)).

    As a prior over latents: Wehenkel & Louppe 2021, "Diffusion Priors In Variational Autoencoders".

    width: of the net. blocks: of the net. steps: of the sampler, two looks of the net each.
    """

    sphere = False
    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        latent: int,
        posterior: nn.Module,
        *,
        width: int = 256,
        blocks: int = 3,
        steps: int = 50,
    ):
        super().__init__()
        if min(width, blocks, steps) < 1:
            raise UserError("a diffusion's width, blocks and steps must be at least 1")
        self.steps = steps
        self.register_buffer("loc", torch.zeros(latent))
        self.register_buffer("scale", torch.ones(latent))
        self.enter = nn.Linear(latent, width)
        self.angle = nn.Sequential(nn.Linear(2 * BANDS, width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.leave = nn.Linear(width, latent)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self) -> Distribution:
        return Denoised(self)

    def velocity(self, x: Float[Tensor, "*N D"], angle: Float[Tensor, "*#N 1"]) -> Tensor:
        """What the net takes for dx/da of standardised points on their way, (.., D)."""
        rates = torch.logspace(0, 2, BANDS, device=x.device, dtype=x.dtype)
        told = self.angle(torch.cat([(angle * rates).sin(), (angle * rates).cos()], -1))
        hidden = self.enter(x)
        for block in self.blocks:
            hidden = block(hidden, told)
        found: Tensor = self.leave(hidden)
        return found

    def loss(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N"]:
        """Mean square error of the velocity of each point at one random angle, (N,).

        The angles of the N points are spread evenly, from one random start (Kingma et al. 2021,
        "Variational Diffusion Models", appendix I.1): the mean over points varies less.
        """
        x = (z - self.loc) / self.scale
        place = (torch.rand(1, device=z.device) + torch.linspace(0, 1, len(z) + 1)[:-1].to(z)) % 1
        angle = (place * (math.pi / 2))[:, None].to(z)
        noise = torch.randn_like(x)
        seen = angle.cos() * x + angle.sin() * noise
        error = self.velocity(seen, angle) - (angle.cos() * noise - angle.sin() * x)
        return error.square().mean(1)


class Block(nn.Module):
    """A residual layer that is told the angle."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.told = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.down = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "*N W"], angle: Float[Tensor, "*#N W"]) -> Tensor:
        hidden = self.up(self.norm(x)) + self.told(angle)
        return x + self.down(nn.functional.silu(hidden))

"""Semi-amortised inference: what the encoder says, improved by a few gradient steps."""

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UserError
from .layers import frozen

if TYPE_CHECKING:
    from ..text.batches import Batch
    from ..vae import VAE

LONGEST = 5.0
"""The norm to which a sentence's gradient is clipped, as in Kim et al. 2018, section 4.2."""


class Refinement:
    """`steps` of gradient ascent on each sentence's own bound, each `rate` times its gradient.

    Kim et al. 2018, "Semi-Amortized Variational Autoencoders", algorithm 1. Two things are ours.
    What is refined is the summary h, of which every posterior is a function, and not a Gaussian's
    mean and variance: so any posterior can be refined. And the encoder's gradient passes straight
    through the steps, h + (refined h - h) with the bracket held fixed, where they differentiate
    through them by Hessian-vector products.

    Inference is refined wherever there is inference, in measuring too. `prior`: the one the model
    was trained with, where another stands in its place (`fit-prior`): the posterior remains what it
    was. Raises UserError.
    """

    prior: nn.Module | None = None

    def __init__(self, steps: int, rate: float):
        if steps < 1 or not rate > 0:
            raise UserError("refine.steps must be 0 (off) or more, and refine.rate above 0")
        self.steps, self.rate = steps, rate

    def __call__(self, vae: "VAE", batch: "Batch", h: Float[Tensor, "B H"]) -> Float[Tensor, "B H"]:
        at, seen = h.detach(), [(b, b.clone()) for b in vae.posterior.buffers()]
        fixed = [p for p in vae.parameters() if p.requires_grad]
        # cuDNN has no backward pass through a recurrent net in evaluation mode.
        cudnn = nullcontext() if vae.training else torch.backends.cudnn.flags(enabled=False)
        with torch.enable_grad(), cudnn, frozen(fixed):
            for _ in range(self.steps):
                point = at.requires_grad_()
                (slope,) = torch.autograd.grad(
                    vae.bound(batch, point, prior=self.prior).sum(), point
                )
                slope = slope / (slope.norm(dim=1, keepdim=True) / LONGEST).clamp_min(1)
                at = (point + self.rate * slope).detach()
        for buffer, before in seen:  # batch norm shall know where the steps end alone
            buffer.copy_(before)
        return h + (at - h.detach())

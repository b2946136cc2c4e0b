"""A better proposal for importance weighting, fitted after training.

log p(x) has nothing to do with q(z|x), but how near K samples come to it has. A trained posterior
is apart from the true one for two reasons: its family is too small, and the encoder is not at the
best of the family (Cremer, Li & Duvenaud 2018, "Inference Suboptimality in Variational
Autoencoders", section 3); free bits, under which information costs nothing, make it too narrow
besides, and a prior fitted afterwards is one that it never knew. Whatever proposal is fitted, the
estimate stays a lower bound in expectation.
"""

from collections.abc import Callable, Iterator
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from ..errors import UserError
from ..measuring.survey import Sentences, batch_of, measuring
from ..parts.diffusion import Denoised
from ..parts.layers import frozen
from ..parts.posteriors import Gaussian, leaning
from ..seeds import FITTED, seed_of
from ..text.batches import Batch, Budget, shuffled
from ..vae import VAE
from .fitting import CLIP
from .optimizers import AdamW, set_rates

STEPS, RATE = 1000, 1e-3

TOKENS = 1536
"""Padded positions of a batch."""


class Proposal(nn.Module):
    """Summaries (B, H) -> Gaussians of any covariance, at first the model's own posterior.

    Linear in the summary: what is added to its means and log-scales, and what lies under the
    diagonal of the covariance's root. Raises UserError where that posterior is not a diagonal one,
    or the prior has no density.
    """

    def __init__(self, vae: VAE):
        super().__init__()
        self.latent = vae.latent
        if self.latent == 0:
            raise UserError(
                "latent = 0 is a language model: its likelihood is exact without a proposal"
            )
        if not isinstance(vae.posterior, Gaussian):
            raise UserError("a proposal can be fitted where posterior.kind = 'gaussian' only")
        if isinstance(vae.prior(), Denoised):
            raise UserError(
                "a prior 'diffusion' has no likelihood to fit a proposal for: --own-prior"
            )
        # In a list, or it would be a part of both.
        self.posterior = [vae.posterior]
        self.project = nn.Linear(vae.posterior.summary, self.latent * (self.latent + 3) // 2)
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)
        self.to(vae.head.bias)

    def forward(self, h: Float[Tensor, "B H"]) -> Distribution:
        q = self.posterior[0](h)
        move, stretch, below = self.project(h).tensor_split([self.latent, 2 * self.latent], 1)
        return leaning(q.mean + move, q.stddev * stretch.exp(), below)


def fit_proposal(
    vae: VAE,
    sentences: Sentences,
    *,
    seed: int = 0,
    steps: int = STEPS,
    rate: float = RATE,
    progress: Callable[[int], None] = lambda done: None,
) -> Proposal:
    """A proposal for `vae`, fitted to `sentences` by the ELBO; the model stays as it is.

    They should not be those of the training, whose true posteriors are narrower. `progress` is told
    how many more steps are done. Raises UserError.
    """
    learned = [p for p in vae.parameters() if p.requires_grad]
    batches = _batches(sentences, seed)
    usual = len(sentences) / len(shuffled(sentences.lengths, Budget(TOKENS), seed, 0))
    # cuDNN has no backward pass through a recurrent net in evaluation mode.
    cudnn = torch.backends.cudnn.flags(enabled=False)
    with measuring(vae, seed_of(seed, FITTED)), cudnn, frozen(learned), torch.enable_grad():
        proposal = Proposal(vae)
        optimizer = AdamW(proposal.named_parameters(), lr=rate, weight_decay=0.0)
        for step in range(steps):
            batch = next(batches).to(vae.device)
            proposal.zero_grad(set_to_none=True)
            # Over a mean batch's sentences: one weighs the same whatever its length.
            bounds = vae.bound(batch, vae.read(batch), posterior=proposal)
            (-bounds.sum() / usual).backward()
            set_rates(optimizer.each, optimizer.rates((step + 1) / steps))
            # Not `clipped_step`, whose fused kernels know no float64.
            if nn.utils.clip_grad_norm_(proposal.parameters(), CLIP).isfinite():
                optimizer.each[0].step()
            progress(1)
    return proposal.eval()


def _batches(sentences: Sentences, seed: int) -> Iterator[Batch]:
    """Again and again, in another order each time."""
    for epoch in count():
        for rows in shuffled(sentences.lengths, Budget(TOKENS), seed, epoch):
            yield batch_of(sentences, rows)

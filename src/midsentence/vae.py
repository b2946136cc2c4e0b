"""The generative story, written once: z ~ prior(), x ~ decoder(z), q(z|x) = posterior(encoder(x)).

Everything else (bounds, free bits, importance weighting, mutual information) is a function of the
one result of `VAE.run`, the `Pass`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, kl_divergence

from .parts.decoders import Decoder
from .parts.head import BagOfWords, Head, has_bfloat16_layers
from .parts.labels import Labels
from .parts.refinement import Refinement
from .parts.word_samples import Words
from .text.batches import Batch


@dataclass
class Pass:
    """K latents for each of B sentences, and every log-density. Nats per sentence.

    h: the encoder's summary. log_px: log p(x|z), summed over the words and ``</s>``; log_pz:
    log p(z); log_qz: log q(z|x); all given the label where there is one. log_bow: log p(bag|z).
    apart: mean squared difference of the logits under two dropout masks, summed over the words.
    """

    h: Float[Tensor, "B H"]
    q: Distribution
    p: Distribution
    z: Float[Tensor, "K B D"]
    log_qz: Float[Tensor, "K B"]
    log_pz: Float[Tensor, "K B"]
    log_px: Float[Tensor, "K B"]
    bow: Callable[[], Tensor] | None = None
    apart: Float[Tensor, "K B"] | None = None

    @cached_property
    def log_bow(self) -> Float[Tensor, "K B"] | None:
        """Computed once it is asked for: it is no part of what is measured."""
        return None if self.bow is None else self.bow()

    @property
    def log_w(self) -> Float[Tensor, "K B"]:
        """Log importance weights, log p(x, z) - log q(z|x) (Burda et al. 2016, eq. 7)."""
        return self.log_px + self.log_pz - self.log_qz

    @cached_property
    def kl(self) -> Float[Tensor, "B G"]:
        """KL(q(z|x) || p(z)): in closed form, per dimension (G = D) where both factorise.

        Where there is no closed form, the mean of log q - log p over the K samples (G = 1).
        """
        q, p = self.q, self.p
        try:
            if isinstance(q, Independent) and isinstance(p, Independent):
                return kl_divergence(q.base_dist, p.base_dist)
            return kl_divergence(q, p)[:, None]
        except NotImplementedError:
            return (self.log_qz - self.log_pz).mean(0)[:, None]


def draw(q: Distribution, samples: int) -> tuple[Float[Tensor, "K B D"], Float[Tensor, "K B"]]:
    """Reparameterised samples and log q there. A flow knows both from one pass."""
    together = getattr(q, "rsample_and_log_prob", None)
    if together is not None:
        z, log_q = together((samples,))
        return z, log_q
    z = q.rsample(torch.Size([samples]))
    return z, q.log_prob(z)


def density(p: Distribution, z: Float[Tensor, "*K D"]) -> Float[Tensor, "*K"]:
    """log p(z) in nats; nan under a prior that can only be sampled (`parts.diffusion`)."""
    try:
        found: Tensor = p.log_prob(z)
    except NotImplementedError:
        return z.sum(-1) * torch.nan  # and so is whatever gradient is asked for
    return found


class VAE(nn.Module):
    """A text variational autoencoder: a choice of parts, never a class per paper.

    labels: makes everything depend on a label (`parts.labels`). refinement: improves what the
    encoder says (`parts.refinement`). twice: decode under two dropout masks in training.
    """

    def __init__(
        self,
        encoder: nn.Module,
        posterior: nn.Module,
        prior: nn.Module,
        decoder: Decoder,
        head: Head,
        bow: BagOfWords | None = None,
        labels: Labels | None = None,
        refinement: Refinement | None = None,
        twice: bool = False,
    ):
        super().__init__()
        self.encoder, self.posterior, self.prior = encoder, posterior, prior
        self.decoder, self.head, self.bow, self.labels = decoder, head, bow, labels
        self.refinement, self.twice = refinement, twice

    @property
    def latent(self) -> int:
        """D, the dimensions of z; 0 makes the model a plain language model."""
        return int(self.prior().event_shape[0])

    @property
    def sphere(self) -> bool:
        """Whether z lies on the unit sphere."""
        return bool(self.prior.sphere)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def infer(self, batch: Batch) -> Distribution:
        """q(z|x): batch shape (B,), event shape (D,)."""
        q: Distribution = self.posterior(self.read(batch))
        return q

    def read(self, batch: Batch) -> Float[Tensor, "B H"]:
        """The summary that the posterior is a function of: label and refinement are in it."""
        with self._products():
            h: Tensor = self.encoder(batch)
        h = self.joined(h.to(self.head.bias.dtype), batch.labels)
        return h if self.refinement is None else self.refinement(self, batch, h)

    def joined(self, x: Float[Tensor, "*K N X"], labels: Tensor | None) -> Tensor:
        """x beside what the labels say; x alone in a model that knows no labels."""
        return x if self.labels is None else self.labels.join(x, labels)

    def label_rows(self, batch: Batch) -> Int[Tensor, "B"]:
        """Which label each sentence has; all the same in a model that knows none."""
        if self.labels is None:
            return torch.zeros(len(batch), dtype=torch.long, device=self.device)
        return self.labels.rows(batch.labels, len(batch))

    def prior_of(
        self, labels: Tensor | None, count: int, prior: nn.Module | None = None
    ) -> Distribution:
        """p(z), or p(z|y) of `count` sentences in a model with labels; or of another `prior`."""
        p: Distribution = (self.prior if prior is None else prior)()
        if self.labels is None or self.sphere:  # the sphere can't be stretched
            return p
        return self.labels.prior(p, labels, count)

    def _products(self) -> torch.autocast:
        """Whole sentences are read and scored by bf16 products where `precision` says so; by a
        processor whose LSTM has none, only the head's are bf16.

        Densities, sums over words and everything that is written step by step stay in fp32.
        """
        fast = self.head.products() == torch.bfloat16 and has_bfloat16_layers(self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=fast)

    def log_px(
        self, batch: Batch, z: Float[Tensor, "K B D"], words: Words | None = None
    ) -> Float[Tensor, "K B"]:
        """log p(x|z) in nats, summed over the words and ``</s>``; padding is never computed.

        words: estimate it by so many words of the vocabulary a position, drawn for all K latents
        together, without a gradient (`parts.together`); None: exact.
        """
        hidden = self._hidden(batch, z)
        if words is None:
            return self._scored(batch, hidden, len(z))
        together = hidden.view(len(z), -1, hidden.shape[1]).transpose(0, 1)
        found = self.head.log_prob_together(together, self._written(batch), words)
        return self._summed(batch, found.t().flatten(), len(z))

    def log_words(self, batch: Batch, z: Float[Tensor, "B D"]) -> Float[Tensor, "M"]:
        """log p(word | words before, z), nats, of every word and ``</s>``, sentence by sentence."""
        return self.head.log_prob(self._hidden(batch, z[None]), self._written(batch))

    def _hidden(self, batch: Batch, z: Float[Tensor, "K B D"]) -> Float[Tensor, "M H"]:
        """What the decoder says before every word of every sentence, K times over."""
        with self._products():
            hidden = self.decoder.together(batch.inputs, self.joined(z, batch.labels))
        flat, at = hidden.flatten(0, 1), self._places(batch, len(z))
        return (flat if len(at) == len(flat) else flat.index_select(0, at)).to(z.dtype)

    def _places(self, batch: Batch, samples: int) -> Int[Tensor, "N"]:
        """Where the words and ``</s>`` of all sentences are, K times over."""
        at, size = batch.places, batch.targets.numel()
        starts = torch.arange(samples, device=at.device)[:, None] * size
        return (starts + at).flatten()

    def _written(self, batch: Batch) -> Int[Tensor, "M"]:
        """The words and ``</s>`` of all sentences."""
        return batch.targets.flatten()[batch.places]

    def _scored(
        self, batch: Batch, hidden: Float[Tensor, "M H"], samples: int
    ) -> Float[Tensor, "K B"]:
        words = self.head.log_prob(hidden, self._written(batch).repeat(samples))
        return self._summed(batch, words, samples)

    def _summed(
        self, batch: Batch, words: Float[Tensor, "M"], samples: int
    ) -> Float[Tensor, "K B"]:
        """Numbers a word -> their sums over each sentence."""
        rows = self._places(batch, samples) // batch.targets.shape[1]
        sums = words.new_zeros(samples * len(batch))
        return sums.index_add(0, rows, words).view(samples, -1)

    def run(self, batch: Batch, samples: int = 1) -> Pass:
        """Draw K = `samples` latents a sentence from q(z|x) and evaluate every density there."""
        h = self.read(batch)
        q, p = self.posterior(h), self.prior_of(batch.labels, len(batch))
        drawn, log_qz = draw(q, samples)
        bow = None if self.bow is None else partial(self.bow, drawn, batch.targets, batch.mask)
        z = drawn.view_as(drawn)  # its gradient is that of the densities alone, not of the words
        hidden, apart = self._hidden(batch, z), None
        log_px = self._scored(batch, hidden, samples)
        if self.twice and self.training:
            other = self._hidden(batch, z)
            log_px = (log_px + self._scored(batch, other, samples)) / 2
            apart = self._summed(batch, self.head.apart(hidden, other), samples)
        return Pass(h, q, p, z, log_qz, density(p, z), log_px, bow, apart)

    def bound(
        self,
        batch: Batch,
        h: Float[Tensor, "B H"],
        *,
        posterior: nn.Module | None = None,
        prior: nn.Module | None = None,
    ) -> Float[Tensor, "B"]:
        """The ELBO at a summary, by one z; `posterior`, `prior`: in place of the model's own."""
        q = (posterior or self.posterior)(h)
        p = self.prior_of(batch.labels, len(batch), prior)
        z, log_qz = draw(q, 1)
        run = Pass(h, q, p, z, log_qz, density(p, z), self.log_px(batch, z))
        return run.log_px[0] - run.kl.sum(1)

    def forward(
        self, batch: Batch, samples: int, objective: Callable[[Pass], Tensor]
    ) -> dict[str, Float[Tensor, "B"]]:
        """One number a sentence for each of: objective, log_px, kl. The only door in training."""
        run = self.run(batch, samples)
        return {
            "objective": objective(run),
            "log_px": run.log_px.mean(0).detach(),
            "kl": run.kl.sum(1).detach(),
        }

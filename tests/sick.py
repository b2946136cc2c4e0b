"""Tiny models made to have one disease each: trained for a second or two, or changed by hand."""

import copy
from functools import cache, partial

import numpy as np
import torch
from torch import nn
from torch.distributions import Independent, Normal

from midsentence import config
from midsentence.assembly import assemble
from midsentence.learning.objectives import Elbo
from midsentence.text.batches import Batch, collate
from midsentence.vae import VAE
from tiny import Lines

PLACES, VALUES, LATENT = 6, 4, 4
VOCAB = 3 + PLACES * VALUES

SETTINGS = {
    "latent": LATENT,
    "precision": "float32",
    "encoder": {"kind": "gru", "embedding": 16, "hidden": 32},
    "decoder": {"kind": "lstm", "embedding": 16, "hidden": 32, "inject": ["input"]},
    "corpus": {"source": "some text.txt"},
}


def factors(count, seed) -> Lines:
    """Sentences of six words, each a free choice of four: six factors, 6 ln 4 = 8.3 nats."""
    chosen = np.random.default_rng(seed).integers(0, VALUES, (count, PLACES))
    return Lines(3 + chosen + VALUES * np.arange(PLACES))


def fresh(**settings) -> VAE:
    return assemble(config.resolve(SETTINGS | settings), VOCAB)


def fitted(vae, sentences, steps, objective, seed=0, rate=0.02) -> VAE:
    """`steps` steps of Adam on batches of 64, on one thread: two only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    adam = torch.optim.Adam([p for p in vae.parameters() if p.requires_grad], rate)
    for step in range(steps):
        adam.param_groups[0]["lr"] = rate * (1 - step / steps)
        rows = rng.integers(0, len(sentences), 64)
        batch = collate([sentences[i] for i in rows])
        loss = -vae(batch, 1, objective)["objective"].mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.set_num_threads(threads)
    return vae.eval()


@cache
def _healthy() -> VAE:
    return fitted(fresh(), factors(3000, 1), 400, Elbo(free_bits=4.0, form="sentence"))


def healthy() -> VAE:
    """z carries some of the factors; a copy that may be changed."""
    return copy.deepcopy(_healthy())


def projection(vae) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and bias of (means, log variances); changes to them are kept."""
    return vae.posterior.project.weight.data, vae.posterior.project.bias.data


def ways_in(vae) -> torch.Tensor:
    """The decoder's weights on z, a view."""
    return vae.decoder.net.weight_ih_l0.data[:, -LATENT:]


def posterior_is_the_prior() -> VAE:
    vae = healthy()
    for part in projection(vae):
        part.zero_()
    return vae


def posterior_is_one_for_all() -> VAE:
    """KL is paid, for the same narrow posterior whatever the sentence."""
    vae = healthy()
    weight, bias = projection(vae)
    weight.zero_()
    bias[:LATENT], bias[LATENT:] = 0.5, -2.0
    return vae


def decoder_is_deaf() -> VAE:
    """KL is paid and z tells sentences apart, but no weight leads from z to the words."""
    vae = healthy()
    ways_in(vae).zero_()
    return vae


def posterior_is_fading(share=0.6) -> VAE:
    """Means drawn in towards 0 and variances to 1: a posterior on its way to the prior."""
    vae = healthy()
    weight, bias = projection(vae)
    weight *= share
    bias *= share
    return vae


def posteriors_lie_elsewhere(far=2.0) -> VAE:
    """Every z moved by `far` in each dimension, and moved back before the decoder sees it.

    log p(x|z), MI and active units are exactly those of the healthy model.
    """
    vae = healthy()
    projection(vae)[1][:LATENT] += far
    vae.decoder.net.bias_ih_l0.data -= ways_in(vae).sum(1) * far
    return vae


def posteriors_lie_wide(times=3.0) -> VAE:
    """Every z `times` as large, and small again before the decoder: the prior fills the middle."""
    vae = healthy()
    weight, bias = projection(vae)
    weight[:LATENT] *= times
    bias[:LATENT] *= times
    bias[LATENT:] += 2 * np.log(times)
    ways_in(vae).div_(times)
    return vae


class FirstWord(nn.Module):
    """Encoder and posterior in one: z is a point for the first word, with a little noise.

    The points have mean 0 and variance 0.8 in each dimension, the noise 0.2.
    """

    summary, sphere = 1, False

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        points = torch.randn(VOCAB, LATENT)
        held = points[3:25]
        points = (points - held.mean(0)) / held.std(0, correction=0) * 0.8**0.5
        self.points = nn.Parameter(points, requires_grad=False)

    def forward(self, h):
        if isinstance(h, Batch):
            return h.tokens[:, 1:2].float()
        return Independent(Normal(self.points[h[:, 0].long()], 0.2**0.5), 1)


def openings(count, seed) -> Lines:
    """A first word of 22, then five coins."""
    rng = np.random.default_rng(seed)
    first = rng.integers(3, 25, (count, 1))
    return Lines(np.concatenate([first, rng.integers(25, 27, (count, 5))], 1))


def reads_the_first_word() -> VAE:
    vae = fresh()
    vae.encoder = vae.posterior = FirstWord()
    return fitted(vae, openings(3000, 1), 200, Elbo(free_bits=0.0))


def noise(count, seed) -> Lines:
    """Words without any order: nothing to learn but by heart."""
    return Lines(np.random.default_rng(seed).integers(3, VOCAB, (count, PLACES)))


@cache
def knows_its_sentences() -> VAE:
    """Thirty sentences, learned by heart through z."""
    return fitted(fresh(), noise(30, 1), 400, partial(Elbo(free_bits=0.8), beta=0.5))

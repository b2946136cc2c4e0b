"""The examination of a latent space: what z carries, how much, and where it goes wrong.

Everything is in nats per sentence, of one seeded sample, and in evaluation mode. The figures are
explained with `diagnosis.Examination`; `diagnosis.diagnose` judges them.
"""

import math
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from ..errors import UserError
from ..generate import prior_sample
from ..parts.priors import Aggregate
from ..seeds import BLIND, seed_of
from ..text.batches import Batch, by_length
from ..vae import VAE, draw
from .diagnosis import EXPECTED_OUTSIDE, Examination
from .likelihood import (
    COSTLY,
    active_units,
    costly,
    log_aggregate,
    most_information,
    mutual_information,
)
from .survey import GROUP, Sentences, Survey, evenly, groups, measuring, survey

THRESHOLDS = (0.001, 0.01, 0.1, 0.5)
"""Of active units; 0.01 is the published one, 0.1 and 0.5 leave out those that hardly move."""


def examine(
    vae: VAE, valid: Sentences, train: Sentences | None = None, *, seed: int = 0
) -> Examination:
    """Every figure of the examination, on `valid`; those named `train_` on `train`, if given.

    A language model has no figures. Raises UserError for fewer than two sentences.
    """
    if vae.latent == 0:
        return Examination(sentences=len(valid), latent=0)
    if min(len(valid), 2 if train is None else len(train)) < 2:
        raise UserError("an examination needs at least two sentences to exchange their z")
    found = survey(vae, valid, seed)
    bounds = (found.log_px - found.kl.sum(1)).double()
    other = exchanged(found.z, found.label, seed)
    labels = None if valid.labels is None else torch.as_tensor(np.asarray(valid.labels)).long()
    blind = prior_sample(vae, len(valid), seed_of(seed, BLIND), labels)
    swapped = found.log_px - log_px_at(vae, valid, other)
    lost = found.log_px - log_px_at(vae, valid, blind)
    encoder, decoder = gradient_norms(vae, middle(vae, valid if train is None else train), seed)
    return Examination(
        sentences=len(valid),
        latent=vae.latent,
        tokens=_tokens(valid),
        elbo=float(bounds.mean()),
        elbo_stderr=_stderr(bounds),
        reconstruction=-_mean(found.log_px),
        kl_per_dimension=found.kl.mean(0).tolist() if found.kl.shape[1] == vae.latent else [],
        active_units={at: active_units(found.mean, at, sphere=vae.sphere) for at in THRESHOLDS},
        shuffled_gap=_mean(swapped),
        shuffled_gap_stderr=_stderr(swapped),
        prior_gap=_mean(lost),
        prior_gap_stderr=_stderr(lost),
        encoder_gradient=encoder,
        decoder_gradient=decoder,
        **_information(vae, found, blind, seed),
        **_first(vae, valid, found, other, _mean(swapped)),
        **_training(vae, train, seed),
    )


def exchanged(z: Float[Tensor, "N D"], label: Int[Tensor, "N"], seed: int) -> Float[Tensor, "N D"]:
    """Every sentence gets the z of another one with its label, if there is one; from `seed`."""
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed)).to(z.device)
    given = torch.empty_like(z)
    for kind in label.unique():
        rows = order[label[order] == kind]
        given[rows] = z[rows.roll(1)]
    return given


def log_px_at(
    vae: VAE, sentences: Sentences, z: Float[Tensor, "N D"], first: int | None = None
) -> Float[Tensor, "N"]:
    """log p(x|z) of each sentence with its own row of z; of its `first` tokens only, if given.

    A decoder looks at nothing that follows, so the first tokens of a sentence are as probable as
    the sentence that is cut there, ``</s>`` not counted.
    """
    found = z.new_zeros(len(z))
    with measuring(vae, seed=0):
        for rows, batch in groups(vae, sentences):
            cut = batch if first is None else replace(batch, tokens=batch.tokens[:, : first + 1])
            at = torch.from_numpy(rows).long().to(z.device)
            found[at] = vae.log_px(cut, z[at][None])[0]
    return found


def spread(vae: VAE, found: Survey, seed: int = 0) -> Float[Tensor, "D"]:
    """E_x[Var q(z_d|x)]; where the variance has no formula, (z - z')^2 / 2 of two draws."""
    with measuring(vae, seed):
        q = vae.posterior(found.summary)
        try:
            variance: Tensor = q.variance.mean(0)
        except NotImplementedError:
            z, _ = draw(q, 2)
            variance = (z[0] - z[1]).square().mean(0) / 2
    return variance


def moments_kl(vae: VAE, found: Survey) -> float:
    """KL(N(m, v) || p(z)) in nats, m and v the moments of q(z) in each dimension; nan for other
    priors.

    KL(q(z) || p) = KL(q(z) || N(m, v)) + KL(N(m, v) || p) where p is a Gaussian that factorises,
    since E_q[log N(m, v) - log p] is of second order in z_d: so it is never above the marginal KL.
    q(z) is the mean of N posteriors, so m is the mean of their means, and v that of their variances
    plus the variance of the means. Where a variance has no formula the moments are those of one z a
    sentence, and the D / N nats that N draws of a Gaussian are away from it are taken off.
    """
    with measuring(vae, seed=0):
        p = vae.prior()
        factorises = isinstance(p, Independent) and isinstance(p.base_dist, Normal)
        if not factorises or vae.labels is not None:
            return math.nan
        try:
            q = vae.posterior(found.summary)
            mean, chance = q.mean, 0.0
            inner: Tensor = q.variance.mean(0)
        except NotImplementedError:
            mean, chance = found.z, found.z.shape[1] / len(found.z)
            inner = torch.zeros_like(mean[0])
        variance = (inner + mean.var(0, correction=0)).clamp_min(1e-12)
        own = Normal(mean.mean(0), variance.sqrt())
        return max(float(kl_divergence(own, p.base_dist).sum()) - chance, 0.0)  # nan stays nan


def outside(vae: VAE, found: Survey, blind: Float[Tensor, "N D"]) -> float:
    """Share of prior samples less probable under q(z) than 95 % of the z of sentences are.

    A z drawn for a sentence is looked at under the posteriors of all the others, as a sample of the
    prior is, so that both meet q(z) as strangers whatever the number of sentences. nan where every
    sentence is alone with its label.
    """
    held = log_aggregate(vae, found, found.z, found.label, others=True)
    held = held[~held.isnan()]
    if not len(held):
        return math.nan
    drawn = log_aggregate(vae, found, blind, found.label)
    edge = held.double().quantile(EXPECTED_OUTSIDE)
    return float((drawn < edge).double().mean())


def gradient_norms(vae: VAE, batch: Batch, seed: int = 0) -> tuple[float, float]:
    """(encoder and posterior, decoder and head): norms of the ELBO's gradient, a mean sentence."""
    sides = ([vae.encoder, vae.posterior], [vae.decoder, vae.head])
    held = [
        list({id(p): p for m in side for p in m.parameters() if p.requires_grad}.values())
        for side in sides
    ]
    # cuDNN's recurrent nets have no gradient in evaluation mode.
    with measuring(vae, seed), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        run = vae.run(batch)
        elbo = (run.log_px.mean(0) - run.kl.sum(1)).mean()
        found = torch.autograd.grad(elbo, held[0] + held[1], allow_unused=True)
    squares = [0.0 if g is None else float(g.double().square().sum()) for g in found]
    cut = len(held[0])
    return math.sqrt(sum(squares[:cut])), math.sqrt(sum(squares[cut:]))


def middle(vae: VAE, sentences: Sentences) -> Batch:
    """The group of sentences of middle length, as one batch."""
    count = len(by_length(sentences.lengths, GROUP))
    _, batch = next(islice(groups(vae, sentences), count // 2, None))
    return batch


def _information(vae: VAE, found: Survey, blind: Float[Tensor, "N D"], seed: int) -> dict[str, Any]:
    """The KL and its two parts, of the same sentences, and where q(z) lies against the prior."""
    some = found.some(COSTLY if costly(vae, found) else None)
    kl, mi = _mean(some.kl.sum(1)), mutual_information(vae, some)
    return {
        "kl": kl,
        "mi": mi,
        "mi_cap": most_information(some.label),
        "marginal_kl": kl - mi,
        "moments_kl": moments_kl(vae, found),
        "outside": outside(vae, some, blind[evenly(len(blind), len(some.z))]),
        "posterior_variance": spread(vae, found, seed).tolist(),
        "aggregate_variance": found.z.var(0, correction=0).tolist(),
    }


def _first(
    vae: VAE, sentences: Sentences, found: Survey, other: Float[Tensor, "N D"], gap: float
) -> dict[str, Any]:
    """How much of what z tells, which is `gap`, and of what there is to tell, the first tokens
    hold."""
    first = max(1, round(_tokens(sentences) / 4))
    own, wrong = (_mean(log_px_at(vae, sentences, z, first)) for z in (found.z, other))
    return {
        "first_tokens": first,
        "first_share": (own - wrong) / gap if gap else math.nan,
        "first_even": wrong / (_mean(found.log_px) - gap),
    }


def _training(vae: VAE, train: Sentences | None, seed: int) -> dict[str, Any]:
    if train is None:
        return {}
    found = survey(vae, train, seed)
    swapped = log_px_at(vae, train, exchanged(found.z, found.label, seed))
    bound = _mean(found.log_px - found.kl.sum(1))
    if isinstance(vae.prior, Aggregate):
        bound = math.nan  # their own posteriors are its components: they pay ln C at most
    return {
        "train_sentences": len(train),
        "train_tokens": _tokens(train),
        "train_elbo": bound,
        "train_shuffled_gap": _mean(found.log_px - swapped),
    }


def _tokens(sentences: Sentences) -> float:
    return float(sentences.lengths.mean()) + 1


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _stderr(values: Tensor) -> float:
    return float(values.double().std() / math.sqrt(len(values)))

"""How probable is text under a model: bounds, importance-weighted likelihood, information.

Everything is in nats per sentence, summed over the words and ``</s>``; division by tokens or bytes
happens here and nowhere else, sums first. One definition under every objective.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from ..parts.diffusion import Denoised
from ..parts.priors import log_densities
from ..parts.word_samples import Words
from ..seeds import SAMPLED, seed_of
from ..text.batches import Batch
from ..vae import VAE, draw
from .survey import InMemory, Sentences, Survey, measuring, shared, survey

POSITIONS = 16384
"""Decoder positions computed at once in importance weighting; any value gives the same figure, but
for the noise of words that are drawn."""

TOGETHER = 1024
"""Samples of a sentence that are drawn at once: more of them take no more memory."""

CHECKED = 20
"""Sentences whose likelihood by sampled words is held to that by all of them."""

PAIRS = 1 << 21
"""Densities of z under posteriors that are held at once."""

COSTLY = 200
"""Sentences whose MI is watched in training where densities are costly: a flow may pass each z
through its nets D times for each sentence, and half of a short run went into that."""

ACTIVE = 0.01
"""A unit is active when Var_x(E_q[z_d]) is at least this (Burda et al. 2016, appendix C)."""


def active_units(
    mean: Float[Tensor, "N D"], threshold: float = ACTIVE, *, sphere: bool = False
) -> int:
    """How many dimensions of the posterior mean vary over the sentences by at least `threshold`.

    That is of a prior whose variance is 1 in each; on the unit sphere it is 1 / D.
    """
    threshold = threshold / mean.shape[1] if sphere else threshold
    return int(((mean - mean.mean(0)).square().mean(0) >= threshold).sum())


def mutual_information(vae: VAE, found: Survey, most: int | None = None) -> float:
    """I_q(x; z) = E[log q(z|x) - log q(z)] in nats, q(z) the mean of all N posteriors.

    Hoffman & Johnson 2016, "ELBO Surgery". q(z) is the mean over the whole set, not over a batch,
    so the cap is ln N (`most_information`). `most` takes so many sentences only (for
    watching training). In a model with labels it is I(x; z | y), q(z|y) the mean over the sentences
    of label y, so that kl - mi is still the KL of the aggregate posterior from the prior.
    """
    found = found.some(most)
    return float((found.log_qz - log_aggregate(vae, found, found.z, found.label)).mean())


def costly(vae: VAE, found: Survey) -> bool:
    """Whether densities under every sentence's posterior are: all but a diagonal Gaussian's."""
    with measuring(vae, seed=0):
        return not isinstance(vae.posterior(found.summary[:1]), Independent)


def most_information(label: Int[Tensor, "N"]) -> float:
    """What `mutual_information` cannot exceed on sentences of these labels, in nats.

    sum_y (N_y / N) ln N_y: z can tell a sentence only from the others of its label. ln N where all
    have the same one, as in a model without labels.
    """
    counts = label.unique(return_counts=True)[1].double()
    return float((counts * counts.log()).sum() / len(label))


def log_aggregate(
    vae: VAE,
    found: Survey,
    z: Float[Tensor, "M D"],
    label: Int[Tensor, "M"],
    *,
    others: bool = False,
) -> Float[Tensor, "M"]:
    """log q(z|y) in nats, q(z|y) the mean of the posteriors of the sentences with each z's label.

    others: there is one z of each sentence, and its own posterior is left out (nan if it is alone).
    """
    parts = []
    # In training a posterior with batch normalisation would be another, and learn from this.
    with measuring(vae, seed=0):
        q = vae.posterior(found.summary)
        if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
            each, room = log_densities(q.base_dist.loc, q.base_dist.scale), PAIRS
        else:  # a flow passes every z through its nets for every sentence
            each, room = lambda some: q.log_prob(some[:, None]), PAIRS // 2 // max(1, z.shape[1])
        size = max(1, room // max(1, len(found.z)))
        for rows in torch.arange(len(z), device=z.device).split(size):
            away = label[rows, None] != found.label
            if others:
                away[torch.arange(len(rows), device=z.device), rows] = True
            pairs = each(z[rows]).masked_fill(away, -math.inf)
            parts.append(pairs.logsumexp(1) - (~away).sum(1).log())
    return torch.cat(parts).to(z.dtype)


def bound(vae: VAE, sentences: Sentences, seed: int = 0) -> dict[str, float]:
    """The validation bound, one sample a sentence; MI over at most 2,000 sentences (`mi_cap`),
    `COSTLY` where densities are (`costly`)."""
    found = survey(vae, sentences, seed)
    log_px, kl = found.log_px.double().mean().item(), found.kl.double().sum(1).mean().item()
    words = int(sentences.lengths.sum()) + len(sentences)
    most = min(len(sentences), COSTLY if costly(vae, found) else 2000)
    return {
        "elbo": log_px - kl,
        "log_px": log_px,
        "kl": kl,
        "mi": mutual_information(vae, found, most),
        "mi_cap": most_information(found.some(most).label),
        "active_units": active_units(found.mean, sphere=vae.sphere),
        "ppl_bound": perplexity((kl - log_px) * len(sentences) / words),
    }


def perplexity(nats: float) -> float:
    """exp of nats a token, short of overflow; nan stays nan."""
    return math.nan if math.isnan(nats) else math.exp(min(700.0, nats))


def corpus_perplexity(
    nll: Float[np.ndarray, "N"], tokens: Int[np.ndarray, "N"]
) -> tuple[float, float]:
    """exp(sum of nats / sum of tokens), and its standard error over sentences: the delta method for
    a ratio of sums (Cochran 1977, "Sampling Techniques", section 2.11). Long sentences have more
    nats *and* more tokens, so that it is a good deal less than that of the NLL would make it."""
    rate = nll.sum() / tokens.sum()
    apart, count = nll - rate * tokens, len(nll)
    spread = (apart**2).sum() * count / (count - 1) if count > 1 else math.nan
    found = perplexity(rate)
    return found, found * math.sqrt(spread) / float(tokens.sum())


def importance_weighted(
    vae: VAE,
    sentences: Sentences,
    samples: int,
    *,
    proposal: Callable[[Tensor], Distribution] | None = None,
    seed: int = 0,
    positions: int = POSITIONS,
    words: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """log p(x) by exactly K = `samples` importance samples, and its standard error, (N,) nats.

    log (1/K) sum_k p(x, z_k) / q(z_k|x), z_k ~ q(z|x): a lower bound in expectation that rises to
    log p(x) with K (Burda et al. 2016, eq. 8). q is the posterior, or a `proposal` of the summary
    (`learning.proposals`), under which the bound may be tighter. `words`: each log p(x|z) is an
    estimate by so many words of the vocabulary a position (`VAE.log_px`), 0: exact; their noise is
    common to all z and no part of the error. The error is the delta method's,
    sqrt((mean(r^2) - 1) / K) with r the weights over their mean; of one sample it is not known, and
    nan, but for a language model, whose likelihood is exact. `progress` is told how many more
    sentences are done. Both are nan, and nothing is computed, under a prior without a density.
    """
    if isinstance(vae.prior(), Denoised):
        unknown = np.full(len(sentences), math.nan)
        return unknown, unknown

    def look(batch: Batch) -> tuple[Tensor, Tensor]:
        q = vae.infer(batch) if proposal is None else proposal(vae.read(batch))
        p = vae.prior_of(batch.labels, len(batch))
        size = max(1, positions // batch.targets.numel())
        sampled = None
        if words:
            own = seed_of(torch.initial_seed(), SAMPLED)
            sampled = Words(words, torch.Generator(vae.device).manual_seed(own))
        total = torch.full((len(batch),), -math.inf, dtype=torch.double, device=vae.device)
        squares = total.clone()
        for begun in range(0, samples, TOGETHER):
            z, log_qz = draw(q, min(TOGETHER, samples - begun))
            log_pz = torch.cat([p.log_prob(part) for part in z.split(size)])
            log_w = (log_px_in_parts(vae, batch, z, positions, sampled) + log_pz - log_qz).double()
            total = total.logaddexp(log_w.logsumexp(0))
            squares = squares.logaddexp((2 * log_w).logsumexp(0))
        mean = total - math.log(samples)
        if samples == 1 and vae.latent:
            return mean, torch.full_like(mean, math.nan)
        square = (squares - 2 * mean).exp() / samples
        return mean, ((square - 1).clamp_min(0) / samples).sqrt()

    log_p, error = shared(vae, sentences, seed, look, progress)
    return log_p.cpu().numpy(), error.cpu().numpy()


def log_px_in_parts(
    vae: VAE, batch: Batch, z: Float[Tensor, "K B D"], positions: int, words: Words | None
) -> Float[Tensor, "K B"]:
    """`VAE.log_px` of a few sentences at a time, with as many of their z as there is room for."""
    count, columns = max(1, positions // (len(z) * batch.targets.shape[1])), []
    for first in range(0, len(batch), count):
        some = batch.rows(first, count)
        parts = math.ceil(len(z) * some.targets.numel() / positions)  # of like size
        each = z[:, first : first + count].split(math.ceil(len(z) / parts))
        columns.append(torch.cat([vae.log_px(some, part, words) for part in each]))
    return torch.cat(columns, 1)


def evaluate(
    vae: VAE,
    sentences: Sentences,
    sizes: np.ndarray,
    samples: int = 500,
    *,
    proposal: Callable[[Tensor], Distribution] | None = None,
    seed: int = 0,
    positions: int = POSITIONS,
    words: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """The table: likelihood by `samples` importance samples, the bound, and what z carries.

    A `proposal` and `words` are for the first alone: everything else is of the model's own
    posterior and by all words, as is the first with as many `words` as there are. `words_off` is by
    how much `CHECKED` sentences have a larger NLL by them than by all words, the same z, in nats a
    sentence; with its standard error.
    sizes: (N,) UTF-8 bytes of the sentences, for bits per byte. `nll_stderr` is that of the mean
    over sentences; `estimator_stderr` is the part of it that more samples would remove, nan of one
    sample: their noise alone, not the bias by which the NLL is too large in the mean. `ppl` is over
    words and ``</s>``. kl = mi + marginal_kl, up to the noise of one sample a sentence. Under a
    prior without a density (`parts.diffusion`) all that needs log p(z) is nan, and `samples` 0.
    """
    found = survey(vae, sentences, seed)
    if vae.latent == 0:
        samples, words = 1, 0  # without a latent the likelihood is exact
    if words >= len(vae.head.bias):
        words = 0  # so many are all of them
    if isinstance(vae.prior(), Denoised):
        samples, words = 0, 0
    likelihood = partial(
        importance_weighted, vae, samples=samples,
        proposal=proposal, seed=seed, positions=positions,
    )  # fmt: skip
    log_p, error = likelihood(sentences, words=words, progress=progress)
    count, lengths = len(sentences), np.asarray(sentences.lengths) + 1
    tokens, held = int(lengths.sum()), int(sizes.sum())
    log_px, kl = found.log_px.double().mean().item(), found.kl.double().sum(1).mean().item()
    mi = mutual_information(vae, found)
    nll, (ppl, ppl_stderr) = -log_p.mean(), corpus_perplexity(-log_p, lengths)
    return {
        "sentences": count,
        "tokens": tokens,
        "bytes": held,
        "samples": samples,
        "nll": float(nll),
        "nll_stderr": float(log_p.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan,
        "estimator_stderr": float(np.sqrt((error**2).sum()) / count),
        "elbo": log_px - kl,
        "reconstruction": -log_px,
        "kl": kl,
        "ppl": ppl,
        "ppl_stderr": ppl_stderr,
        "bits_per_byte": float(nll * count / math.log(2) / held) if held else math.nan,
        "mi": mi,
        "mi_cap": most_information(found.label),
        "active_units": active_units(found.mean, sphere=vae.sphere),
        "latent": vae.latent,
        "marginal_kl": kl - mi,
        **(words_off(likelihood, sentences, words) if words else {}),
    }


def words_off(
    likelihood: Callable[..., tuple[np.ndarray, np.ndarray]], sentences: Sentences, words: int
) -> dict[str, float]:
    """What sampled words change in the NLL of a few sentences, evenly spread over the set."""
    count = min(CHECKED, len(sentences))
    rows = np.linspace(0, len(sentences) - 1, count).round().astype(np.int64)
    known = sentences.labels
    ids = [np.asarray(sentences[i]).tolist() for i in rows.tolist()]
    some = InMemory(ids, None if known is None else known[rows])
    off = likelihood(some, words=0)[0] - likelihood(some, words=words)[0]
    error = off.std(ddof=1) / math.sqrt(count) if count > 1 else math.nan
    return {"words": words, "words_off": float(off.mean()), "words_off_stderr": float(error)}

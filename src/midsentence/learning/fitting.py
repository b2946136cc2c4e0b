"""A richer prior, fitted after training to the latents of the training sentences.

Training leaves a hole: sentences lie where the aggregate posterior q(z) = E_x[q(z|x)] is, samples
come from p(z), and the bound pays KL(q(z) || p(z)) for the difference (Hoffman & Johnson 2016,
"ELBO Surgery"). With encoder and decoder as they are, the prior that maximises the bound is the one
that maximises E_q(z)[log p(z)]: plain density estimation on draws of z (two-stage VAEs: Dai & Wipf
2019, "Diagnosing and Enhancing VAE Models"). What log p(z) of held-out latents gains, the
validation bound gains.
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from ..errors import UserError
from ..measuring.survey import Sentences, groups, measuring
from ..parts.priors import Aggregate
from ..seeds import CHOSEN, FITTED, seed_of, seeded
from ..text.batches import Batch
from ..vae import VAE, density, draw
from .kinds import KINDS, Kind, build
from .optimizers import AdamW, clipped_step, set_rates

STEPS, BATCH, CLIP = 3000, 512, 5.0
LOOKS, PATIENCE = 40, 12
"""Validations in the whole budget, and how many without a better one end it early."""

DRAWS, ROOM = 16, 1 << 25
"""Latents a sentence that are kept to fit on: at most so many, and so many numbers in all."""

HELD = 10_000
"""Held-out latents that every look is taken at; short of sentences, several are drawn of each."""

PART = 2048
"""Latents whose densities are computed together."""


def latents(vae: VAE, batch: Batch, samples: int) -> Float[Tensor, "K B D"]:
    """Draws of the variable whose law `vae.prior` is: z ~ q(z|x), or with labels the u that the
    label takes to z."""
    z = draw(vae.infer(batch), samples)[0]
    return z if vae.labels is None else vae.labels.base(z, batch.labels)


def posterior_draws(
    vae: VAE, sentences: Sentences, samples: int, seed: int
) -> Float[Tensor, "K N D"]:
    """`samples` latents of every sentence, by the sentences' length; nothing is decoded."""
    with measuring(vae, seed):
        return torch.cat([latents(vae, batch, samples) for _, batch in groups(vae, sentences)], 1)


def check(vae: VAE) -> None:
    """Raises UserError for a model without a latent, or with one on the sphere."""
    if vae.latent == 0:
        raise UserError("latent = 0 is a language model: it has no prior to fit")
    if vae.sphere:
        raise UserError(
            "posterior 'vmf' lies on the unit sphere, which mog, flow and diffusion do not: "
            "there is no prior to fit; prior.kind = 'vamp' can be trained with it"
        )


def fit_prior(
    vae: VAE,
    settings: Mapping[str, Any],
    train: Sentences,
    held: Sentences,
    *,
    seed: int = 0,
    steps: int = STEPS,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[nn.Module, dict[str, Any]]:
    """A prior of `settings` (its kind among them) for `vae`, and how it compares on `held`.

    The figures are `gain`'s. An aggregate has a component for each sentence of `train`. `vae` must
    have the prior it was trained with, and keeps it.
    """
    check(vae)
    samples = max(1, min(DRAWS, HELD // len(held)))
    checked = posterior_draws(vae, held, samples, seed_of(seed, CHOSEN))
    if settings["kind"] == "aggregate":
        prior: nn.Module = aggregate(vae, train)
        progress(steps)
    else:
        samples = max(1, min(DRAWS, ROOM // (len(train) * vae.latent)))
        points = posterior_draws(vae, train, samples, seed_of(seed, FITTED))
        prior = fit(
            settings, points.flatten(0, 1), checked.flatten(0, 1),
            seed=seed, steps=steps, progress=progress,
        )  # fmt: skip
    figures = {"sentences": len(train), "held_out": len(held), **gain(vae.prior, prior, checked)}
    return prior, figures


def aggregate(vae: VAE, sentences: Sentences) -> Aggregate:
    """The mean of the sentences' posteriors; with labels, of what they are for u.

    Raises UserError where they are no diagonal Gaussians.
    """
    loc, scale = [], []
    with measuring(vae, 0):
        for _, batch in groups(vae, sentences):
            q = vae.infer(batch)
            if not (isinstance(q, Independent) and isinstance(q.base_dist, Normal)):
                raise UserError(
                    "an aggregate prior needs posterior.kind = 'gaussian': fit mog or flow"
                )
            mean, stddev = q.mean, q.stddev
            if vae.labels is not None:  # they move and stretch, so that a Gaussian stays one
                stretch = vae.labels.log_scale[vae.labels.rows(batch.labels, len(batch))].exp()
                mean, stddev = vae.labels.base(mean, batch.labels), stddev / stretch
            loc.append(mean)
            scale.append(stddev)
        prior = Aggregate(vae.latent, vae.posterior, components=len(sentences)).to(loc[0])
        prior.means.copy_(torch.cat(loc))
        prior.log_scales.copy_(torch.cat(scale).log())
    return prior


def fit(
    settings: Mapping[str, Any],
    points: Float[Tensor, "N D"],
    held: Float[Tensor, "M D"],
    *,
    seed: int = 0,
    steps: int = STEPS,
    progress: Callable[[int], None] = lambda done: None,
) -> nn.Module:
    """The law of `points`, the best on `held` of at most `steps` steps. A seed fixes it.

    By maximum likelihood, or for a diffusion by its denoising loss; in fp32. `progress` is told how
    many more steps are done.
    """
    kind, precision = KINDS[settings["kind"]], points.dtype
    points, held = points.float(), held.float()
    loc, scale = points.mean(0), points.std(0).clamp_min(1e-8)
    standard, checked = (points - loc) / scale, (held - loc) / scale
    with seeded(seed, points.device):
        prior = build(settings, points.shape[1]).to(points.device)
        with torch.no_grad():
            kind.begin(prior, standard)
        _descend(prior, kind, standard, checked, steps, seed, progress)
        with torch.no_grad():
            kind.stretch(prior, loc, scale)
    return prior.to(precision).eval()


def _descend(
    prior: nn.Module, kind: Kind, points: Tensor, held: Tensor,
    steps: int, seed: int, progress: Callable[[int], None],
) -> None:  # fmt: skip
    """Gradient steps; at the end `prior` is what it was when it was best on `held`."""
    optimizer = AdamW(prior.named_parameters(), lr=kind.rate, weight_decay=0.0)
    best, kept, stale = math.inf, copy.deepcopy(prior.state_dict()), 0
    every = max(1, steps // LOOKS)
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            found = _look(prior, kind, held, seed)
            stale += 1
            if found < best:
                best, kept, stale = found, copy.deepcopy(prior.state_dict()), 0
            if stale > PATIENCE or step == steps:
                break
        rows = torch.randint(len(points), (BATCH,), device=points.device)
        set_rates(optimizer.each, optimizer.rates((step + 1) / steps))
        prior.zero_grad(set_to_none=True)
        kind.loss(prior, points[rows]).mean().backward()
        clipped_step(optimizer.each, CLIP)
        progress(1)
    progress(steps - step)
    prior.load_state_dict(kept)


def _look(prior: nn.Module, kind: Kind, held: Tensor, seed: int) -> float:
    """Mean loss on `held`, with the same noise every time."""
    with seeded(seed, held.device), torch.no_grad():
        losses = [kind.loss(prior, part) for part in held.split(PART)]
    return float(torch.cat(losses).double().mean())


@torch.no_grad()
def gain(own: nn.Module, fitted: nn.Module, held: Float[Tensor, "K N D"]) -> dict[str, float]:
    """Two priors on held-out latents, K of each of N sentences.

    log_pz_own, log_pz: mean log-density in nats (with labels, of u); improvement: the second less
    the first, which the bound gains, with its standard error over sentences; nan where a prior has
    no density.
    distance_own, distance: energy distance between samples of the prior and the latents, which
    every prior has; 0 is none, up to chance.
    """
    points = held.flatten(0, 1)
    before, after = (
        torch.cat([density(prior(), part) for part in points.split(PART)])
        .double().view(held.shape[:2]).mean(0)
        for prior in (own, fitted)
    )  # fmt: skip
    better = after - before
    stderr = float(better.std() / math.sqrt(len(better))) if len(better) > 1 else math.nan
    scale = points.std(0).clamp_min(1e-8)
    count = min(len(points), 2000)
    with seeded(0, held.device):
        some = points[torch.randperm(len(points), device=points.device)[:count]] / scale
        drawn = [prior().sample(torch.Size([count])) / scale for prior in (own, fitted)]
    return {
        "log_pz_own": float(before.mean()),
        "log_pz": float(after.mean()),
        "improvement": float(better.mean()),
        "improvement_stderr": stderr,
        "distance_own": energy_distance(drawn[0], some),
        "distance": energy_distance(drawn[1], some),
    }


def energy_distance(a: Float[Tensor, "N D"], b: Float[Tensor, "M D"]) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|, unbiased; 0 in expectation where both have one law.

    Szekely & Rizzo 2013, "Energy statistics: A class of statistics based on distances".
    """

    def within(x: Tensor) -> Tensor:
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    return float(2 * torch.cdist(a, b).mean() - within(a) - within(b))

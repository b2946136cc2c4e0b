"""Where a run's sentences lie: posterior means, spreads and draws of a part of its corpus."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Distribution

from . import kept
from .bundle import TextVAE
from .errors import UserError
from .latent import unit
from .measuring.survey import Sentences, groups, measuring
from .parts.sphere import VonMisesFisher
from .text.corpus import Corpus
from .text.store import pick
from .vae import VAE, draw

SENTENCES, HELD = 20_000, 2_000
"""Of the training and of the validation part, that are looked at: at most so many."""

DRAWS = 64
"""Samples that the variance of a posterior without a formula for it is estimated from."""

FOLDER = "cloud"


@dataclass(frozen=True)
class Cloud:
    """N sentences in the latent space.

    mean, variance: of each posterior; draw: one sample of it. text: rows -> sentences. label: what
    each is, an index into `names`, -1 for none. sphere: all z lie on the unit sphere.
    """

    mean: Float[Tensor, "N D"]
    variance: Float[Tensor, "N D"]
    draw: Float[Tensor, "N D"]
    text: Callable[[Sequence[int]], list[str]]
    label: Int[Tensor, "N"] | None = None
    names: Sequence[str] = ()
    sphere: bool = False

    def __len__(self) -> int:
        return len(self.mean)


def located(vae: VAE, sentences: Sentences, seed: int = 0) -> dict[str, Float[Tensor, "N D"]]:
    """Mean, variance and a draw of every sentence's posterior, in their order."""
    order, parts = [], []
    with measuring(vae, seed):
        for rows, batch in groups(vae, sentences):
            q = vae.infer(batch)
            mean = unit(q.mean) if vae.sphere else q.mean
            order.append(rows)
            parts.append((mean, spread(q), draw(q, 1)[0][0]))
    back = torch.from_numpy(np.argsort(np.concatenate(order))).to(vae.device)
    columns = (torch.cat(column)[back] for column in zip(*parts, strict=True))
    return dict(zip(("mean", "variance", "draw"), columns, strict=True))


def spread(q: Distribution) -> Float[Tensor, "B D"]:
    """Var_q[z_d]: by its formula, or from samples about the centre where a flow has none."""
    if isinstance(q, VonMisesFisher):  # exp(kappa mu z) is a Gaussian's shape with this variance
        return torch.full_like(q.mu, 1 / q.kappa)
    try:
        return q.variance
    except NotImplementedError:
        return (q.sample(torch.Size([DRAWS])) - q.mean).square().mean(0)


def check(model: TextVAE) -> None:
    """Raises UserError for a language model."""
    if model.latent == 0:
        raise UserError("latent = 0 is a language model: it has no latent space to move about in")


def of_lines(model: TextVAE, lines: Sequence[str], label: Any = None) -> Cloud:
    """Sentences of one's own. Raises UserError for none, or an empty one."""
    check(model)
    if not lines:
        raise UserError("there are no sentences: give at least one")
    found = located(model.vae, model.ids(lines, label))
    return Cloud(
        found["mean"], found["variance"], found["draw"],
        text=lambda rows: [lines[i] for i in rows], sphere=model.vae.sphere,
    )  # fmt: skip


def of_run(
    model: TextVAE, run: Path, part: str = "train", most: int = SENTENCES, seed: int = 0
) -> Cloud:
    """At most `most` sentences of a part of the run's corpus, drawn by `seed`.

    Found once and kept in ``run/cloud/PART``, for later. Raises UserError where there is none.
    """
    check(model)
    data = Corpus.open(run / "corpus")
    chosen = pick(getattr(data, part), most, seed)
    store = chosen.store
    about = {"sentences": most, "seed": seed, "of": len(store), "tokens": len(store.tokens)}
    found: dict[str, Tensor] = {}
    with suppress(UserError):  # what is stale or damaged is found afresh
        held, said = kept.read(run, f"{FOLDER}/{part}", weights=model.weights)
        found = held if said == about else {}
    if not found:
        found = located(model.vae, chosen, seed)
        with suppress(OSError):  # a run that can't be written to can still be read
            kept.write(run, f"{FOLDER}/{part}", found, about, model.weights)
    rows = chosen.rows
    label = None if chosen.labels is None else torch.from_numpy(chosen.labels.astype(np.int64))
    mean, variance, drawn = (found[n].to(model.vae.device) for n in ("mean", "variance", "draw"))
    return Cloud(
        mean,
        variance,
        drawn,
        text=lambda wanted: store.text(data.tokenizer, rows[list(wanted)]),
        label=label,
        names=store.label_names,
        sphere=model.vae.sphere,
    )

"""Directions: what separates two kinds of sentences in the latent space, saved by name."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from . import kept
from .errors import UserError
from .measuring.probing import greatest

FOLDER = "directions"
NAME = re.compile(r"\w[\w-]{0,63}")


@dataclass(frozen=True)
class Direction:
    """A way from one kind of sentence to another, and the classifier that tells them apart.

    vector: strength 1 goes as far along it as the two means are apart. weight, bias: the log-odds
    of the second kind are weight z + bias. about: kind, sentences on either side, accuracy.
    """

    vector: Float[Tensor, "D"]
    weight: Float[Tensor, "D"]
    bias: float
    about: Mapping[str, Any] = field(default_factory=dict)

    def log_odds(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N"]:
        return z @ self.weight.to(z) + self.bias


def mean_difference(a: Float[Tensor, "N D"], b: Float[Tensor, "M D"]) -> Direction:
    """The vector from the mean of a to the mean of b (White 2016; Larsen et al. 2016).

    Its classifier is Fisher's along that vector: equal variances, the border half way.
    """
    vector, middle = b.mean(0) - a.mean(0), (a.mean(0) + b.mean(0)) / 2
    gap = vector.norm().clamp_min(1e-12)
    along = [(side - side.mean(0)) @ vector / gap for side in (a, b)]
    variance = torch.cat(along).square().mean().clamp_min(1e-6 * float(gap) ** 2)
    weight = vector / variance
    return Direction(vector, weight, -float(weight @ middle))


def probe(a: Float[Tensor, "N D"], b: Float[Tensor, "M D"]) -> Direction:
    """The normal of a linear probe: logistic regression on standardised z, both sides counting
    alike, weights ~ N(0, I), or a plane that divides the two would send them to infinity (Alain &
    Bengio 2017; Kim et al. 2018)."""
    z = torch.cat([a, b]).double()
    sign = torch.cat([-z.new_ones(len(a)), z.new_ones(len(b))])
    share = torch.cat([z.new_full((len(a),), 0.5 / len(a)), z.new_full((len(b),), 0.5 / len(b))])
    loc, scale = z.mean(0), z.std(0).clamp_min(1e-8)
    u = (z - loc) / scale
    found = greatest(
        lambda w: share @ logsigmoid(sign * (u @ w[1:] + w[0])) - 0.5 * w[1:] @ w[1:] / len(z),
        z.new_zeros(z.shape[1] + 1),
    )
    weight = found[1:] / scale
    bias = float(found[0] - weight @ loc)
    ahead = weight / weight.norm().clamp_min(1e-12)
    gap = (b.double().mean(0) - a.double().mean(0)) @ ahead
    return Direction((ahead * gap).to(a), weight.to(a), bias)


def guessed(about: Mapping[str, Any]) -> float:
    """The accuracy that a coin hardly exceeds on as many sentences as were held out: two standard
    errors above a half; nan without any."""
    held = [about[side] // 5 for side in ("from", "to")]
    return 0.5 + math.sqrt(sum(0.25 / n for n in held)) if min(held) else math.nan


METHODS = {"mean": mean_difference, "probe": probe}


def fit(a: Float[Tensor, "N D"], b: Float[Tensor, "M D"], method: str = "probe") -> Direction:
    """The direction from a to b, with its balanced accuracy on a fifth that was held out.

    The sentences of a side have to be different ones, or what is held out was seen. Raises
    UserError for an unknown method or fewer than two sentences on a side. With fewer than five on a
    side there is nothing to hold out, and the accuracy is nan.
    """
    if method not in METHODS:
        raise UserError(f"method {method!r} is not one of {', '.join(METHODS)}")
    if min(len(a), len(b)) < 2:
        raise UserError("a direction needs at least two different sentences on either side")
    accuracy = math.nan
    if min(len(a), len(b)) >= 5:
        chance = torch.Generator().manual_seed(0)
        sides = [side[torch.randperm(len(side), generator=chance).to(side.device)]
                 for side in (a, b)]  # fmt: skip
        held = [side[: len(side) // 5] for side in sides]
        tried = METHODS[method](*(side[len(side) // 5 :] for side in sides))
        right = [(tried.log_odds(held[0]) < 0), (tried.log_odds(held[1]) > 0)]
        accuracy = float(sum(r.double().mean() for r in right)) / 2
    found = METHODS[method](a, b)
    about = {"method": method, "from": len(a), "to": len(b), "accuracy": accuracy}
    return Direction(found.vector, found.weight, found.bias, about)


def place(name: str) -> str:
    """The folder of a direction. Raises UserError for a name that is not a plain word."""
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name for a direction: use letters, digits, - and _")
    return f"{FOLDER}/{name}"


def vacant(run: Path, name: str, replace: bool) -> None:
    """Raises UserError where a direction would be overwritten unasked."""
    if (run / place(name)).exists() and not replace:
        raise UserError(f"{run / place(name)} exists: choose another name, or add --force")


def write(
    run: Path,
    name: str,
    direction: Direction,
    *,
    replace: bool = False,
    weights: str | None = None,
) -> Path:
    """Save with the run, whole or not at all. weights: of the model it was found in, by default the
    run's (`kept.write`)."""
    vacant(run, name, replace)
    tensors = {
        "vector": direction.vector,
        "weight": direction.weight,
        "bias": torch.tensor([direction.bias], dtype=torch.float64),
    }
    return kept.write(run, place(name), tensors, direction.about, weights)


def read(run: Path, name: str, weights: str | None = None) -> Direction:
    """A saved direction. weights: as for `write`. Raises UserError where there is none, or it is
    damaged or stale."""
    if not (run / place(name)).is_dir():
        known = ", ".join(names(run)) or "none yet; `midsentence direction` makes one"
        raise UserError(f"there is no direction {name!r} in {run}. There are: {known}")
    tensors, about = kept.read(run, place(name), weights=weights)
    found = [tensors.get(key, torch.empty(0)) for key in ("vector", "weight", "bias")]
    vector, weight, bias = found
    sizes = [tuple(value.shape) for value in found]
    if sizes != [(len(vector.flatten()),)] * 2 + [(1,)] or not torch.cat(found).isfinite().all():
        raise UserError(f"{run / place(name)} is no direction: make it again")
    return Direction(vector, weight, float(bias[0]), about)


def names(run: Path) -> list[str]:
    folder = run / FOLDER
    there = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return sorted(name for name in there if NAME.fullmatch(name))


STEPS, LEAST_BETA, MOST_BETA = 100, 0.1, 20.0


def toward(
    z: Float[Tensor, "D"],
    wanted: Sequence[tuple[Direction, bool]],
    scale: Float[Tensor, "D"],
    *,
    method: str = "gradient",
    near: float = 0.1,
) -> Float[Tensor, "D"]:
    """z moved until several classifiers agree: (direction, whether its second kind is wanted).

    In u = z / scale, scale being the spread of all latents. ``gradient``: the u that maximises
    sum_i log p(a_i|u) - near |u - u_0|^2 / 2, a concave function, by L-BFGS. ``ode``: LatentOps
    (Liu et al. 2022, "Composable Text Controls in Latent Space with ODEs"), the probability flow of
    a diffusion whose noise is that of a Gaussian law of u, so that only the classifiers remain,
    du/dt = -beta(t)/2 sum_i grad log p(a_i|u), from t = 1 to 0, by Heun's rule. Raises UserError.
    """
    if method not in ("gradient", "ode"):
        raise UserError(f"method {method!r} is not one of gradient, ode")
    if not wanted:
        raise UserError("name at least one direction to go along")
    sign = torch.tensor([1.0 if yes else -1.0 for _, yes in wanted]).to(scale).double()
    weight = torch.stack([d.weight.to(scale) for d, _ in wanted]).double() * scale.double()
    bias = torch.tensor([d.bias for d, _ in wanted]).to(sign)
    begin = z.double() / scale.double()

    def slope(u: Tensor) -> Tensor:
        """Gradient of sum_i log sigmoid(s_i (w_i u + b_i))."""
        return (sign * torch.sigmoid(-sign * (weight @ u + bias))) @ weight

    if method == "gradient":
        found = greatest(lambda u: logsigmoid(sign * (weight @ u + bias)).sum()
                         - 0.5 * near * (u - begin).square().sum(), begin)  # fmt: skip
    else:
        found = begin
        times = torch.linspace(1, 0, STEPS + 1).tolist()
        for now, then in pairwise(times):
            speed = [0.5 * (LEAST_BETA + t * (MOST_BETA - LEAST_BETA)) for t in (now, then)]
            first = speed[0] * slope(found)
            second = speed[1] * slope(found + (now - then) * first)
            found = found + (now - then) * (first + second) / 2
    return (found * scale.double()).to(z)

"""Space: a model and the sentences that it learned from, to move about among."""

import math
import sys
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import cloud as clouds
from . import directions, latent
from .answers import Cluster, Neighbour, Outlier, Written
from .bundle import TextVAE
from .cloud import Cloud
from .directions import Direction
from .errors import UserError
from .latent import Aggregate, unit

Place = str | Float[Tensor, "D"]
"""A sentence, or a z."""

THINNED = 2000

FAR = 0.995
"""A point is far from the data when it's farther than this share of the held-out sentences."""


class Space:
    """A latent space with the sentences in it.

    cloud: training sentences, whose aggregate posterior q(z) says where the data is. held: other
    sentences, which say how far from it is usual. A place is a sentence or a z. Methods that write
    text take the keywords of `generate.Decoding`, and write greedily without them. label: of the
    sentences that are asked about, in a model with labels.
    """

    def __init__(
        self, cloud: Cloud, held: Cloud, model: TextVAE | None = None, *, label: str | None = None
    ):
        self.cloud, self.held, self.label, self._model = cloud, held, label, model
        self.q = Aggregate(cloud.mean, cloud.variance)

    @classmethod
    def open(
        cls,
        run: str | Path,
        *,
        model: TextVAE | None = None,
        sentences: int = clouds.SENTENCES,
        seed: int = 0,
        label: str | None = None,
    ) -> "Space":
        """A run's space; its corpus must be in it. Raises UserError."""
        run = Path(run)
        model = model or TextVAE.from_pretrained(run, prior="own")
        cloud = clouds.of_run(model, run, "train", sentences, seed)
        return cls(cloud, clouds.of_run(model, run, "valid", clouds.HELD, seed), model, label=label)

    @property
    def model(self) -> TextVAE:
        if self._model is None:
            raise UserError("this space has no model to read or write sentences with")
        return self._model

    # Where things are.

    def at(self, place: Place) -> Float[Tensor, "D"]:
        """The posterior mean of a sentence; a z is where it is. Raises UserError for a z of another
        size or not finite."""
        if isinstance(place, str):
            return self.all_at([place])[0]
        if place.shape != self.cloud.mean.shape[1:] or not place.isfinite().all():
            raise UserError(f"z must be {self.cloud.mean.shape[1]} finite numbers in this model")
        return place.to(self.cloud.mean)

    def all_at(self, lines: Sequence[str]) -> Float[Tensor, "N D"]:
        return self.model.encode(lines, label=self.label).to(self.cloud.mean)

    def own(self, text: str) -> Cloud:
        """A sentence's own posterior."""
        return clouds.of_lines(self.model, [text], self.label)

    def on(self, z: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """z where z can be: the sphere is a model's own, all else is flat."""
        return unit(z) if self.cloud.sphere else z

    @cached_property
    def usual(self) -> dict[bool, Float[Tensor, "M"]]:
        """-log q(z) of the held-out sentences: at their means, and at draws (True); sorted."""
        held = {False: self.held.mean, True: self.held.draw}
        return {drawn: self.surprise(z).sort().values for drawn, z in held.items()}

    @cached_property
    def thinned(self) -> Aggregate:
        """q(z) of `THINNED` sentences drawn by chance, which is enough to lay a path by."""
        chance = torch.Generator().manual_seed(0)
        rows = torch.randperm(len(self.cloud), generator=chance)[:THINNED].to(
            self.cloud.mean.device
        )
        return Aggregate(self.cloud.mean[rows], self.cloud.variance[rows])

    def surprise(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N"]:
        """-log q(z) in nats, q the aggregate posterior of the training sentences."""
        return -self.q.log_density(z.to(self.cloud.mean.device))

    def beyond(self, z: Float[Tensor, "N D"], *, drawn: bool = False) -> Float[Tensor, "N"]:
        """The share of held-out sentences that are nearer to the data than z: at less surprise.

        Like is compared with like: what was made of posterior means with means, what has noise in
        it (`drawn`) with draws from posteriors.
        """
        usual = self.usual[drawn]
        return torch.searchsorted(usual, self.surprise(z)).double() / len(usual)

    def far(self, z: Float[Tensor, "N D"], *, drawn: bool = False) -> list[bool]:
        return [self.is_far(share) for share in self.beyond(z, drawn=drawn).tolist()]

    def is_far(self, beyond: float) -> bool:
        return beyond > FAR

    def warning(self, beyond: float) -> str:
        """A sentence about a point that is far."""
        return (
            f"farther from the training sentences than {100 * beyond:.1f} % of the "
            f"{len(self.held):,} held-out sentences: what is written there means little"
        )

    def written(
        self, z: Float[Tensor, "N D"], *, drawn: bool = False, seed: int = 0, **decoding: Any
    ) -> list[Written]:
        """A sentence for each z, and whether it's far from the data."""
        z = self.on(z)
        lines = self.model.decode(z.cpu(), label=self.label, seed=seed, **decoding)
        shares = self.beyond(z, drawn=drawn).tolist()
        return [
            Written(line, point, share, self.is_far(share), i / max(1, len(lines) - 1))
            for i, (line, point, share) in enumerate(zip(lines, z, shares, strict=True))
        ]

    # Moves.

    def interpolate(
        self, a: Place, b: Place, steps: int = 7, *, path: str = "linear", **decoding: Any
    ) -> list[Written]:
        """On the way from a to b: ``linear``, ``spherical`` or along the ``density``."""
        ends = self.at(a), self.at(b)
        if path == latent.DENSITY and steps >= 2:
            points = latent.along_density(self.thinned, *ends, steps, sphere=self.cloud.sphere)
        else:
            points = latent.path(path, *ends, steps)
        return self.written(points, **decoding)

    def analogy(self, a: Place, b: Place, c: Place, **decoding: Any) -> Written:
        """What is to c as b is to a: z_c + z_b - z_a (Mikolov et al. 2013)."""
        return self.written((self.at(c) + self.at(b) - self.at(a))[None], **decoding)[0]

    def edit(
        self, text: Place, direction: Direction, strength: float = 1.0, **decoding: Any
    ) -> Written:
        """z + strength * direction; 1 is as far as the two kinds' means are apart."""
        z = self.at(text)
        return self.written((z + strength * direction.vector.to(z))[None], **decoding)[0]

    def toward(
        self,
        text: Place,
        wanted: Sequence[tuple[Direction, bool]],
        *,
        method: str = "gradient",
        near: float = 0.1,
        **decoding: Any,
    ) -> Written:
        """Toward several attributes at once: `directions.toward`, by ``gradient`` or ``ode``."""
        spread = self.cloud.mean.var(0, correction=0) + self.cloud.variance.mean(0)
        z, scale = self.at(text), spread.sqrt()
        found = directions.toward(z, wanted, scale, method=method, near=near)
        return self.written(found[None], **decoding)[0]

    def vary(
        self, text: str, n: int = 8, radius: float = 1.0, *, seed: int = 0, **decoding: Any
    ) -> list[Written]:
        """n sentences about one: its mean plus `radius` posterior standard deviations of noise;
        1 is the sentence's own posterior, where that is a Gaussian with a diagonal covariance."""
        own = self.own(text)
        chance = torch.Generator().manual_seed(seed)
        noise = torch.randn(n, own.mean.shape[1], generator=chance).to(own.mean)
        z = own.mean + radius * own.variance.sqrt() * noise
        return self.written(z, drawn=True, seed=seed, **decoding)

    def active(self, count: int) -> Int[Tensor, "C"]:
        """The dimensions whose posterior means vary most (Burda et al. 2016), the first first."""
        spread = self.cloud.mean.var(0, correction=0)
        return spread.argsort(descending=True, stable=True)[:count]

    def traverse(
        self, text: Place, count: int = 3, steps: int = 5, span: float = 2.0, **decoding: Any
    ) -> dict[int, list[Written]]:
        """Each of the `count` most active dimensions from -span to span standard deviations about
        the data's mean, the others as in `text` (Higgins et al. 2017, latent traversals)."""
        z, found = self.at(text), {}
        loc, scale = self.cloud.mean.mean(0), self.cloud.mean.std(0, correction=0)
        for d in self.active(count).tolist():
            points = z.repeat(steps, 1)
            points[:, d] = loc[d] + scale[d] * torch.linspace(-span, span, steps).to(z)
            found[d] = self.written(points, **decoding)
        return found

    def denoise(
        self, lines: Sequence[str], strength: float = 0.5, steps: int = 1, **decoding: Any
    ) -> list[Written]:
        """Each sentence after `steps` steps of `strength` of a mean shift, toward where q(z) is
        greater (`Aggregate.shifted`); 0 is a plain reconstruction."""
        z = self.all_at(lines)
        for _ in range(steps):
            z = self.on(z + strength * (self.q.shifted(z) - z))
        return self.written(z, **decoding)

    # What is known of the sentences.

    def neighbours(self, place: Place, n: int = 10) -> list[Neighbour]:
        """The n nearest training sentences, exactly; a sentence counts once, under a label once."""
        if n < 1:
            raise UserError("the number of neighbours must be at least 1")
        found = latent.nearest_unlike(self.at(place), self.cloud.mean, n, self._named)
        return [Neighbour(text, far, label) for (text, label), far in found.items()]

    def _named(self, rows: list[int]) -> list[tuple[str, str | None]]:
        """Training sentences and their labels."""
        known = self.cloud.label
        label = [-1] * len(rows) if known is None else known[torch.tensor(rows)].tolist()
        names = [self.cloud.names[y] if y >= 0 else None for y in label]
        return list(zip(self.cloud.text(rows), names, strict=True))

    def labelled(self, name: str) -> Float[Tensor, "N D"]:
        """Means of a label's training sentences, of each once however often it is there, and read
        without it, or it would be read off again. Raises UserError for a label there is not."""
        if name not in self.cloud.names or self.cloud.label is None:
            known = ", ".join(self.cloud.names) or "none: it was trained without --label-field"
            raise UserError(f"there is no label {name!r} in this run's corpus. There are: {known}")
        rows = (self.cloud.label == list(self.cloud.names).index(name)).nonzero()[:, 0].tolist()
        first = dict(zip(reversed(self.cloud.text(rows)), reversed(rows), strict=True))
        if self._model is not None and self.model.labels:
            return self.all_at(list(first))
        return self.cloud.mean[sorted(first.values())]

    def direction(
        self,
        a: Sequence[str] | Float[Tensor, "N D"],
        b: Sequence[str] | Float[Tensor, "M D"],
        method: str = "probe",
    ) -> Direction:
        """From sentences like a to sentences like b: `directions.fit`. A line counts once."""
        sides = [
            side if isinstance(side, Tensor) else self.all_at(list(dict.fromkeys(side)))
            for side in (a, b)
        ]
        return directions.fit(sides[0], sides[1], method)

    def outliers(
        self, lines: Sequence[str], *, by: str = "nll", samples: int = 50, seed: int = 0
    ) -> list[Outlier]:
        """Sentences, the strangest first: by NLL a token, or by distance from the data."""
        if by not in ("nll", "distance"):
            raise UserError(f"--by {by} is not one of nll, distance")
        z = self.all_at(lines)
        scores = self.model.score(lines, samples, label=self.label, seed=seed)
        if by == "nll" and any(math.isnan(s.log_px) for s in scores):
            raise UserError("this prior has no likelihood: --own-prior, or --by distance")
        distances, shares = self.surprise(z).tolist(), self.beyond(z).tolist()
        found = [
            Outlier(s.text, -s.log_px, s.tokens, distance, share, self.is_far(share))
            for s, distance, share in zip(scores, distances, shares, strict=True)
        ]
        measure = (lambda o: o.nll / o.tokens) if by == "nll" else (lambda o: o.distance)
        return sorted(found, key=measure, reverse=True)

    def cluster(
        self,
        count: int,
        lines: Sequence[str] | None = None,
        *,
        examples: int = 3,
        seed: int = 0,
        **decoding: Any,
    ) -> list[Cluster]:
        """k-means of `lines`, or of the training sentences; the largest cluster first."""
        points = self.cloud.mean if lines is None else self.all_at(lines)
        text = self.cloud.text if lines is None else lambda rows: [lines[i] for i in rows]
        centres, label = latent.kmeans(points, count, seed=seed, sphere=self.cloud.sphere)
        found = []
        for number, centre in enumerate(self.written(centres, **decoding)):
            rows = (label == number).nonzero()[:, 0]
            if not len(rows):
                continue
            own = partial(_among, rows, text)
            close = latent.nearest_unlike(centres[number], points[rows], examples, own)
            found.append(Cluster(len(rows), centre, list(close)))
        return sorted(found, key=lambda c: c.size, reverse=True)


def _among(rows: Tensor, text: Callable[[list[int]], list[str]], some: list[int]) -> list[str]:
    return text(rows[some].tolist())


def open_if_it_can(run: Path, model: TextVAE, sentences: int) -> Space | None:
    """The space of a run; None, with a line on stderr that says why, where there is none."""
    try:
        return Space.open(run, model=model, sentences=sentences)
    except UserError as error:
        print(f"no map: {error}", file=sys.stderr)
        return None

"""Atlas: the map of a corpus. Points on a plane, and what they can be coloured by."""

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import latent
from ..cloud import of_lines
from ..errors import UserError
from ..measuring.survey import InMemory, survey
from ..space import Space
from .engine import Engine, Stopped

CLUSTERS, FITTED = 12, 5000
"""Of the map's colours, and the points they are found from."""

SLICE = 512
"""Sentences whose NLL is found at once; between two slices requests have their turn."""

NEAR = 8
"""Points that say where a place of the UMAP view is in the latent space."""


def umap_package() -> Any:
    """Raises UserError without the extra ``map``."""
    try:
        import umap
    except ImportError as error:
        text = f"UMAP needs {error.name}: pip install 'midsentence[map]'"
        raise UserError(text) from None
    return umap


@dataclass(frozen=True)
class View:
    """x, y of each point, and back: a place on the plane -> z."""

    xy: Float[np.ndarray, "N 2"]


@dataclass
class Atlas:
    """N points: training sentences, then `extra` ones of a file. label: indices into `names`."""

    space: Space
    lines: list[str]
    mean: Float[Tensor, "N D"]
    label: list[int]
    held: list[int]
    views: dict[str, View] = field(default_factory=dict)
    nll: Float[np.ndarray, "N"] = field(default_factory=lambda: np.zeros(0))
    done: int = 0

    @classmethod
    def of(cls, space: Space, extra: Sequence[str] = ()) -> "Atlas":
        """PCA at once; the UMAP view if that package is installed and asked for (`add_umap`)."""
        cloud = space.cloud
        lines = [*cloud.text(range(len(cloud))), *extra]
        mean, label = cloud.mean, [-1] * len(cloud)
        if cloud.label is not None:
            label = cloud.label.tolist()
        if extra:
            mean = torch.cat([mean, of_lines(space.model, extra, space.label).mean.to(mean)])
        atlas = cls(
            space, lines, mean, label + [-1] * len(extra), [0] * len(cloud) + [1] * len(extra)
        )
        atlas.views["pca"] = View(atlas.project(mean))
        atlas.nll = np.full(len(lines), np.nan)
        return atlas

    def __len__(self) -> int:
        return len(self.lines)

    @cached_property
    def plane(self) -> tuple[Float[Tensor, "D"], Float[Tensor, "D 2"]]:
        """Centre and the two axes along which the training sentences vary most (PCA)."""
        centre = self.space.cloud.mean.mean(0)
        covariance = (self.space.cloud.mean - centre).T.cov(correction=0)
        covariance = covariance.reshape(len(centre), -1)  # a single number, where D is 1
        spread = torch.linalg.eigh(covariance)
        axes = spread.eigenvectors[:, -2:].flip(1)
        if axes.shape[1] < 2:
            axes = torch.cat([axes, torch.zeros_like(axes)], 1)
        # The sign is arbitrary: the largest part is positive, so that a map looks the same twice.
        largest = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
        return centre, axes * torch.where(largest == 0, 1, largest)

    def project(self, z: Float[Tensor, "N D"]) -> Float[np.ndarray, "N 2"]:
        centre, axes = self.plane
        found: np.ndarray = ((z - centre) @ axes).double().cpu().numpy()
        return found

    def at(self, x: float, y: float, view: str) -> Float[Tensor, "D"]:
        """A place of a view as z. In PCA's plane: there, all other directions at their mean. In
        another: a mean of the nearest points, the nearer the more. Raises UserError."""
        if view not in self.views:
            raise UserError(f"there is no view {view!r} of this map")
        centre, axes = self.plane
        if view == "pca":
            return self.space.on(centre + axes @ torch.tensor([x, y]).to(axes))
        away = np.square(self.views[view].xy - np.array([x, y])).sum(1)
        near = np.argpartition(away, min(NEAR, len(away) - 1))[:NEAR]
        weight = torch.tensor(1 / (away[near] + 1e-12)).to(self.mean)
        return self.space.on((weight / weight.sum()) @ self.mean[torch.from_numpy(near)])

    def add_umap(self) -> None:
        """McInnes, Healy & Melville 2018. Raises UserError without the extra ``map``."""
        umap = umap_package()
        with warnings.catch_warnings():  # that a seed means one thread is what we want
            warnings.simplefilter("ignore", UserWarning)
            found = umap.UMAP(random_state=0).fit_transform(self.mean.float().cpu().numpy())
        self.views["umap"] = View(np.asarray(found, dtype=np.float64))

    @cached_property
    def clusters(self) -> Int[Tensor, "N"]:
        """k-means by a part of the points; every point is of the nearest centre."""
        count = min(CLUSTERS, len(self))
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        chosen = self.mean[order[:FITTED].to(self.mean.device)]
        centres, _ = latent.kmeans(chosen, count, seed=0, sphere=self.space.cloud.sphere)
        return torch.cdist(self.mean, centres).argmin(1)

    @cached_property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.space.model.tokenizer.encode(self.lines)]

    def find_nll(self, engine: Engine) -> threading.Thread:
        """Fill in `nll`, nats a token by one posterior sample, slice by slice in the background."""

        def work() -> None:
            model, names = self.space.model, [*self.space.cloud.names, None]
            labels = [names[i] for i in self.label]  # None for -1
            for start in range(0, len(self), SLICE):
                rows = slice(start, min(start + SLICE, len(self)))
                own = labels[rows] if model.labels else None
                sentences = model.ids(self.lines[rows], own)

                def measured(sentences: InMemory = sentences) -> Tensor:
                    found = survey(model.vae, sentences)
                    return (found.log_qz - found.log_pz - found.log_px).cpu()

                try:
                    values = engine.call(measured, patient=True).double().numpy()
                except Stopped:
                    return
                self.nll[rows] = values / (np.array(self.lengths[rows]) + 1)
                self.done = rows.stop

        thread = threading.Thread(target=work, name="nll of the map", daemon=True)
        thread.start()
        return thread

    def told(self) -> dict[str, Any]:
        xy, (centre, axes) = self.views["pca"].xy.round(4), self.plane
        return {
            "count": len(self),
            "views": list(self.views),
            "x": xy[:, 0].tolist(),
            "y": xy[:, 1].tolist(),
            "text": self.lines,
            "label": self.label,
            "label_names": list(self.space.cloud.names),
            "length": self.lengths,
            "cluster": self.clusters.tolist(),
            "held": self.held,
            "plane": {
                "centre": centre.tolist(),
                "x": axes[:, 0].tolist(),
                "y": axes[:, 1].tolist(),
            },
        }

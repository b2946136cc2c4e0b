"""What the routes of a service share."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..directions import Direction
from ..errors import UserError
from ..space import Written
from . import schemas as ask
from .card import Card
from .engine import Engine, SharedSpace, SharedVAE
from .metrics import Metrics


def told(written: Written) -> dict[str, Any]:
    return asdict(written) | {"z": written.z.tolist()}


def all_told(found: list[Written]) -> list[dict[str, Any]]:
    return [told(w) for w in found]


@dataclass
class Service:
    """space: None for a run without its corpus, or a language model."""

    model: SharedVAE
    space: SharedSpace | None
    card: Card
    engine: Engine
    metrics: Metrics
    directions: dict[str, Direction]

    @property
    def why(self) -> str:
        """There is no map."""
        if self.model.latent == 0:
            return "this is a language model: it has no latent space"
        return "this run has no corpus"

    def place(self, where: str | list[float]) -> Any:
        """A sentence as it is, a list of numbers as z. Raises UserError for another size."""
        if isinstance(where, str):
            return where
        z = torch.tensor(where, dtype=torch.float32)
        if len(z) != self.model.latent:
            raise UserError(f"z must have {self.model.latent} numbers in this model, not {len(z)}")
        return z

    def around(self, label: str | None) -> SharedSpace:
        if self.space is None:
            raise UserError(f"{self.why} to move about in")
        return self.space.labelled_as(label)

    def written(self, z: Tensor, asked: ask.Writing) -> list[dict[str, Any]]:
        """A sentence for each z, and how far that is from the data where it is known."""
        how = asked.decoding()
        if self.space is not None:
            z = z.to(self.space.cloud.mean)
            return all_told(self.around(asked.label).written(z, seed=asked.seed, **how))
        texts = self.model.decode(z, label=asked.label, seed=asked.seed, **how)
        return [{"text": text, "z": row.tolist()} for text, row in zip(texts, z, strict=True)]

    def direction(self, name: str) -> Direction:
        if name not in self.directions:
            known = ", ".join(self.directions) or "none yet"
            raise UserError(f"there is no direction {name!r}. There are: {known}")
        return self.directions[name]

"""What the routes of a service share."""

from dataclasses import dataclass
from typing import Any

import torch

from ..directions import Direction
from ..errors import UserError
from .card import Card
from .engine import Engine, SharedSpace, SharedVAE
from .metrics import Metrics


@dataclass
class Service:
    """space: None for a run without its corpus, or a language model."""

    model: SharedVAE
    space: SharedSpace | None
    card: Card
    engine: Engine
    metrics: Metrics
    directions: dict[str, Direction]

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
            raise UserError("this run has no latent space with its corpus in it")
        return self.space.labelled_as(label)

    def direction(self, name: str) -> Direction:
        if name not in self.directions:
            known = ", ".join(self.directions) or "none yet"
            raise UserError(f"there is no direction {name!r}. There are: {known}")
        return self.directions[name]

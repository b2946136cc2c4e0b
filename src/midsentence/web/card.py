"""What a run is, for people and programs that talk to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundle import TextVAE
from ..evaluation import evaluations
from ..space import Space

ACTIVE = 32
"""Dimensions named, the most active first."""


@dataclass(frozen=True)
class Card:
    about: dict[str, Any]

    @classmethod
    def of(cls, run: Path, model: TextVAE, space: Space | None, **more: Any) -> "Card":
        config = model.config
        about: dict[str, Any] = {
            "name": run.resolve().name,
            "weights": model.weights,
            "latent": model.latent,
            "labels": model.labels,
            "tokenizer": model.tokenizer.kind,
            "vocabulary": model.tokenizer.vocab_size,
            "parameters": model.parameters,
            **{part: getattr(config, part)["kind"]
               for part in ("encoder", "posterior", "prior", "decoder")},
            "fitted_prior": None if model.fitted is None else model.fitted.kind,
            "evaluation": evaluations(run) or None,
            "sentences": 0,
        }  # fmt: skip
        if space is not None:
            mean = space.cloud.mean
            about |= {
                "sentences": len(space.cloud),
                "active": space.active(min(ACTIVE, model.latent)).tolist(),
                "loc": mean.mean(0).tolist(),
                "scale": mean.std(0, correction=0).tolist(),
            }
        return cls(about | more)

    def told(self, directions: list[str]) -> dict[str, Any]:
        return self.about | {"directions": directions}

"""The fitted prior of a run, in its folder ``prior``: settings, weights, and what it belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from . import kept
from .config import part
from .errors import UserError
from .learning.kinds import PARTS, build
from .weights import build as rebuilt

FOLDER = "prior"


@dataclass(frozen=True)
class FittedPrior:
    """A prior part with its settings, `kind` among them."""

    settings: Mapping[str, Any]
    part: nn.Module

    @property
    def kind(self) -> str:
        return str(self.settings["kind"])


def vacant(run: Path, replace: bool) -> None:
    """Raises UserError where a fitted prior would be overwritten unasked."""
    if (run / FOLDER).exists() and not replace:
        raise UserError(f"{run / FOLDER} holds a fitted prior: add --force to replace it")


def write(
    run: Path, fitted: FittedPrior, *, replace: bool = False, weights: str | None = None
) -> Path:
    """Write ``run/prior``, whole or not at all. Raises UserError where one is in the way.

    weights: of the model it was fitted to, by default the run's (`kept.write`).
    """
    vacant(run, replace)
    return kept.write(run, FOLDER, fitted.part.state_dict(), {"prior": fitted.settings}, weights)


def about(run: Path, weights: str | None = None) -> dict[str, Any] | None:
    """What is said of the fitted prior of a run, if there is one. Raises UserError where it is
    damaged or stale."""
    if not (run / FOLDER).exists():
        return None
    again = f"fit it again (midsentence fit-prior {run} --kind KIND --force), or use --own-prior"
    return kept.about(run, FOLDER, again, weights)


def read(run: Path, latent: int, weights: str | None = None) -> FittedPrior | None:
    """The fitted prior of a run, if there is one. Raises UserError where it is damaged or stale."""
    said = about(run, weights)
    if said is None:
        return None
    held = said.get("prior", {})
    settings = part("prior", PARTS, held if isinstance(held, dict) else {})
    made = rebuilt(
        lambda: build(settings, latent),
        {"latent": latent, **settings},
        run / FOLDER / kept.TENSORS,
    )
    return FittedPrior(settings, made.eval())

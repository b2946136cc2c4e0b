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


def write(run: Path, fitted: FittedPrior, *, replace: bool = False) -> Path:
    """Write ``run/prior``, whole or not at all. Raises UserError where one is in the way."""
    vacant(run, replace)
    return kept.write(run, FOLDER, fitted.part.state_dict(), {"prior": fitted.settings})


def read(run: Path, latent: int) -> FittedPrior | None:
    """The fitted prior of a run, if there is one. Raises UserError where it is damaged or stale."""
    if not (run / FOLDER).exists():
        return None
    again = f"fit it again (midsentence fit-prior {run} --kind KIND --force), or use --own-prior"
    tensors, about = kept.read(run, FOLDER, again)
    settings = part("prior", PARTS, about.get("prior", {}), [])
    made = build(settings, latent)
    try:
        made.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(f"{run / FOLDER}: weights do not fit its settings; fit it again") from None
    return FittedPrior(settings, made.eval())

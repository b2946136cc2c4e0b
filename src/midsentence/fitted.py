"""The fitted prior of a run, in its folder ``prior``: settings, weights, and what it belongs to."""

import os
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from torch import nn

from .config import part
from .errors import UserError
from .learning import checkpoint
from .learning.kinds import PARTS, build

FOLDER = "prior"
FILES = ["prior.toml", "prior.safetensors"]


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
    """Write ``run/prior``, whole or not at all. Raises UserError where one is in the way.

    It is bound to the model by the SHA-256 of its weights: of other weights it is no prior.
    """
    vacant(run, replace)
    target = run / FOLDER
    temporary = run / f".{FOLDER}.{os.getpid()}.part"
    content = {"model": checkpoint.digest(run / "model.safetensors"), "prior": fitted.settings}
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        text = tomli_w.dumps(content)
        checkpoint.write_whole(temporary / "prior.toml", lambda p: p.write_text(text, "utf-8"))
        checkpoint.save_tensors(fitted.part.state_dict(), temporary / "prior.safetensors")
        checkpoint.write_manifest(temporary, FILES)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    checkpoint.flush(run)
    return target


def read(run: Path, latent: int) -> FittedPrior | None:
    """The fitted prior of a run, if there is one. Raises UserError where it is damaged or stale."""
    folder = run / FOLDER
    if not folder.exists():
        return None
    checkpoint.verify(folder)
    try:
        content = tomllib.loads((folder / "prior.toml").read_text("utf-8"))
        model, settings = content["model"], part("prior", PARTS, content["prior"], [])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder}/prior.toml cannot be read; fit it again with --force") from None
    if model != checkpoint.digest(run / "model.safetensors"):
        raise UserError(
            f"{folder} was fitted to other weights than the model's: fit it again "
            f"(midsentence fit-prior {run} --kind {settings['kind']} --force), or use --own-prior"
        )
    made = build(settings, latent)
    tensors = checkpoint.load_tensors(folder / "prior.safetensors")
    try:
        made.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(f"{folder}: weights do not fit prior.toml; fit it again") from None
    return FittedPrior(settings, made.eval())

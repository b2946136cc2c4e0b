"""What is kept beside a model in its run: folders of tensors and TOML, bound to its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from torch import Tensor

from .errors import UserError
from .learning.checkpoint import save_tensors
from .opening import digest, parse_toml, read_text, verify
from .weights import load_tensors
from .writing import clean, whole_folder

WEIGHTS = "model.safetensors"
FILES = TENSORS, ABOUT = "tensors.safetensors", "about.toml"


def write(
    run: Path,
    folder: str,
    tensors: Mapping[str, Tensor],
    about: Mapping[str, Any],
    weights: str | None = None,
) -> Path:
    """Write ``run/folder``, whole or not at all, in place of what is there.

    It is bound to the model by the SHA-256 of its weights: beside others it means nothing. weights:
    that of the model it was made with, for a run that is still trained has others by now; by
    default that of the run's.
    """
    content = {"model": weights or digest(run / WEIGHTS), **about}
    clean((run / folder).parent)
    with whole_folder(run / folder, FILES) as temporary:
        (temporary / ABOUT).write_text(tomli_w.dumps(content), "utf-8")
        save_tensors(tensors, temporary / TENSORS)
    return run / folder


def read(
    run: Path, folder: str, weights: str | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, what is said of them). Raises UserError where damaged, or of another model.

    weights: as for `write`.
    """
    said = about(run, folder, weights=weights)
    return load_tensors(run / folder / TENSORS), said


def about(
    run: Path, folder: str, again: str = "make it again", weights: str | None = None
) -> dict[str, Any]:
    """What is said of the tensors, all checked; `again` is what to do where it is of another model.
    Raises UserError."""
    target = run / folder
    verify(target, FILES)
    said = parse_toml(read_text(target / ABOUT), f"{target}/{ABOUT}")
    if said.pop("model", None) != (weights or digest(run / WEIGHTS)):
        raise UserError(f"{target} was made with other weights than the model's: {again}")
    return said

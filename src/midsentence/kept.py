"""What is kept beside a model in its run: folders of tensors and TOML, bound to its weights."""

import os
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from torch import Tensor

from .errors import UserError
from .learning import checkpoint

TENSORS, ABOUT = "tensors.safetensors", "about.toml"


def write(run: Path, folder: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """Write ``run/folder``, whole or not at all, in place of what is there.

    It is bound to the model by the SHA-256 of its weights: beside others it means nothing.
    """
    target = run / folder
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    content = {"model": checkpoint.digest(run / "model.safetensors"), **about}
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        text = tomli_w.dumps(content)
        checkpoint.write_whole(temporary / ABOUT, lambda p: p.write_text(text, "utf-8"))
        checkpoint.save_tensors(tensors, temporary / TENSORS)
        checkpoint.write_manifest(temporary, [ABOUT, TENSORS])
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    checkpoint.flush(target.parent)
    return target


def read(
    run: Path, folder: str, again: str = "make it again"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, what is said of them). Raises UserError where damaged, or of another model.

    again: what to do then.
    """
    target = run / folder
    checkpoint.verify(target)
    try:
        about = tomllib.loads((target / ABOUT).read_text("utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{target}/{ABOUT} cannot be read: {again}") from None
    if about.pop("model", None) != checkpoint.digest(run / "model.safetensors"):
        raise UserError(f"{target} was made with other weights than the model's: {again}")
    return checkpoint.load_tensors(target / TENSORS), about

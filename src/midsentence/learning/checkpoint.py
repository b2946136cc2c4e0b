"""Checkpoints: everything a run needs to go on exactly where it was. safetensors and JSON only."""

import errno
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..errors import UserError
from ..opening import Newer, read_json, verify
from ..processes import like
from ..weights import load_tensors
from ..writing import clean, whole_folder

KEPT = 2
FILES = ("tensors.safetensors", "state.json")


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises OSError, also where safetensors has an error of its own."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.touch()
    usual = path.stat().st_mode  # safetensors itself would let nobody but the owner read
    try:
        save_file(held, path)
        path.chmod(usual)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(path)) from None


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write ``folder/step-000123`` and drop all but the newest two.

    A second one of the same step is ``step-000123.2``: nothing has to go to make room for it.
    """
    target, again = folder / f"step-{step:06d}", 1
    while target.exists():
        again += 1
        target = folder / f"step-{step:06d}.{again}"
    with whole_folder(target, FILES) as temporary:
        save_tensors(tensors, temporary / FILES[0])
        (temporary / FILES[1]).write_text(json.dumps(state, indent=1))
    clean(folder)
    for old in _newest_first(folder)[KEPT:]:
        shutil.rmtree(old)
    return target


def latest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """(tensors, state) of the newest checkpoint that is whole, or None if there is none at all.

    Raises UserError where there are some and none is whole, or where a newer version wrote one.
    """
    path = None
    for path in _newest_first(folder):
        try:
            verify(path, FILES)
            return load_tensors(path / FILES[0]), read_json(path / FILES[1])
        except Newer:
            raise
        except UserError:
            continue
    if path is not None:
        raise UserError(f"{folder}: no checkpoint is whole: copy the run afresh, or begin another")
    return None


def _newest_first(folder: Path) -> list[Path]:
    found = [p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+(\.\d+)?", p.name)]
    return sorted(found, key=lambda p: [int(n) for n in p.name[5:].split(".")], reverse=True)


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Optimisers' state as named tensors, ``optimizer.<which>.<parameter>.<name>``, as held."""
    return {
        f"optimizer.{which}.{index}.{name}": torch.as_tensor(value)
        for which, optimizer in enumerate(optimizers)
        for index, held in optimizer.state_dict()["state"].items()
        for name, value in held.items()
        if value is not None
    }


def restore_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]
) -> None:
    for which, optimizer in enumerate(optimizers):
        prefix = f"optimizer.{which}."
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith(prefix):
                index, name = key.removeprefix(prefix).split(".", 1)
                state.setdefault(int(index), {})[name] = tensor
        groups = optimizer.state_dict()["param_groups"]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for place, own in state.items():
            for what, value in own.items():
                if value.shape == parameters[place].shape:
                    own[what] = like(value, parameters[place])
        optimizer.load_state_dict({"state": state, "param_groups": groups})

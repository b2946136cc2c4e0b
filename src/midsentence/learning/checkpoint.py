"""Checkpoints: everything a run needs to go on exactly where it was. safetensors and JSON only.

A checkpoint is a folder that appears whole or not at all: it is written under another name, flushed
to the disk, and renamed. Its manifest holds the SHA-256 of each file.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import UserError

KEPT = 2


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, write: Any) -> None:
    """Call ``write(temporary path)``, then put the result in place of `path` in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    write(temporary)
    flush(temporary)
    temporary.replace(path)
    flush(path.parent)


def write_manifest(folder: Path, names: list[str]) -> None:
    """``manifest.json``: format version and SHA-256 of each named file."""
    content = {"format": 1, "files": {name: digest(folder / name) for name in names}}
    write_whole(folder / "manifest.json", lambda p: p.write_text(json.dumps(content, indent=1)))


def verify(folder: Path) -> None:
    """Check a folder against its manifest. Raises UserError naming the damaged file."""
    try:
        content = json.loads((folder / "manifest.json").read_text("utf-8"))
        version, files = content["format"], dict(content["files"])
    except FileNotFoundError:
        raise UserError(f"{folder}: no manifest.json, so this is not a finished model") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder}/manifest.json is damaged; copy the folder afresh") from None
    if version != 1:
        raise UserError(f"{folder}: format {version} is newer than this midsentence reads: upgrade")
    for name, expected in files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise UserError(f"{folder}: {name!r} of the manifest is missing; copy it afresh")
        if digest(path) != expected:
            raise UserError(f"{path} is damaged (SHA-256 differs); copy it afresh")


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, lambda p: save_file(held, p))


def load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); copy it afresh") from None


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write ``folder/step-000123`` and drop all but the newest two."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{step:06d}"
    temporary = folder / f".{target.name}.{os.getpid()}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_tensors(tensors, temporary / "tensors.safetensors")
    write_whole(temporary / "state.json", lambda p: p.write_text(json.dumps(state, indent=1)))
    write_manifest(temporary, ["tensors.safetensors", "state.json"])
    if target.exists():
        shutil.rmtree(target)
    temporary.rename(target)
    flush(folder)
    for old in _newest_first(folder)[KEPT:]:
        shutil.rmtree(old)
    return target


def latest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """(tensors, state) of the newest checkpoint that is whole, or None."""
    for path in _newest_first(folder):
        try:
            verify(path)
            return load_tensors(path / "tensors.safetensors"), json.loads(
                (path / "state.json").read_text("utf-8")
            )
        except UserError:
            continue
    return None


def _newest_first(folder: Path) -> list[Path]:
    found = [p for p in folder.glob("step-*") if p.name[5:].isdigit()]
    return sorted(found, key=lambda p: int(p.name[5:]), reverse=True)


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Optimisers' state as named tensors, ``optimizer.<which>.<parameter>.<name>``."""
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
        optimizer.load_state_dict({"state": state, "param_groups": groups})

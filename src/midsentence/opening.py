"""Reading files that may be damaged, or come from a stranger: bounded, checked, never run.

Models are JSON, TOML and safetensors (`weights`), nothing else.
"""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .errors import UserError

FORMAT = 1
SMALL, LARGE = 1 << 20, 1 << 25
"""Bytes of a settings file, and of a vocabulary, at most."""

QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'')


class Newer(UserError):
    """What a later version wrote: it is not damaged, and nothing older may be taken for it."""


def known(version: object, newest: int, where: object) -> None:
    """Raises Newer for a format version after `newest`, ValueError for what is none."""
    if isinstance(version, int) and version > newest:
        raise Newer(
            f"{where}: format '{str(version)[:20]}' is newer than this midsentence reads: upgrade"
        )
    if version != newest:
        raise ValueError("another format")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def memory() -> int:
    """Bytes this process may have at most."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        import resource
    except ImportError:
        return there
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    return there if allowed == resource.RLIM_INFINITY else min(there, allowed)


def read_text(path: Path, most: int = SMALL) -> str:
    """A regular file of at most `most` bytes, UTF-8. Raises UserError."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no regular file: copy the folder afresh")
        with path.open("rb") as file:
            held = file.read(most + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): copy it afresh") from None
    if len(held) > most:
        raise UserError(f"{path} is larger than {most:,} bytes, so it was not written by us")
    try:
        return held.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged (not UTF-8): copy it afresh") from None


def read_json(path: Path, most: int = SMALL) -> Any:
    """Raises UserError, also for nesting that would exhaust the stack, or a key twice."""
    try:
        return json.loads(read_text(path, most), object_pairs_hook=_once)
    except (ValueError, RecursionError, MemoryError):
        raise UserError(f"{path} is damaged (not JSON of ours): copy it afresh") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Raises UserError, also for dotted keys so long that reading them takes minutes."""
    text = text.removeprefix("\ufeff")
    for line in text.split("\n"):
        said = "" if line.lstrip().startswith("#") else line
        if len(said) > 100 and QUOTED.sub("", said).partition("=")[0].count(".") > 50:
            raise UserError(f"{where}: nested too deeply")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{where}: nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{where}: not valid TOML: {error}") from None


def verify(folder: Path, names: Collection[str], *, mixed: bool = False) -> dict[str, str]:
    """Check that a folder's manifest is of just these files, and they are what it says: their
    digests.

    mixed: some may be those before and some the new ones, as a process that was killed while it
    replaced them leaves them (`writing.replace_files`); what was not there before need not be.
    Raises UserError naming the damaged file.
    """
    if not (folder / "manifest.json").exists():
        raise UserError(f"{folder}: no manifest.json, so this is not a finished model")
    content = read_json(folder / "manifest.json")
    try:
        known(content["format"], FORMAT, folder)
        files, before = dict(content["files"]), dict(content.get("before", {}))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{folder}/manifest.json is damaged; copy the folder afresh") from None
    if set(files) != set(names):
        first = sorted(map(repr, set(files) ^ set(names)))[0][:80]
        raise UserError(f"{folder}/manifest.json is not of a folder of this kind, first at {first}")
    most = memory()
    may_lack = set(files) - set(before) if mixed and "before" in content else set()
    held = [name for name in files if name not in may_lack or (folder / name).exists()]
    for name in held:
        path = folder / name
        if not path.is_file():
            raise UserError(f"{folder}: {name!r} of the manifest is missing; copy it afresh")
        if path.suffix == ".safetensors" and path.stat().st_size > most:
            raise UserError(f"{path} is larger than the memory there is ({most / 2**30:.0f} GiB)")
    found = {name: digest(folder / name) for name in held}
    odd = [name for name in held if found[name] != files[name]]
    if mixed:
        odd = [name for name in odd if found[name] != before.get(name)]
    if odd and found != before:
        raise UserError(f"{folder / odd[0]} is damaged (SHA-256 differs); copy it afresh")
    return found


def verify_early(folder: Path, names: Collection[str], *, mixed: bool = False) -> None:
    """`verify`, where there is a manifest: corpora that were prepared early have none, nor has a
    run before its first validation."""
    if (folder / "manifest.json").exists():
        verify(folder, names, mixed=mixed)

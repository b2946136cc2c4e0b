"""Writing files so that a process may be killed, or a disk be full, at any point.

What is written appears whole or not at all: under another name first, flushed, then renamed. A
manifest holds the SHA-256 of each file of a folder. A model folder is replaced file by file, but
counts as what it was until the last of them is there.
"""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import UserError
from .opening import FORMAT, digest

UNFINISHED = re.compile(r"\.(.+)\.(\d+)(\.old)?\.part")


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, write: Any) -> None:
    """Call ``write(temporary path)``, then put the result in place of `path` in one step."""
    with _beside(path) as temporary:
        write(temporary)
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A free name for the file or folder that will be `path`; nothing is left under it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with suppress(FileNotFoundError):
        _remove(temporary)
    try:
        yield temporary
    finally:
        with suppress(OSError):
            _remove(temporary)


def unfinished(name: str) -> bool:
    """Whether it is a name that only we give, to what is being written."""
    return UNFINISHED.fullmatch(name) is not None


def clean(folder: Path, name: str | None = None) -> None:
    """Remove what a process that was killed had begun to write (under this name, in a folder that
    is not ours); a folder that it had moved aside for a new one gets its name again, if nothing has
    it."""
    parts = [(path, UNFINISHED.fullmatch(path.name)) for path in folder.glob(".*.part")]
    left = [(path, found) for path, found in parts if found and name in (None, found[1])]
    for path, found in sorted(left, key=lambda part: not part[1][3]):
        target, process, aside = found.groups()
        # Whoever has the number by now: between an exchange's two renames is no time.
        if aside and not (folder / target).exists():
            path.rename(folder / target)
        elif not _alive(int(process)):
            _remove(path)


def _alive(process: int) -> bool:
    """Whether another process of this machine has this number."""
    try:
        os.kill(process, 0)
    except (OSError, OverflowError) as error:
        return isinstance(error, PermissionError)
    return process != os.getpid()


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for this process alone; a folder that stays empty is removed.

    A lock of the system's that ends with its process, however that ends. Raises UserError.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    ours = _locked(handle, fcntl.LOCK_EX)
    if not ours:
        time.sleep(0.1)  # who only looks (`busy`) has it for a moment
        ours = _locked(handle, fcntl.LOCK_EX)
    if not ours:
        os.close(handle)
        raise UserError(
            f"another process is training into {folder}: wait for it, or choose another --out"
        )
    try:
        yield
    finally:
        os.close(handle)
        with suppress(OSError):
            for path in made:
                path.rmdir()


def busy(folder: Path) -> bool:
    """Whether a process has claimed the folder; one that isn't there nobody has."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _locked(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def _locked(handle: int, kind: int) -> bool:
    """Whether the lock could be had at once, or there are none in this file system."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems: better trained without than not at all
        return True
    return True


def write_manifest(folder: Path, names: Sequence[str]) -> None:
    """``manifest.json``: format version and SHA-256 of each named file."""
    _write_manifest(folder, {"files": {name: digest(folder / name) for name in names}})


def _write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps({"format": FORMAT, **content}, indent=1)
    write_whole(folder / "manifest.json", lambda p: p.write_text(text))


def replace_files(folder: Path, writers: Mapping[str, Callable[[Path], None]]) -> None:
    """Put new files, and their manifest, in place of old ones; each of `writers` writes one.

    In between the manifest has both the old files' SHA-256 (``before``) and the new ones', and
    `verify` takes either set whole: whenever the process ends, the folder is the old one or the new
    one. Only where two files have changed can it be neither, and then `verify` says so.
    """
    with ExitStack() as stack:
        made = {name: stack.enter_context(_beside(folder / name)) for name in writers}
        for name, write in writers.items():
            write(made[name])
            flush(made[name])
        content = {"files": {name: digest(path) for name, path in made.items()}}
        there = [name for name in writers if (folder / name).is_file()]
        content["before"] = {name: digest(folder / name) for name in there}
        _write_manifest(folder, content)
        for name, path in made.items():
            path.replace(folder / name)
        flush(folder)


@contextmanager
def whole_folder(target: Path, names: Sequence[str]) -> Iterator[Path]:
    """A new folder to write these files into; then it is `target`, in place of one that is there.

    It is flushed and gets a manifest. Nothing is left of one that was not finished.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _beside(target) as temporary:
        temporary.mkdir()
        yield temporary
        for path in temporary.rglob("*"):
            flush(path)
        write_manifest(temporary, names)
        if target.exists():
            _exchange(target, temporary)
        else:
            temporary.rename(target)
        flush(target.parent)


def _exchange(target: Path, new: Path) -> None:
    """The old folder is moved aside whole, and back if the new one cannot have its name."""
    old = new.with_suffix(".old.part")
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)  # what is left of it is no harm: `clean`

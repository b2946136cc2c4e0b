"""Failing, or dying, at the k-th thing that is asked of the disk under a folder."""

import builtins
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from midsentence import assembly
from midsentence.learning import checkpoint

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
SAVING = {checkpoint.save.__code__, assembly.save.__code__}


class Disk:
    """Counts what is asked of the disk under `folder`, and calls `trouble` at the k-th of it.

    Python tells its audit hooks of every open, rename and removal; write, close, fsync and what
    safetensors writes by itself are wrapped. `for_ever`: at everything after the k-th too.
    `saving`: only what is asked inside `checkpoint.save` and `assembly.save` counts.
    """

    def __init__(
        self,
        folder: Path,
        trouble: Callable[[str], None] = lambda path: None,
        at: int = 0,
        *,
        for_ever: bool = False,
        saving: bool = False,
    ):
        self.folder, self.trouble, self.at = str(folder), trouble, at
        self.for_ever, self.saving, self.count, self.seen = for_ever, saving, 0, []

    def holds(self, path: object) -> bool:
        where = os.fspath(path) if isinstance(path, str | bytes | os.PathLike) else ""
        return self.folder in os.fsdecode(where)

    def asked(self, what: str, path: object) -> None:
        if not self.holds(path) or (self.saving and not _is_saving()):
            return
        self.count += 1
        self.seen.append(f"{what} {Path(os.fsdecode(os.fspath(path))).name}")
        if self.count == self.at or (self.for_ever and self.count > self.at > 0):
            self.trouble(os.fsdecode(os.fspath(path)))


def _is_saving() -> bool:
    frame = sys._getframe()
    while frame is not None and frame.f_code not in SAVING:
        frame = frame.f_back
    return frame is not None


here: Disk | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if here is None or event not in EVENTS:
        return
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & 3):
        return  # reading
    here.asked(event, arguments[0])


class _File:
    """A file being written: half of what is written is there when trouble comes."""

    def __init__(self, inner, path):
        self.inner, self.path = inner, path

    @property
    def __class__(self):  # for who checks types
        return type(self.inner)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def write(self, data):
        half = len(data) // 2
        self.inner.write(data[:half])
        self.inner.flush()
        asked("write", self.path)
        return half + self.inner.write(data[half:])

    def close(self):
        if not self.inner.closed:
            self.inner.close()
            asked("close", self.path)


def asked(what: str, path: object) -> None:
    if here is not None:
        here.asked(what, path)


_open, _fsync, _save = io.open, os.fsync, checkpoint.save_file


def _opened(path, mode="r", *more, **settings):
    file = _open(path, mode, *more, **settings)
    if here is None or not here.holds(path) or not {*"wax+"} & {*mode}:
        return file
    return _File(file, path)


def _synced(handle: int) -> None:
    _fsync(handle)
    if here is not None:
        here.asked("fsync", Path(f"/proc/self/fd/{handle}").readlink())


def _saved(tensors, path) -> None:
    disk = here
    watched(None)  # its own opening is no Python's, nor is its writing
    try:
        _save(tensors, path)
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[: len(whole) // 2])
        if disk is not None:
            disk.asked("write", path)
        Path(path).write_bytes(whole)
    finally:
        watched(disk)


sys.addaudithook(_hook)
io.open = builtins.open = _opened
os.fsync = _synced
checkpoint.save_file = _saved


def watched(disk: Disk | None) -> None:
    global here
    here = disk


def failing(number: int) -> Callable[[str], None]:
    def trouble(path: str) -> None:
        raise OSError(number, os.strerror(number), path)

    return trouble


def dying(path: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)

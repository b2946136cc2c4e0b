"""Failing, or dying, at the k-th thing that is asked of the disk under a folder."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from midsentence.learning import checkpoint

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


class Disk:
    """Counts what is asked of the disk under `folder`, and calls `trouble` at the k-th of it.

    Python tells its audit hooks of every open, rename and removal; fsync and what safetensors
    writes by itself are wrapped. `for_ever`: at everything after the k-th too.
    """

    def __init__(self, folder: Path, trouble: Callable[[str], None], at: int, for_ever=False):
        self.folder, self.trouble, self.at = str(folder), trouble, at
        self.for_ever, self.count, self.seen = for_ever, 0, []

    def asked(self, what: str, path: object) -> None:
        where = os.fspath(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if self.folder not in os.fsdecode(where):
            return
        self.count += 1
        self.seen.append(f"{what} {Path(os.fsdecode(where)).name}")
        if self.count == self.at or (self.for_ever and self.count > self.at > 0):
            self.trouble(f"{what} {where!r}")


here: Disk | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if here is None or event not in EVENTS:
        return
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & 3):
        return  # reading
    here.asked(event, arguments[0])


_fsync, _save = os.fsync, checkpoint.save_file


def _synced(handle: int) -> None:
    _fsync(handle)
    if here is not None:
        here.asked("fsync", Path(f"/proc/self/fd/{handle}").readlink())


def _saved(tensors, path) -> None:
    """Half of the file is there when trouble comes."""
    _save(tensors, path)
    if here is not None:
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[: len(whole) // 2])
        here.asked("write", path)
        Path(path).write_bytes(whole)


sys.addaudithook(_hook)
os.fsync = _synced
checkpoint.save_file = _saved


def watched(disk: Disk | None) -> None:
    global here
    here = disk


def failing(number: int) -> Callable[[str], None]:
    def trouble(what: str) -> None:
        raise OSError(number, os.strerror(number), what)

    return trouble


def dying(what: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)

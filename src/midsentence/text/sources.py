"""A file, pipe or standard input as bytes: found, unpacked, and never waited for without end."""

import difflib
import gzip
import os
import stat
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from io import BufferedIOBase
from pathlib import Path
from threading import Thread
from typing import cast

from ..errors import UserError

PATIENCE = 30.0
"""Seconds until a named pipe must have been opened by whoever writes to it."""

MOST_UNPACKED, MOST_TIMES = 1 << 28, 100
"""A .gz that gives more bytes than this, and as many times its own, is not text."""


def opened(source: str) -> AbstractContextManager[BufferedIOBase]:
    """Raises UserError."""
    if source == "-" and sys.stdin is None:
        raise UserError("standard input is closed: name a file")
    if source == "-":
        return nullcontext(cast(BufferedIOBase, sys.stdin.buffer))  # not ours to close
    path = Path(source)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{source} is a folder: name a file in it, or '{source}/*'")
        if stat.S_ISFIFO(mode):
            return _pipe(path)
        if not stat.S_ISREG(mode):
            raise UserError(f"{source} is no file: it is a device or a socket")
        if source.endswith(".gz"):
            return _Unpacked(path)
        return path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{source}: no such file{_hint(path)}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{source!r} cannot be opened: {reason}") from None


def _pipe(path: Path) -> BufferedIOBase:
    """A pipe with a name, once somebody writes to it, who may take their time over it."""
    found: list[int] = []
    waiting = Thread(target=lambda: found.append(os.open(path, os.O_RDONLY)), daemon=True)
    waiting.start()
    waiting.join(PATIENCE)
    if not found:
        with suppress(OSError):  # a writer of ours, so that the thread does not wait for ever
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            waiting.join()
            os.close(found[0])
        raise UserError(f"{path} is a pipe that nothing is written to: give a file, or write to it")
    return os.fdopen(found[0], "rb")


class _Unpacked(gzip.GzipFile):
    def __init__(self, path: Path):
        super().__init__(path)
        self._given, self._most = 0, max(MOST_UNPACKED, MOST_TIMES * path.stat().st_size)

    def read1(self, size: int = -1) -> bytes:
        block = super().read1(size)
        self._given += len(block)
        if self._given > self._most:
            raise OSError(
                f"it unpacks to more than {MOST_TIMES} times its size: if that is meant, unpack it"
            )
        return block


def _hint(path: Path) -> str:
    try:
        close = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], 1)
    except OSError:
        return f": there is no folder {path.parent}"
    return f". Did you mean {path.parent / close[0]}?" if close else ""

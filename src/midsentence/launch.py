"""`--devices N`: as many processes on this machine, each with its own accelerator or its share of
the cores. What torchrun does over several machines (``torchrun ... -m midsentence train ...``)."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

GRACE = 20.0
"""Seconds that the others get to end by themselves, once one has ended badly."""

GROUP = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What makes a process one of several."""


def started() -> int:
    """How many processes the environment speaks of (torchrun's WORLD_SIZE too)."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def alone() -> dict[str, str]:
    """The environment of a process that is none of the several that train together, or it would
    wait for them to let it in."""
    return {
        name: value for name, value in os.environ.items()
        if name not in GROUP and not name.startswith("TORCHELASTIC_")
    }  # fmt: skip


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run ``midsentence *arguments*`` in `count` processes; the exit code of all of them.

    Only the first speaks. Ctrl-C reaches all of them, and they save together. Where one ends badly
    the others notice, say so in one line, and end too.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    share = str(max(1, (os.cpu_count() or 1) // count))
    common = {"OMP_NUM_THREADS": share} | os.environ | {
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: object) -> None:
        for child in children:
            child.send_signal(number)

    # Ctrl-C reaches the whole group of processes by itself; this one just goes on waiting.
    handlers = {signal.SIGINT: lambda number, frame: None, signal.SIGTERM: pass_on}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        for rank in range(count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            source = None if rank == 0 else subprocess.DEVNULL
            command = [sys.executable, "-m", "midsentence", *arguments]
            children.append(subprocess.Popen(command, env=common | own, stdin=source))
        return _wait(children)
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            child.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(children: list["subprocess.Popen[bytes]"]) -> int:
    """Until all have ended; where one ended badly the others don't outlive it for long."""
    while True:
        codes = [child.poll() for child in children]
        if None not in codes or any(codes):
            break
        time.sleep(0.1)
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
    worst = next((code for code in codes if code), 0)
    # Whoever ends by itself says why. The first had no chance to where it was killed, or busy.
    if worst < 0 and children[0].poll() in (None, *range(-64, 0)):
        print(
            f"midsentence: a process was ended by {signal.Signals(-worst).name}, and the others "
            "with it; what was saved is whole: the same again, `train` with --resume",
            file=sys.stderr,
        )
    return 1 if worst < 0 else worst

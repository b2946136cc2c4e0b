"""Several processes at one run, under torchrun or `--devices`: who is who, and what they tell.

All of them run the same program. What is costly is shared out, what comes of it is told to all, and
only the first one writes files and speaks. Alone, every function here is the obvious one.
"""

import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import UserError
from .launch import started

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long the others wait for the first to prepare a corpus. One that dies is noticed at once."""

LOST = (
    "another process of this command has ended, so this one ends too; what was saved is whole: "
    "find out why (its own message, memory, the network), then the same again, `train` with "
    "--resume"
)

TOLD = (
    "told to end (SIGTERM), as launchers do once another process has gone; what was saved is "
    "whole: the same again, `train` with --resume"
)

_words: Any = None
"""The group for small things, on the processor: gloo, whatever the gradients go through."""

_board: Any = None
"""Where all can leave a note: held by torchrun, or by the first process under `--devices`."""


def join() -> None:
    """Find the others, if the environment says there are any. Once is enough; twice is harmless.

    A process takes the accelerator of its number on its machine. Raises UserError.
    """
    global _words, _board
    if started() == 1 or dist.is_initialized():
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        local = int(os.environ.get("LOCAL_RANK") or 0)
        if local >= torch.cuda.device_count():
            raise UserError(
                f"process {local + 1} of this machine has no GPU: there are "
                f"{torch.cuda.device_count()}; start as many processes"
            )
        torch.cuda.set_device(local)
    try:
        _board, rank, world = next(dist.rendezvous("env://"))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=dist.PrefixStore("group", _board), rank=rank, world_size=world,
        )  # fmt: skip
        _words = dist.new_group(backend="gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes did not find each other: {_line(error)}") from None


def leave() -> None:
    """Part from the others, at the end: what gloo's threads still hold could else abort a process
    that has done its work."""
    global _words
    if dist.is_initialized():
        _words = None
        # A DistributedDataParallel that outlives the group ends it, and waits for gloo's threads
        # with Python's lock held, which one of them may be waiting for.
        gc.collect()
        dist.destroy_process_group()


def together() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1


def count() -> int:
    return dist.get_world_size() if together() else 1


def number() -> int:
    """Which one this is, from 0."""
    return dist.get_rank() if together() else 0


def first() -> bool:
    return number() == 0


def hush() -> None:
    """All but the first say nothing; the first on each machine still says why it ended.

    What nobody foresaw is told with its traceback, whoever it happens to.
    """
    if first():
        return
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (as long as we run)
    sys.stdout = nowhere
    if int(os.environ.get("LOCAL_RANK") or 0):
        sys.stderr = nowhere
        sys.excepthook = lambda *found: traceback.print_exception(*found, file=sys.__stderr__)


def speaks() -> bool:
    """Whether this process says why those of its machine end: the first of them to ask does.

    Where the board has gone the first of a machine does; under `--devices` that is the one that
    held it, and its launcher speaks in its place.
    """
    if not together():
        return True
    local = int(os.environ.get("LOCAL_RANK") or 0)
    try:
        return bool(_board.add(f"said {number() - local}", 1) == 1)
    except RuntimeError:
        return local == 0


@contextmanager
def guarded() -> Iterator[None]:
    """Where another process has gone, whatever was under way: UserError, in one line.

    torchrun ends the others by SIGTERM as soon as one has gone, mostly before they notice. Training
    has a handler of its own, which saves first.
    """

    def told(number: int, frame: object) -> None:
        raise UserError(TOLD)

    before = signal.signal(signal.SIGTERM, told) if together() else None
    try:
        yield
    except RuntimeError as error:
        if lost(error):
            raise UserError(LOST) from None
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def gather(mine: T) -> list[T]:
    """What each process has, in the order of their numbers."""
    if not together():
        return [mine]
    held: list[Any] = [None] * count()
    dist.all_gather_object(held, mine, group=_words)
    return held


def dealt(mine: list[T]) -> list[T]:
    """What was dealt out like cards, to the first process first, in one pile again."""
    held = gather(mine)
    return [held[place % len(held)][place // len(held)] for place in range(sum(map(len, held)))]


def most(*numbers: float) -> list[float]:
    """The largest each process has, of each."""
    if not together():
        return list(numbers)
    held = torch.tensor(numbers, dtype=torch.double)
    dist.all_reduce(held, dist.ReduceOp.MAX, group=_words)
    return held.tolist()


def total(mine: Tensor) -> Tensor:
    """The sum of what each process has."""
    if not together():
        return mine
    mine = mine.clone()
    dist.all_reduce(mine)
    return mine


def lead(first_does: Callable[[], T], others_do: Callable[[], T]) -> T:
    """What the first must do alone, and then the others. If the first fails, all end."""
    if not together():
        return first_does()
    if not first():
        if _told(None):
            raise SystemExit(1)
        return others_do()
    try:
        found = first_does()
    except BaseException as error:
        _told(str(error) or type(error).__name__)
        raise
    _told(None)
    return found


def from_first(find: Callable[[], T]) -> T:
    """What only the first can find, such as its standard input, told to all."""
    found: Any = lead(find, lambda: None)
    return _told(found) if together() else found


def _told(word: T) -> T:
    """The first one's word, to all."""
    held: list[Any] = [word]
    dist.broadcast_object_list(held, src=0, group=_words)
    return held[0]


def whole(tensor: Tensor) -> Tensor:
    """A small tensor of which this process may hold a piece only (`learning.sharding`), as it is.

    All processes must ask.
    """
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def collected(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that may be in pieces, put together in the first process's memory; the others' are
    empty. One at a time: no device ever holds more than one of them whole. All must ask.
    """
    found = {}
    for name, tensor in tensors.items():
        if hasattr(tensor, "full_tensor"):
            full = tensor.full_tensor()
            tensor = full.cpu() if first() else full.new_empty(0)
        found[name] = tensor
    return found


def own(tensor: Tensor) -> Tensor:
    """This process's piece of a tensor, or all of it."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, which every process has, in pieces if `other`, of its shape, is.

    Only this process's piece goes to its device.
    """
    if not hasattr(other, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor  # takes a second to load

    mine, at = own(other), number() * -(-len(tensor) // count())  # rows, as FSDP cuts them
    piece = tensor[at : at + len(mine)].to(mine.device)
    return DTensor.from_local(
        piece, other.device_mesh, other.placements,  # type: ignore[attr-defined]
        run_check=False, shape=other.shape, stride=other.stride(),
    )  # fmt: skip


def lost(error: BaseException) -> bool:
    """Is this what torch raises where another process has gone?"""
    if not together():
        return False
    text = str(error).lower()
    signs = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out")
    return isinstance(error, dist.DistError) or any(sign in text for sign in signs)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

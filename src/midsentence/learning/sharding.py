"""A model over several processes: copies whose gradients are summed, or one cut in pieces."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .. import processes
from ..errors import UserError
from ..parts.layers import Block
from ..vae import VAE

STRATEGIES = ("ddp", "fsdp")


def shard(vae: VAE, strategy: str, device: torch.device) -> None:
    """Cut the parameters in pieces, one a process, if `strategy` is ``fsdp``; in place, and before
    there is an optimiser: gradients and the optimisers' states are then in pieces too.

    Zhao et al. 2023, "PyTorch FSDP". The layers of a Transformer are put together one at a time as
    they are needed, everything else for the whole step. The model is given in memory; its layers go
    to the device one at a time and are cut there. Raises UserError for another strategy.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"training.strategy = {strategy!r}: use {' or '.join(STRATEGIES)}")
    if strategy == "fsdp" and processes.together():
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard  # takes a second to load

        mesh = init_device_mesh(device.type, (processes.count(),))
        for module in vae.modules():
            if isinstance(module, Block):
                fully_shard(module, mesh=mesh)
        fully_shard(vae, mesh=mesh)


def wrapped(vae: VAE) -> nn.Module:
    """What training calls in place of `vae`: gradients are then of all processes' sentences."""
    if not processes.together() or pieces(vae):
        return vae
    ids = [torch.cuda.current_device()] if vae.device.type == "cuda" else None
    return DistributedDataParallel(vae, device_ids=ids, forward_sync_buffers=False)


def alone(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Gradients are told to the other processes only after the `last` part of a batch."""
    if isinstance(model, DistributedDataParallel) and not last:
        held: AbstractContextManager[None] = model.no_sync()
        return held
    if pieces(model):
        model.set_requires_gradient_sync(last)  # type: ignore[operator]
    return nullcontext()


@contextmanager
def put_together(model: nn.Module) -> Iterator[None]:
    """What is whole in a step is so for a while, and the layers of a Transformer one at a time.

    All processes must then use them equally often. Every part can be called by itself: forward of
    the model is else the only door.
    """
    held = pieces(model)[:1]
    for each in held:
        each.unshard()
    try:
        yield
    finally:
        for each in held:
            each.reshard()


def pieces(model: nn.Module) -> list[Any]:
    """The modules whose parameters were put together and cut up as one; a cut model comes first."""
    return [module for module in model.modules() if hasattr(module, "unshard")]

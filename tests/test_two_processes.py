"""Two processes equal one: the same gradient through DistributedDataParallel as without it."""

from functools import partial

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.nn.parallel import DistributedDataParallel

from midsentence import processes
from midsentence.learning.objectives import Elbo
from midsentence.text.batches import Batch
from tiny import batch, tiny

# The batch-mean form of free bits is left out: it is a function of the whole batch by definition.
OBJECTIVE = partial(Elbo(free_bits=0.1, form="dimension"), beta=0.5)


def gradients(vae):
    return {n.removeprefix("module."): p.grad.clone() for n, p in vae.named_parameters()}


def mean_only(vae):
    """Without noise, so that the processes need not share it."""
    with torch.no_grad():
        vae.posterior.project.weight.mul_(torch.tensor([[1.0]] * 3 + [[0.0]] * 3))
        vae.posterior.project.bias[3:] = -60.0
    return vae


def one_of_two(rank, file, out):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    vae = DistributedDataParallel(mean_only(tiny()))
    half = Batch(batch().tokens[rank::2])
    vae(half, 1, OBJECTIVE)["objective"].mean().backward()
    if rank == 0:
        torch.save(gradients(vae), out)
    del vae
    processes.leave()


def test_two_processes_equal_one(tmp_path):
    vae = mean_only(tiny())
    vae(batch(), 1, OBJECTIVE)["objective"].mean().backward()
    alone = gradients(vae)
    file, out = tmp_path / "store", tmp_path / "gradients.pt"
    multiprocessing.spawn(one_of_two, (str(file), str(out)), nprocs=2)
    together = torch.load(out, weights_only=True)
    assert alone.keys() == together.keys()
    for name, gradient in alone.items():
        assert torch.allclose(gradient, together[name], atol=1e-10), name

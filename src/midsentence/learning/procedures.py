"""Training procedures: what a step is made of, where that is not one gradient for everybody."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..processes import like
from ..vae import VAE
from .optimizers import READING

WINDOW = 15
"""Steps of the encoder that are judged together, as in the code of He et al. 2019."""


class Aggressive:
    """Several steps of the encoder for one of the decoder, while that keeps telling more.

    He et al. 2019, "Lagging Inference Networks and Posterior Collapse in Variational Autoencoders",
    algorithm 1: early in training the encoder lags behind the true posterior of a decoder that
    moves, so the decoder learns to do without it. Before each step of the decoder the encoder
    trains on the same batch and then on others until fifteen steps are worse than the fifteen
    before, `most` at most. The procedure ends for good at the first validation whose mutual
    information is below the last one's. It costs many times a plain step while it lasts.

    Set as ``training.aggressive`` = `most` (100 in the paper); 0 is off.
    """

    def __init__(self, most: int):
        self.most = most

    def catch_up(self, step: Callable[[], tuple[torch.Tensor, int]]) -> None:
        """`step` trains the encoder once and returns (the objective's sum, words)."""
        before = -math.inf
        for done in range(0, self.most, WINDOW):
            found = [step() for _ in range(min(WINDOW, self.most - done))]
            now = float(torch.stack([value for value, _ in found]).sum())
            now /= sum(words for _, words in found)
            if not now >= before:
                return
            before = now


def sides(vae: VAE) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(what reads, what writes) of everything that is learned."""
    named = [(name, p) for name, p in vae.named_parameters() if p.requires_grad]
    reads = [p for name, p in named if name.startswith(READING)]
    return reads, [p for name, p in named if not name.startswith(READING)]


def reset_decoder(vae: VAE, fresh: VAE, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Give decoder and head the weights of `fresh`, and their optimisers nothing to remember.

    The middle of Li et al. 2019, "A Surprisingly Effective Fix for Deep Latent Variable Modeling of
    Text", section 3: a plain autoencoder first (the KL's weight is 0 for the part
    ``training.pretrain`` of the run), so that the encoder knows its sentences; then a new decoder,
    which has not learned to expect that much of z; then the annealing and the free bits that are
    set, over what is left of the run.
    """
    new = dict(fresh.named_parameters())
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if name.startswith(("decoder.", "head.", "bow.")):
                parameter.copy_(like(new[name], parameter))
                for optimizer in optimizers:
                    optimizer.state.pop(parameter, None)

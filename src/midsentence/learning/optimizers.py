"""Optimisers with their learning-rate rules: how a gradient becomes a step."""

from collections.abc import Iterable

import torch
from torch import nn

from .schedules import warm_cosine


class AdamW:
    """AdamW (Loshchilov & Hutter 2019), a line up over `warmup`, half a cosine down to `floor`.

    `warmup` is a part of the run, `floor` a part of `lr`. Weight decay is on matrices only.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.02,
        floor: float = 0.02,
        beta1: float = 0.9,
        beta2: float = 0.99,
    ):
        parameters = list(parameters)
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.torch = torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), fused=True)
        self.lr, self.warmup, self.floor = lr, warmup, floor

    def rate(self, progress: float) -> float:
        return self.lr * warm_cosine(progress, warmup=self.warmup, floor=self.floor)

    def validated(self, better: bool, epoch: float) -> str:
        """What the trainer does after a validation: ``go on``, ``back to best`` or ``stop``."""
        return "go on"


class SGD:
    """Plain SGD, halved when validation stops improving: the published protocol.

    From epoch `halve_from` on, `halve_after` validations without a better bound halve the rate and
    go back to the best weights; training ends at the `halvings`-th (He et al. 2019, "Lagging
    Inference Networks and Posterior Collapse in Variational Autoencoders", appendix B).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float = 1.0,
        halve_from: float = 15,
        halve_after: int = 2,
        halvings: int = 5,
    ):
        self.torch = torch.optim.SGD(parameters, lr=lr, fused=True)
        self.lr, self.halve_from, self.halve_after = lr, halve_from, halve_after
        self.halvings = halvings
        self.halved, self.stale = 0, 0

    def rate(self, progress: float) -> float:
        return self.lr * 0.5**self.halved

    def validated(self, better: bool, epoch: float) -> str:
        self.stale = 0 if better else self.stale + 1
        if self.stale < self.halve_after or epoch < self.halve_from:
            return "go on"
        self.stale, self.halved = 0, self.halved + 1
        return "stop" if self.halved >= self.halvings else "back to best"


OPTIMIZERS = {"adamw": AdamW, "sgd": SGD}
Optimizer = AdamW | SGD

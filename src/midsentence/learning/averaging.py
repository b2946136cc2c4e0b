"""Averaging: the mean of the weights on the last part of the way."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..processes import like

EVERY = 10
"""Steps between two weights that are averaged."""


class Average:
    """The mean of the weights since the part `start` of a run.

    Polyak & Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"; for language
    models Merity, Keskar & Socher 2018, "Regularizing and Optimizing LSTM Language Models", section
    4, where it begins once validation stops improving. Steps that are too long to settle anywhere
    go around a place that generalises better than any of them. What is validated and kept is the
    mean; training goes on from the weights themselves. Only where it goes back to the best there
    was (`optimizers.SGD`, ``training.pretrain``) that is the mean, and another one begins there.
    Set as ``training.average``.

    Raises UserError for a model with batch normalisation (``posterior.gamma``): what it knows of
    the corpus holds for the weights themselves, and the mean of that is not what the mean of the
    weights would see (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better
    Generalization", section 3.2).
    """

    def __init__(self, model: nn.Module, start: float | None):
        if start is not None and any(isinstance(m, nn.BatchNorm1d) for m in model.modules()):
            raise UserError("training.average goes without posterior.gamma: set gamma to 0")
        self.start = 1.0 if start is None else start
        self.count = torch.zeros((), dtype=torch.long)
        named = model.named_parameters() if start is not None else ()
        self.mean = {name: p.detach().clone() for name, p in named}

    @torch.no_grad()
    def add(self, model: nn.Module, step: int, progress: float) -> None:
        if self.mean and progress < self.start:
            self.forget()  # a run that is extended has its start before it again
        if not self.mean or progress < self.start or step % EVERY:
            return
        self.count += 1
        held = dict(model.named_parameters())
        for name, mean in self.mean.items():
            mean.lerp_(held[name], 1 / int(self.count))

    @contextmanager
    def instead(self, model: nn.Module) -> Iterator[None]:
        """The mean in place of the weights, if there is one yet."""
        if not self.count:
            yield
            return
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)

    @torch.no_grad()
    def _exchange(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            own = parameter.clone()
            parameter.copy_(self.mean[name])
            self.mean[name].copy_(own)

    def forget(self) -> None:
        """What was so far isn't part of the mean."""
        self.count.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"count": self.count, **self.mean} if self.mean else {}

    def restore(self, held: Mapping[str, Tensor]) -> None:
        """What a checkpoint kept, if there was a mean then: averaging may begin with a resume."""
        if self.mean and held:
            for name, value in {"count": self.count, **self.mean}.items():
                value.copy_(like(held[name], value))

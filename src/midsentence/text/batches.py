"""Batches of sentences: padded token ids, filled by length under a token budget."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .tokenizer import BOS, EOS, PAD


@dataclass
class Batch:
    """B sentences as ids: ``<s> w1 .. wn </s> <pad> ..``; T = T1 - 1 positions are predicted."""

    tokens: Int[Tensor, "B T1"]
    labels: Int[Tensor, "B"] | None = None

    @property
    def inputs(self) -> Int[Tensor, "B T"]:
        """What the decoder reads: ``<s> w1 .. wn``."""
        return self.tokens[:, :-1]

    @property
    def targets(self) -> Int[Tensor, "B T"]:
        """What the decoder predicts and the encoder reads: ``w1 .. wn </s>``."""
        return self.tokens[:, 1:]

    @property
    def mask(self) -> Bool[Tensor, "B T"]:
        return self.targets != PAD

    @property
    def lengths(self) -> Int[Tensor, "B"]:
        """Predicted tokens per sentence: the words and ``</s>``."""
        return self.mask.sum(1)

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device) -> "Batch":
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return Batch(self.tokens.to(device, non_blocking=True), labels)


def collate(sentences: Sequence[Sequence[int] | np.ndarray], labels: object = None) -> Batch:
    """Ids without ``<s>`` and ``</s>`` -> Batch."""
    width = max((len(s) for s in sentences), default=0) + 2
    tokens = np.full((len(sentences), width), PAD, dtype=np.int64)
    tokens[:, 0] = BOS
    for row, sentence in zip(tokens, sentences, strict=True):
        row[1 : len(sentence) + 1] = sentence
        row[len(sentence) + 1] = EOS
    return Batch(
        torch.from_numpy(tokens),
        None if labels is None else torch.as_tensor(np.asarray(labels, dtype=np.int64)),
    )


@dataclass(frozen=True)
class Budget:
    """How much goes into one batch: padded positions, and optionally sentences."""

    tokens: int = 1024
    sentences: int | None = None


def by_length(lengths: np.ndarray, budget: Budget) -> list[np.ndarray]:
    """All sentences by length, cut under the budget: for measuring, where order is free."""
    return _cut(np.argsort(lengths, kind="stable"), lengths, budget)


def shuffled(lengths: np.ndarray, budget: Budget, seed: int, epoch: int) -> list[np.ndarray]:
    """One epoch's batches of sentence indices, a pure function of its arguments.

    A batch holds neighbours in length, so little is padding. Which sentences share a batch changes
    every epoch: the corpus is permuted first and sorted only inside windows.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = rng.permutation(len(lengths))
    mean = max(1.0, float(lengths.mean()) + 1)
    window = int(200 * max(1.0, min(budget.tokens / mean, budget.sentences or np.inf)))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches.extend(_cut(part, lengths, budget))
    return [batches[i] for i in rng.permutation(len(batches))]


def _cut(order: np.ndarray, lengths: np.ndarray, budget: Budget) -> list[np.ndarray]:
    """Cut indices sorted by length; a sentence longer than the budget gets a batch of its own."""
    cap = budget.sentences or len(order)
    widths = lengths[order] + 1  # </s> is predicted too
    cuts, start = [], 0
    for position, width in enumerate(widths.tolist()):
        held = position - start
        if held and (held >= cap or (held + 1) * width > budget.tokens):
            cuts.append(position)
            start = position
    return np.split(order, cuts) if len(order) else []

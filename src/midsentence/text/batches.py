"""Batches of sentences: padded token ids, filled by length under a token budget."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .store import MANY
from .tokenizer import BOS, EOS, PAD


@dataclass
class Batch:
    """B sentences as ids: ``<s> w1 .. wn </s> <pad> ..``; T = T1 - 1 positions are predicted."""

    tokens: Int[Tensor, "B T1"]
    labels: Int[Tensor, "B"] | None = None
    _places: Int[Tensor, "M"] | None = field(default=None, init=False, repr=False)

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

    @property
    def places(self) -> Int[Tensor, "M"]:
        """Where a word or ``</s>`` is predicted, among the B x T positions, row after row."""
        if self._places is None:
            self._places = self.mask.flatten().nonzero()[:, 0]
        return self._places

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, first: int, count: int) -> "Batch":
        """Some of its sentences, as wide as the longest of them."""
        some = slice(first, first + count)
        width = int(self.lengths[some].max()) + 1
        return Batch(self.tokens[some, :width], None if self.labels is None else self.labels[some])

    def to(self, device: torch.device) -> "Batch":
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        moved = Batch(self.tokens.to(device, non_blocking=True), labels)
        # Found here: the device would have to be waited for to say how many there are.
        moved._places = self.places.to(device, non_blocking=True)
        return moved


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


class Batches:
    """Batches of sentence indices, cut out of one flat order when they are asked for."""

    def __init__(self, order: np.ndarray, begins: np.ndarray, ends: np.ndarray):
        self.order, self.begins, self.ends = order, begins, ends

    def __len__(self) -> int:
        return len(self.begins)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> np.ndarray:
        return self.order[self.begins[index] : self.ends[index]]

    def near(self, index: int, number: int) -> int:
        """Any batch that costs nothing to ask for beside `index`, which one as `number` says."""
        return number % len(self)


def usual(lengths: Any) -> int:
    """A token budget that keeps the cores busy: short sentences by their number, long ones too."""
    return max(1024, math.ceil(32 * (float(lengths.mean()) + 1)))


def by_length(lengths: Any, budget: Budget) -> Batches:
    """All sentences by length, cut under the budget: for measuring, where order is free."""
    order = np.argsort(lengths, kind="stable")
    begins = np.array(_cuts(lengths[order], budget), np.int64)
    return Batches(order, begins, np.append(begins[1:], len(order)))


class Shards(Batches):
    """Batches of a corpus too large for an order of its own: shard after shard, one held at a time.

    A shard is so many sentences that follow one another; their turn changes every epoch.
    """

    def __init__(self, lengths: Any, budget: Budget, seed: int, epoch: int, size: int):
        self.lengths, self.budget, self.size = lengths, budget, size
        self.seed, self.epoch = seed, epoch
        self.turns = _chance(seed, epoch).permutation(-(-len(lengths) // size))
        self._held: tuple[int, Batches] | None = None
        counts = [len(self._shard(place)) for place in range(len(self.turns))]
        self.ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> np.ndarray:
        index = range(len(self))[index]
        place, begin = self._place(index)
        if self._held is None or self._held[0] != place:
            self._held = place, self._shard(place)
        return self._held[1][index - begin].astype(np.int64) + int(self.turns[place]) * self.size

    def near(self, index: int, number: int) -> int:
        place, begin = self._place(index)
        return begin + number % (int(self.ends[place]) - begin)  # another shard is planned anew

    def _place(self, index: int) -> tuple[int, int]:
        """The shard that a batch is of, and that shard's first batch."""
        place = int(np.searchsorted(self.ends, index, "right"))
        return place, int(self.ends[place - 1]) if place else 0

    def _shard(self, place: int) -> Batches:
        start = int(self.turns[place]) * self.size
        lengths = self.lengths[start : start + self.size]
        return _shuffled(lengths, self.budget, _chance(self.seed, self.epoch, place + 1))


def _chance(seed: int, epoch: int, shard: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, epoch + (shard << 32)]))


def shuffled(lengths: Any, budget: Budget, seed: int, epoch: int, size: int = MANY) -> Batches:
    """One epoch's batches of sentence indices, a pure function of its arguments.

    A batch holds neighbours in length, so little is padding. Which sentences share a batch changes
    every epoch: the corpus is permuted first and sorted only inside windows. Of more than `size`
    sentences only as many are permuted among each other, and memory stays flat.
    """
    if len(lengths) > size:
        return Shards(lengths, budget, seed, epoch, size)
    return _shuffled(np.asarray(lengths), budget, _chance(seed, epoch))


def _shuffled(lengths: np.ndarray, budget: Budget, rng: np.random.Generator) -> Batches:
    order = np.arange(len(lengths), dtype=np.uint32)
    rng.shuffle(order)
    mean = max(1.0, float(lengths.mean()) + 1)
    window = int(200 * max(1.0, min(budget.tokens / mean, budget.sentences or np.inf)))
    cuts = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part[:] = part[np.argsort(lengths[part], kind="stable")]
        cuts.append(np.array(_cuts(lengths[part], budget), np.int64) + start)
    begins = np.concatenate(cuts)
    ends, turns = np.append(begins[1:], len(order)), rng.permutation(len(begins))
    return Batches(order, begins[turns], ends[turns])


def _cuts(lengths: np.ndarray, budget: Budget) -> list[int]:
    """Where batches begin in sorted lengths; a sentence over the budget gets one of its own."""
    cap = budget.sentences or len(lengths)
    begins, start = [0] if len(lengths) else [], 0
    for position, length in enumerate(lengths.tolist()):
        held, width = position - start, length + 1  # </s> is predicted too
        if held and (held >= cap or (held + 1) * width > budget.tokens):
            begins.append(position)
            start = position
    return begins

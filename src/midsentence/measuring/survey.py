"""A model goes through many sentences: in groups of like length, shared out among processes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import processes
from ..seeds import reseed, seeded
from ..text.batches import Batch, Budget, by_length, collate
from ..vae import VAE

GROUP = Budget(tokens=4096)
"""Sentences that draw their noise together. Fixed, so that no memory setting changes a figure."""


@runtime_checkable
class Sentences(Protocol):
    """Ids without ``<s>`` and ``</s>``, in memory or on disk; with `labels` (N,), or None."""

    @property
    def lengths(self) -> np.ndarray: ...
    @property
    def labels(self) -> np.ndarray | None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


@dataclass
class InMemory:
    """A few sentences as lists of ids."""

    ids: Sequence[Sequence[int]]
    labels: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(s) for s in self.ids], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sequence[int]:
        return self.ids[index]

    def count(self, token: int) -> np.ndarray:
        """How often each sentence has it."""
        return np.array([list(s).count(token) for s in self.ids], dtype=np.int64)


@contextmanager
def measuring(vae: VAE, seed: int) -> Iterator[None]:
    """Evaluation mode, no gradients, random numbers from `seed`; everything put back after."""
    training = vae.training
    with seeded(seed, vae.device), torch.no_grad():
        vae.eval()
        try:
            yield
        finally:
            vae.train(training)


def groups(vae: VAE, sentences: Sentences) -> Iterator[tuple[np.ndarray, Batch]]:
    """(indices, batch) over all sentences, by length: the same groups for every budget."""
    for rows in by_length(sentences.lengths, GROUP):
        yield rows, batch_of(sentences, rows).to(vae.device)


def batch_of(sentences: Sentences, rows: np.ndarray) -> Batch:
    """Some of them, with the labels that are known."""
    known = sentences.labels
    return collate([sentences[i] for i in rows.tolist()], None if known is None else known[rows])


@dataclass
class Survey:
    """One latent a sentence with its densities, in the sentences' order. Nats per sentence.

    summary: what q(z|x) is a function of; H = 0 where it was not asked for.
    """

    summary: Float[Tensor, "N H"]
    mean: Float[Tensor, "N D"]
    z: Float[Tensor, "N D"]
    log_qz: Float[Tensor, "N"]
    log_pz: Float[Tensor, "N"]
    log_px: Float[Tensor, "N"]
    kl: Float[Tensor, "N G"]
    label: Int[Tensor, "N"]

    def some(self, most: int | None) -> "Survey":
        """Of so many sentences at most, evenly spaced: files may be sorted by whatever."""
        if most is None or most >= len(self.z):
            return self
        rows = evenly(len(self.z), most)
        return Survey(*(getattr(self, field.name)[rows] for field in fields(self)))


def evenly(count: int, most: int) -> Int[Tensor, "M"]:
    """`most` places among `count`, from the first to the last."""
    return torch.linspace(0, count - 1, most, dtype=torch.double).round().long()


def survey(vae: VAE, sentences: Sentences, seed: int = 0, *, summaries: bool = True) -> Survey:
    """Encode every sentence, draw one z from q(z|x), evaluate log p(x|z), log p(z), log q(z|x).

    summaries: also kept, the widest of all; who asks q(z|x) no more needs none.
    """

    def look(batch: Batch) -> tuple[Tensor, ...]:
        run = vae.run(batch)
        densities = (run.log_qz[0], run.log_pz[0], run.log_px[0])
        h = run.h if summaries else run.h[:, :0]
        return h, run.q.mean, run.z[0], *densities, run.kl, vae.label_rows(batch)

    return Survey(*shared(vae, sentences, seed, look))


def posterior_means(vae: VAE, sentences: Sentences) -> Float[Tensor, "N D"]:
    """E_q[z] of every sentence, in their order; nothing is decoded."""
    (found,) = shared(vae, sentences, 0, lambda batch: (vae.infer(batch).mean,))
    return found


def shared(
    vae: VAE,
    sentences: Sentences,
    seed: int,
    look: Callable[[Batch], tuple[Tensor, ...]],
    progress: Callable[[int], None] = lambda done: None,
) -> list[Tensor]:
    """What `look` finds in the sentences, in their order: each of its tensors leads with B.

    Groups are dealt out among the processes, if there are several. Each draws its noise from its
    own number, so that how many there are changes no figure.
    """
    found: list[tuple[np.ndarray, list[Tensor]]] = []
    number = -1
    with measuring(vae, seed):
        for number, (rows, batch) in enumerate(groups(vae, sentences)):
            if number % processes.count() == processes.number():
                reseed(seed * 1_000_003 + number, vae.device)
                found.append((rows, list(look(batch))))
            progress(len(rows))
        # The layers of a model in pieces are put together by all processes, equally often.
        if processes.number() > number % processes.count():
            look(batch)
    if processes.together():
        told = processes.gather([(rows, [each.cpu() for each in held]) for rows, held in found])
        found = [(rows, held) for one in told for rows, held in one]
    order = np.argsort(np.concatenate([rows for rows, _ in found]))
    back = torch.from_numpy(order).to(vae.device)
    columns = zip(*(held for _, held in found), strict=True)
    return [torch.cat(column).to(vae.device)[back] for column in columns]

"""Gradient steps: a batch in parts, each with noise of its own, over one process or several."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from .. import config as configuration
from .. import processes
from ..config import Config
from ..errors import UserError
from ..parts.layers import Block
from ..seeds import reseed, seed_of
from ..text.batches import Batch, Batches, collate
from ..text.store import TokenStore
from ..vae import VAE
from .objectives import OBJECTIVES, Objective
from .optimizers import OPTIMIZERS, Optimizer, clipped_step, few_rows, set_rates
from .procedures import Aggressive, sides
from .records import Tally
from .sharding import alone, shard, wrapped

MOST_BAD_STEPS = 10


class Steps:
    """Everything that a gradient step changes: the model, its optimiser, the objective's own state.

    A batch is computed in `parts` parts, one after the other and shared out among the processes;
    the gradient is their sum. The parts fix what is drawn: 1, 2 and 4 processes with 4 parts
    compute the same thing, up to the order of sums (but for batch norm's running statistics, which
    each process gathers of its own parts). A step whose gradient is not finite changes nothing and
    is counted.

    Raises UserError for settings that don't go together.
    """

    def __init__(self, vae: VAE, config: Config, store: TokenStore, device: torch.device):
        settings = config.training
        self.config, self.store, self.device = config, store, device
        self.parts = processes.count() if settings.parts is None else settings.parts
        if self.parts < 1 or self.parts % processes.count():
            raise UserError(
                f"training.parts = {self.parts} can't be shared out among {processes.count()} "
                "processes: start as many as divide it"
            )
        if settings.strategy == "fsdp":
            if settings.aggressive or config.refine.steps:
                raise UserError(
                    "training.strategy = 'fsdp' goes with neither aggressive nor refine"
                )
            if config.optimizer["kind"] != "adamw":
                raise UserError("training.strategy = 'fsdp' needs optimizer.kind = 'adamw'")
        for block in vae.modules():
            if isinstance(block, Block):
                block.recompute = settings.recompute
        shard(vae, settings.strategy, device)
        self.vae = vae.to(device)
        self.optimizer: Optimizer = configuration.build(
            OPTIMIZERS, config.optimizer, vae.named_parameters()
        )
        self.objective: Objective = configuration.build(OBJECTIVES, config.objective)
        self.objective.to(device)
        self.aggressive = Aggressive(settings.aggressive) if settings.aggressive else None
        self.reads, self.writes = sides(vae)
        self.model = wrapped(vae)
        self.statistics = [b for b in vae.buffers() if b.is_floating_point()]
        self.bad = torch.zeros((), dtype=torch.long, device=device)  # skipped in a row
        self.skipped = torch.zeros_like(self.bad)

    def expect(self, per_epoch: int) -> None:
        """So many batches an epoch: how many words one has decides how gradients are kept."""
        whole = self.device.type != "cpu" or processes.count() > 1 or self.config.training.compile
        if not whole:
            words = self.objective.samples * int(self.store.lengths.sum()) // per_epoch
            few_rows(self.vae, words, self.parts)

    def step(
        self, number: int, batches: Batches, index: int, rates: list[float], beta: float,
        *, reads_first: bool, tally: Tally,
    ) -> None:  # fmt: skip
        """Train on batch `index`; `reads_first`: after the encoder has caught up."""
        set_rates(self.optimizer.each, rates)
        self.vae.train()
        others: list[nn.Parameter] = []
        key = [self.config.seed, number, 0]
        if self.aggressive and reads_first:
            others = self.reads

            def read() -> tuple[Tensor, int]:
                key[-1] += 1
                rows = batches[index if key[-1] == 1 else batches.near(index, seed_of(*key))]
                result, words, _ = self._update(rows, beta, len(batches), key, self.writes)
                return processes.total(result["objective"].sum()), words

            self.aggressive.catch_up(read)
            key[-1] = 0
        result, words, norm = self._update(batches[index], beta, len(batches), key, others)
        tally.add(result, words, norm, beta=self.objective.weight(beta), lr=rates[0])

    def _update(
        self,
        rows: np.ndarray,
        beta: float,
        per_epoch: int,
        key: list[int],
        still: Sequence[nn.Parameter],
    ) -> tuple[dict[str, Tensor], int, Tensor]:
        """One gradient step on the sentences `rows`, of all but what is `still`: (this process's
        results, words, norm)."""
        before = [buffer.clone() for buffer in self.statistics]
        # The mean over sentences. The divisor is the epoch's mean batch and not this one's, so that
        # a sentence weighs the same whatever company its length brings it into. Several processes'
        # gradients are averaged, where a sum is wanted.
        weight = per_epoch / len(self.store)
        scale = processes.count() * weight
        mine = range(processes.number(), self.parts, processes.count())
        found: list[dict[str, Tensor]] = []
        self.vae.zero_grad()
        for part in mine:
            # Nothing is carried from step to step: a step's noise is the same after a resume, and
            # whichever process draws it.
            reseed(seed_of(*key, part), self.vae.device)
            own = rows[part :: self.parts]
            # All processes must take part in every step, also those that are left no sentence.
            batch = self._batch(own if len(own) else rows[:1])
            with alone(self.model, last=part == mine[-1]):
                result = self.model(
                    batch, self.objective.samples, partial(self.objective, beta=beta)
                )
                (-scale * result["objective"][: len(own)].sum()).backward()
            found.append({name: each[: len(own)].detach() for name, each in result.items()})
        norm = clipped_step(self.optimizer.each, self.config.training.clip, still)
        finite = norm.isfinite()
        for buffer, old in zip(self.statistics, before, strict=True):
            buffer.copy_(torch.where(finite, buffer, old))
        self.bad = torch.where(finite, 0, self.bad + 1)
        self.skipped += ~finite
        together = {name: torch.cat([each[name] for each in found]) for name in found[0]}
        if self.objective.adapts and beta > 0:  # what weighs nothing answers to no weight
            kl = processes.total(together["kl"].sum()) / len(rows)
            told = torch.where(finite.to(kl.device), kl, torch.nan)
            self.objective.adapt(told, len(rows) * weight)
        return together, int(self.store.lengths[rows].sum()) + len(rows), norm

    def _batch(self, rows: np.ndarray) -> Batch:
        """Sentences as a batch; some of their labels are hidden. Raises UserError for damage."""
        store, labels = self.store, None
        if self.vae.labels is not None and store.labels is not None:
            hidden = torch.rand(len(rows)) < self.config.labels.hidden
            labels = torch.from_numpy(store.labels[rows]).long().masked_fill(hidden, -1)
        batch = collate([store[i] for i in rows.tolist()], labels)
        if (largest := int(batch.tokens.max())) >= self.vae.decoder.input.embedding.num_embeddings:
            raise UserError(
                f"the prepared corpus is damaged: there is no word {largest}; remove the run's "
                "corpus folder and train afresh"
            )
        return batch.to(self.device)

    def settle(self) -> None:
        """What each process saw of the data beside gradients (batch norm) becomes common."""
        for buffer in self.statistics if processes.together() else ():
            buffer.copy_(processes.total(buffer) / processes.count())

    def check(self, number: int) -> None:
        """Raises UserError after too many bad steps in a row."""
        if (bad := int(self.bad)) >= MOST_BAD_STEPS:
            raise diverged(number, f"{bad} gradients in a row were not finite")

    def sound(self, number: int, tensors: Mapping[str, Tensor]) -> None:
        """Raises UserError if one of these is not finite: it must not be saved."""
        broken = [
            name
            for name, value in tensors.items()
            if value.is_floating_point() and not bool(processes.own(value).isfinite().all())
        ]
        for name in chain(*processes.gather(broken)):
            raise diverged(number, f"{name} is not finite")


def diverged(number: int, what: str) -> UserError:
    return UserError(
        f"training diverged at step {number}: {what}. Lower optimizer.lr, then --resume from the "
        "last checkpoint, which is sound"
    )

"""One thread that the model runs in; what several clients ask for at the same time is done at once.

Requests are handled by many threads, but a model is run by one: torch's random state, gradients and
evaluation mode belong to the whole process, and two forward passes side by side are no faster than
one of twice the size. While the model is busy, whatever comes in waits, and is then put together
with all that is like it; so nobody waits for a batch to fill, and batches grow with the load.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures import TimeoutError as TooLate
from contextlib import suppress
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..bundle import Label, Score, TextVAE
from ..cloud import Cloud
from ..generate import Decoding
from ..measuring.survey import InMemory
from ..space import Space

MOST = 1024
"""Rows of one batch: of sentences read or latents written."""


DEADLINE: ContextVar[float | None] = ContextVar("deadline", default=None)
"""When the answer that is being made has to be there, by the monotonic clock."""


class Gone(Exception):
    """Whoever asked does not listen any more."""


class Late(Exception):
    """It took longer than a client is made to wait."""


class Stopped(Exception):
    """The service is ending."""


Work = Callable[[list[Any]], list[Any]]


@dataclass
class Job:
    """kind: jobs of one kind may be done together, by `work` on their payloads; None: alone."""

    kind: Any
    payload: Any
    size: int
    work: Work
    done: "Future[Any]" = field(default_factory=Future)

    def end(self, result: Any = None, error: BaseException | None = None) -> None:
        """Says what came of it, if nobody has by now."""
        with suppress(InvalidStateError):
            if error is None:
                self.done.set_result(result)
            else:
                self.done.set_exception(error)


@dataclass
class Asker:
    """Who waits for an answer, and for which job just now."""

    job: Job | None = None
    gone: bool = False

    def leave(self) -> None:
        self.gone = True
        if self.job is not None:
            self.job.done.cancel()  # has no effect once it is begun


ASKER: ContextVar[Asker | None] = ContextVar("asker", default=None)
"""Whose answer is being made, where that is known."""


class Engine:
    """The thread, and the queue before it. seconds: that a client waits for an answer at most, or,
    where none has begun (`begin`), for each thing that is asked for. watch: called with the rows of
    each batch done."""

    def __init__(self, *, seconds: float = 30.0, watch: Callable[[int], None] = lambda rows: None):
        self.seconds, self.watch = seconds, watch
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self.changed = threading.Condition()
        self.open = True
        # A daemon: nobody should wait for a long sentence when the service is told to stop.
        self.thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.thread.start()

    def join(self, kind: Any, payload: Any, size: int, work: Work, *, patient: bool = False) -> Any:
        """What `work` makes of `payload`, perhaps together with others. patient: however long it
        takes. Raises Gone, Late, Stopped."""
        if threading.current_thread() is self.thread:
            return work([payload])[0]
        job, asker = Job(kind, payload, size, work), ASKER.get()
        if asker is not None:
            asker.job = job
            if asker.gone:
                raise Gone
        with self.changed:
            if not self.open:
                raise Stopped
            self.waiting.append(job)
            self.changed.notify()
        end = DEADLINE.get()
        left = self.seconds if end is None else end - time.monotonic()
        try:
            return job.done.result(None if patient else left)
        except TooLate:
            job.done.cancel()  # has no effect once it is begun
            raise Late from None
        except CancelledError:
            raise Gone from None

    async def begin(self) -> None:
        """From here on this context has `seconds` for all it asks for: a dependency of routes."""
        DEADLINE.set(time.monotonic() + self.seconds)

    def call(self, work: Callable[[], Any], *, patient: bool = False) -> Any:
        """`work`, alone in the model's thread. Raises Gone, Late, Stopped."""
        return self.join(None, None, 1, lambda _: [work()], patient=patient)

    def close(self) -> None:
        """All who wait are refused; what runs is left to end with the process."""
        with self.changed:
            self.open = False
            left, self.waiting = [*self.running, *self.waiting], deque()
            self.changed.notify_all()
        for job in left:
            job.end(error=Stopped())

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting or not self.open)
                if not self.open:
                    return
                # Whoever has gone away meanwhile is not worked for.
                group = [j for j in self._together() if j.done.set_running_or_notify_cancel()]
                self.running = group
            if not group:
                continue
            try:
                found = group[0].work([job.payload for job in group])
            except BaseException as error:  # theirs to hear, and the thread lives on
                for job in group:
                    job.end(error=error)
                continue
            self.watch(sum(job.size for job in group))
            for job, result in zip(group, found, strict=True):
                job.end(result)

    def _together(self) -> list[Job]:
        """The first that waits and all that can be done with it, in their order."""
        first = self.waiting.popleft()
        group, rows, left = [first], first.size, deque[Job]()
        for job in self.waiting if first.kind is not None else ():
            if job.kind == first.kind and rows + job.size <= MOST:
                group.append(job)
                rows += job.size
            else:
                left.append(job)
        if first.kind is not None:
            self.waiting = left
        return group


@dataclass
class Page:
    """What one client wants written."""

    z: Float[Tensor, "N D"]
    rows: Tensor | None
    chance: Float[Tensor, "N T"]


class SharedVAE(TextVAE):
    """A TextVAE for many threads: it reads and writes through an engine."""

    def __init__(self, model: TextVAE, engine: Engine):
        self.config, self.tokenizer, self.vae = model.config, model.tokenizer, model.vae
        self.fitted, self._trained_prior = model.fitted, model._trained_prior
        self.weights = model.weights
        self.engine = engine

    def draw(
        self, n: int, *, label: str | None = None, seed: int = 0
    ) -> tuple[Float[Tensor, "N D"], list[str | None] | None]:
        own = super().draw
        return self.engine.call(lambda: own(n, label=label, seed=seed))

    def score(
        self, lines: Sequence[str], samples: int = 500, *, label: Label = None, seed: int = 0
    ) -> list[Score]:
        # Sentence by sentence, so that a score is the same in any company, and others get a turn.
        own, labels = super().score, label
        if label is None or isinstance(label, str):
            labels = [label] * len(lines)
        return [
            self.engine.call(lambda: own([line], samples, label=[name], seed=seed))[0]  # noqa: B023
            for line, name in zip(lines, labels or (), strict=True)
        ]

    def _written(
        self, z: Tensor, rows: Tensor | None, how: Decoding, chance: Tensor
    ) -> list[list[int]]:
        own = super()._written

        def work(pages: list[Page]) -> list[list[list[int]]]:
            labels = None if pages[0].rows is None else torch.cat([p.rows for p in pages])  # type: ignore[misc]
            z, chance = (torch.cat([getattr(p, name) for p in pages]) for name in ("z", "chance"))
            together = iter(own(z, labels, how, chance))
            return [list(islice(together, len(p.z))) for p in pages]

        kind = ("write", how, rows is None)
        page = Page(z.cpu(), rows, chance)
        return self.engine.join(kind, page, len(z), work)

    def _means(self, sentences: InMemory) -> Float[Tensor, "N D"]:
        own = super()._means

        def work(asked: list[InMemory]) -> list[Tensor]:
            ids = [ids for some in asked for ids in some.ids]
            labels = None
            if asked[0].labels is not None:
                labels = np.concatenate([some.labels for some in asked])
            return list(own(InMemory(ids, labels)).split([len(some) for some in asked]))

        kind: Any = ("read", sentences.labels is None)
        if self.vae.refinement is not None:  # its steps are taken for a batch as a whole
            kind = None
        return self.engine.join(kind, sentences, len(sentences), work)


class SharedSpace(Space):
    """A Space for many threads; its model is a SharedVAE."""

    @classmethod
    def of(cls, space: Space, engine: Engine) -> "SharedSpace":
        found = cls(space.cloud, space.held, SharedVAE(space.model, engine))
        assert found.usual  # takes seconds, which the first to ask shouldn't wait for
        return found

    def labelled_as(self, label: str | None) -> "SharedSpace":
        """The same space, asked about sentences of a label."""
        found = copy(self)
        found.label = label
        return found

    def own(self, text: str) -> Cloud:
        find = super().own
        engine: Engine = self.model.engine  # type: ignore[attr-defined]
        return engine.call(lambda: find(text))

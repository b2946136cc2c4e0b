"""What happens beside a step of training: sums for the records, and Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Record = dict[str, Any]


class Tally:
    """Sums between two records; sums are divided once, at the end."""

    def __init__(self, now: float) -> None:
        self.since = now
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.sentences = self.words = self.steps = 0
        self.norm: torch.Tensor | float = 0.0
        self.last: dict[str, float | torch.Tensor] = {}

    def add(
        self,
        result: dict[str, torch.Tensor],
        words: int,
        norm: torch.Tensor,
        **last: float | torch.Tensor,
    ) -> None:
        for name, value in result.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().sum()
        self.sentences += len(result["objective"])
        self.words += words
        self.norm = self.norm + norm
        self.steps += 1
        self.last = last

    def flush(self, now: float) -> Record:
        """Means a sentence in nats since the last record, and words (with ``</s>``) a second."""
        means = {name: float(value) / self.sentences for name, value in self.sums.items()}
        record = {
            "objective": means["objective"],
            "elbo": means["log_px"] - means["kl"],
            "log_px": means["log_px"],
            "kl": means["kl"],
            **{name: float(value) for name, value in self.last.items()},
            "grad_norm": float(self.norm) / self.steps,
            "words_per_second": round(self.words / (now - self.since), 1),
        }
        self.since = now
        self._clear()
        return record


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a flag; a second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

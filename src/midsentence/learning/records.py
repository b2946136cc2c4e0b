"""What happens beside a step of training: sums for the records, and Ctrl-C."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .. import processes
from ..errors import UserError
from ..opening import read_text
from ..writing import write_whole

Record = dict[str, Any]

MOST = 1 << 30
"""Bytes of a run's records at most."""


class Tally:
    """Sums between two records; sums are divided once, at the end."""

    def __init__(self, now: float) -> None:
        self.since = now
        self.spent = 0.0  # seconds on what is summed, as of the last step
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
            self.sums[name] = self.sums.get(name, 0.0) + value.double().sum()
        self.sentences += len(result["objective"])
        self.words += words
        self.norm = self.norm + norm.double()
        self.steps += 1
        self.last = last

    def flush(self, now: float) -> Record:
        """Means a sentence in nats since the last record, and words (with ``</s>``) a second.

        Of all processes together, which must all ask.
        """
        sums, sentences = self._totals()
        means = {name: value / sentences for name, value in sums.items()}
        record = {
            "objective": means["objective"],
            "elbo": means["log_px"] - means["kl"],
            "log_px": means["log_px"],
            "kl": means["kl"],
            **{name: float(value) for name, value in self.last.items()},
            "grad_norm": float(self.norm) / self.steps,
            "words_per_second": round(self.words / (now - self.since), 1),
        }
        self.since, self.spent = now, 0.0
        self._clear()
        return record

    def _totals(self) -> tuple[dict[str, float], int]:
        """Sums and the number of sentences, over all processes."""
        held = [torch.as_tensor(value, dtype=torch.double) for value in self.sums.values()]
        if not held:
            return {}, 0
        count = torch.full_like(held[0], self.sentences)
        *sums, sentences = processes.total(torch.stack([*held, count])).tolist()
        return dict(zip(self.sums, sums, strict=True)), int(sentences)

    def state(self) -> Record:
        """What a checkpoint keeps, so that the next record is as if there had been no stop."""
        sums, sentences = self._totals()
        counts = {"sentences": sentences, "words": self.words, "steps": self.steps}
        return {"sums": sums, "norm": float(self.norm), "seconds": self.spent, **counts}

    def restore(self, held: Record) -> None:
        own = float(processes.first())  # the others have seen nothing yet
        sums = held["sums"].items()
        self.sums = {name: torch.tensor(value * own, dtype=torch.double) for name, value in sums}
        self.norm, self.sentences = held["norm"], int(held["sentences"] * own)
        self.words, self.steps = held["words"], held["steps"]
        self.spent = held.get("seconds", 0.0)  # checkpoints once had none


def read(path: Path) -> list[Record]:
    """The records of a run. A last line that is not whole was being written when it was killed."""
    if not path.exists():
        return []
    lines = read_text(path, MOST).split("\n")
    whole = [line for line in lines[:-1] if line.strip()]
    try:
        found = [json.loads(line) for line in whole]
        if not all(isinstance(record, dict) for record in found):
            raise ValueError("no record")
        return found
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged: remove it; only its curves are lost") from None


def append(path: Path, record: Record) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def cut(path: Path, step: int) -> list[Record]:
    """Drop the records after `step`; those that stay."""
    kept = [record for record in read(path) if record["step"] <= step]
    text = "".join(json.dumps(record) + "\n" for record in kept)
    write_whole(path, lambda p: p.write_text(text, "utf-8"))
    return kept


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a flag; one a second later interrupts at once.

    A launcher of several processes sends one of its own after that of the terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked: list[float] = []

    def note(number: int, frame: object) -> None:
        if asked and time.monotonic() > asked[0] + 1:
            raise KeyboardInterrupt
        asked.append(time.monotonic())

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

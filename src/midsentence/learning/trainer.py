"""Training: setup -> fit -> validate -> save. The only file that knows devices and signals."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import bundle
from .. import config as configuration
from ..config import Config
from ..errors import UserError
from ..measuring.alarms import Alarms
from ..measuring.likelihood import bound
from ..parts.layers import frozen
from ..text.batches import Batches, Budget, collate, shuffled, usual
from ..text.corpus import Corpus
from . import checkpoint
from .averaging import Average
from .compiling import compile_in_place
from .objectives import OBJECTIVES, Objective
from .optimizers import OPTIMIZERS, Optimizer, clipped_step
from .procedures import Aggressive, reset_decoder, sides
from .records import Record, Tally, interruptible
from .schedules import schedule

Listener = Callable[[str, Record], None]
"""Called with "start", "train", "valid" or "end" and a record of numbers, or "note" and a text."""

RECORD_EVERY = 25
LEAST_VALIDATIONS = 8
MOST_BAD_STEPS = 10


@dataclass
class Position:
    """Where a run stands: all that a checkpoint keeps besides tensors."""

    step: int = 0
    epoch: int = 0
    index: int = 0  # batches done in this epoch
    seconds: float = 0.0
    best: float = -math.inf
    stale: int = 0
    aggressive: bool = True  # the encoder still gets steps of its own, if it ever does
    information: float = -math.inf  # mutual information at the last validation
    reset: bool = False  # pre-training is over, if there was any
    bad: int = 0  # steps skipped in a row, because a gradient was not finite
    ended: str = ""  # why training is over; empty while it is not


def train(
    config: Config,
    corpus: Corpus,
    out: Path,
    *,
    resume: bool = False,
    listener: Listener = lambda event, record: None,
) -> Position:
    """Train a model into the run folder `out`; best weights by validation bound.

    Ends by budget, early stopping, Ctrl-C or SIGTERM (then ``ended == "interrupted"``), always with
    a checkpoint that `resume` goes on from. Raises UserError.
    """
    run = Trainer(config, corpus, out, listener)
    if resume:
        run.restore()
    return run.fit()


class Trainer:
    """One run: the model, its optimiser, and where training stands."""

    def __init__(self, config: Config, corpus: Corpus, out: Path, listener: Listener):
        settings = config.training
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.config, self.corpus, self.out, self.listener = config, corpus, out, listener
        self.device = bundle.pick_device(settings.device)
        self.vae = bundle.assemble(config, corpus.tokenizer.vocab_size).to(self.device)
        self.optimizer: Optimizer = configuration.build(
            OPTIMIZERS, config.optimizer, self.vae.named_parameters()
        )
        self.schedule, self.alarms = schedule(**config.beta), Alarms(config.latent)
        self.objective: Objective = configuration.build(OBJECTIVES, config.objective)
        self.objective.to(self.device)
        self.aggressive = Aggressive(settings.aggressive) if settings.aggressive else None
        self.reads, self.writes = sides(self.vae)
        self.average = Average(self.vae, settings.average)
        if not 0 <= settings.pretrain < 1:
            raise UserError("training.pretrain is a part of the run: 0 (off) to below 1")
        if settings.average is not None and not 0 <= settings.average < 1:
            raise UserError("training.average is a part of the run: 0 to below 1")
        tokens = settings.batch_tokens or usual(corpus.train.lengths)
        self.budget = Budget(tokens, settings.batch_sentences)
        for part in (self.vae.encoder, self.vae.decoder) if settings.compile else ():
            compile_in_place(part, lambda text: listener("note", {"text": text}))
        self.at, self.bad = Position(), torch.zeros((), dtype=torch.long, device=self.device)
        torch.manual_seed(config.seed)

    def fit(self) -> Position:
        settings, at = self.config.training, self.at
        batches = self._batches()
        planned = math.ceil(settings.epochs * len(batches))
        planned = min(planned, settings.max_steps or planned)
        every = max(
            1, math.ceil(min(len(batches) / settings.validations, planned / LEAST_VALIDATIONS))
        )
        parameters = sum(p.numel() for p in self.vae.parameters())
        self.listener("start", {"steps": planned, "step": at.step, "parameters": parameters})
        began = time.monotonic() - at.seconds
        tally, validated, progress = Tally(time.monotonic()), at.step, self._progress(planned)
        at.ended = ""
        with interruptible() as interrupted:
            while not at.ended and progress < 1 and not interrupted():
                if at.index >= len(batches):
                    at.epoch, at.index = at.epoch + 1, 0
                    batches = self._batches()
                if not at.reset and 0 < settings.pretrain <= progress:
                    self._begin_anew()
                self._step(batches, progress, tally)
                at.step, at.index = at.step + 1, at.index + 1
                at.seconds = time.monotonic() - began
                before, progress = progress, self._progress(planned)
                self.average.add(self.vae, at.step, progress)
                if at.step % RECORD_EVERY == 0:
                    self._check()
                    self._record("train", tally.flush(time.monotonic()), planned, len(batches))
                # A run limited by minutes may end long before its epoch does: look in now and then.
                parts = [int(p * LEAST_VALIDATIONS) for p in (before, progress)]
                if at.step % every == 0 or (settings.max_minutes and parts[0] < parts[1]):
                    validated, looked = at.step, time.monotonic()
                    self._validate(planned, len(batches))
                    now = time.monotonic()
                    tally.since += now - looked  # words a second are of training alone
                    at.seconds = now - began
            if interrupted():
                at.ended = "interrupted"
            elif not at.ended:
                if at.step != validated or at.best == -math.inf:
                    self._validate(planned, len(batches))
                at.ended = at.ended or "budget used"
            self._save()
        self.listener("end", asdict(at))
        return at

    def restore(self) -> None:
        """Go back to the newest whole checkpoint; records after it are dropped."""
        found = checkpoint.latest(self.out / "checkpoints")
        if found is None:
            raise UserError(f"{self.out}: no checkpoint to resume from; train without --resume")
        tensors, state = found
        model = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
        bundle.load_weights(self.vae, model, self.out)
        checkpoint.restore_optimizers(self.optimizer.each, tensors)
        learned = {k[10:]: v for k, v in tensors.items() if k.startswith("objective.")}
        self.objective.load_state_dict(learned)
        self.average.restore({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
        self.optimizer.__dict__.update(state["optimizer"])
        self.at = Position(**state["position"])
        self.bad.fill_(self.at.bad)
        torch.set_rng_state(tensors["rng"])
        if "rng.cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        path = self.out / "metrics.jsonl"
        if path.exists():
            lines = path.read_text("utf-8").splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= self.at.step]
            text = "".join(line + "\n" for line in kept)
            checkpoint.write_whole(path, lambda p: p.write_text(text, "utf-8"))

    def _batches(self) -> Batches:
        return shuffled(self.corpus.train.lengths, self.budget, self.config.seed, self.at.epoch)

    def _progress(self, planned: int) -> float:
        minutes = self.config.training.max_minutes
        used = self.at.step / planned if planned else 1.0
        return max(used, self.at.seconds / (60 * minutes)) if minutes is not None else used

    def _beta(self, progress: float) -> float:
        """The KL's weight: none while the encoder is pre-trained, then as scheduled."""
        pretrain = self.config.training.pretrain
        return 0.0 if progress < pretrain else self.schedule((progress - pretrain) / (1 - pretrain))

    def _begin_anew(self) -> None:
        """Pre-training is over: another decoder, and no bound has been reached yet."""
        other = self.config.model_copy(update={"seed": self.config.seed + 1})
        fresh = bundle.assemble(other, self.corpus.tokenizer.vocab_size)
        reset_decoder(self.vae, fresh, self.optimizer.each)
        self.average.forget()
        self.at.reset, self.at.best, self.at.stale = True, -math.inf, 0

    def _step(self, batches: Batches, progress: float, tally: "Tally") -> None:
        rates, beta = self.optimizer.rates(progress), self._beta(progress)
        for each, rate in zip(self.optimizer.each, rates, strict=True):
            for group in each.param_groups:
                group["lr"] = rate
        self.vae.train()
        others: list[torch.nn.Parameter] = []
        if self.aggressive and self.at.aggressive:
            others = self.reads

            def read() -> tuple[torch.Tensor, int]:
                rows = batches[int(torch.randint(len(batches), ()))]
                with frozen(self.writes):
                    result, words, _ = self._update(rows, beta, len(batches))
                return result["objective"].detach().sum(), words

            self.aggressive.catch_up(read)
        with frozen(others):
            result, words, norm = self._update(batches[self.at.index], beta, len(batches))
        tally.add(result, words, norm, beta=self.objective.weight(beta), lr=rates[0])

    def _update(
        self, rows: Any, beta: float, per_epoch: int
    ) -> tuple[dict[str, torch.Tensor], int, torch.Tensor]:
        """One gradient step on the sentences `rows`: (result, words, gradient norm)."""
        store = self.corpus.train
        labels = None
        if self.vae.labels is not None and store.labels is not None:
            hidden = torch.rand(len(rows)) < self.config.labels.hidden
            labels = torch.from_numpy(store.labels[rows]).long().masked_fill(hidden, -1)
        batch = collate([store[i] for i in rows.tolist()], labels).to(self.device)
        result = self.vae(batch, self.objective.samples, partial(self.objective, beta=beta))
        # The mean over sentences. The divisor is the epoch's mean batch and not this one's, so that
        # a sentence weighs the same whatever company its length brings it into.
        loss = -result["objective"].sum() * per_epoch / len(store)
        self.vae.zero_grad()
        loss.backward()
        norm = clipped_step(self.optimizer.each, self.config.training.clip)
        self.bad = torch.where(norm.isfinite(), 0, self.bad + 1)
        return result, int(store.lengths[rows].sum()) + len(rows), norm

    def _check(self) -> None:
        """Looked at now and then only: reading a number makes an accelerator wait."""
        self.at.bad = int(self.bad)
        if self.at.bad >= MOST_BAD_STEPS:
            raise UserError(
                f"training diverged at step {self.at.step}: {self.at.bad} gradients in a row "
                "were not finite. Lower optimizer.lr, then --resume from the last checkpoint"
            )

    def _validate(self, planned: int, per_epoch: int) -> None:
        with self.average.instead(self.vae):
            better = self._look(planned, per_epoch)
        at, training = self.at, self.config.training
        verdict = self.optimizer.validated(better, at.step / per_epoch)
        if verdict == "back to best":
            best = checkpoint.load_tensors(self.out / "model.safetensors")
            bundle.load_weights(self.vae, best, self.out)
        elif verdict == "stop":
            at.ended = "learning rate halved to its end"
        elif training.patience and at.stale >= training.patience:
            at.ended = f"no better bound in {at.stale} validations"
        self._save()

    def _look(self, planned: int, per_epoch: int) -> bool:
        """Measure the bound on the validation part; a better model than before is saved."""
        at = self.at
        self.vae.eval()
        found = bound(self.vae, self.corpus.valid, seed=self.config.seed)
        self._record("valid", found, planned, per_epoch)
        at.aggressive = at.aggressive and found["mi"] > at.information
        at.information = found["mi"]
        beta = self._beta(self._progress(planned))
        for text in self.alarms(found | {"step": at.step}, beta, self._beta(1.0)):
            self.listener("note", {"text": text})
        better = found["elbo"] > at.best
        if better:
            at.best, at.stale = found["elbo"], 0
            bundle.save(self.out, self.config, self.corpus.tokenizer, self.vae)
        elif self._beta(self._progress(planned)) == self._beta(1.0):
            at.stale += 1  # the bound may well fall while the KL's weight is still moving
        return better

    def _record(self, kind: str, found: Record, planned: int, per_epoch: int) -> None:
        at = self.at
        record = {
            "kind": kind,
            "step": at.step,
            "epoch": round(at.step / per_epoch, 4),
            "progress": round(self._progress(planned), 6),
            "seconds": round(at.seconds, 2),
            **found,
        }
        with (self.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.listener(kind, record)

    def _save(self) -> None:
        tensors = {f"model.{k}": v for k, v in bundle.weights(self.vae).items()}
        tensors |= checkpoint.optimizer_tensors(self.optimizer.each)
        tensors |= {f"objective.{k}": v for k, v in self.objective.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.tensors().items()}
        tensors["rng"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        self.at.bad = int(self.bad)
        own = {k: v for k, v in self.optimizer.__dict__.items() if k in ("halved", "stale")}
        state = {"position": asdict(self.at), "optimizer": own}
        checkpoint.save(self.out / "checkpoints", self.at.step, tensors, state)

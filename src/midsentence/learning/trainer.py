"""Training: setup -> fit -> validate -> save. The only file that knows devices and signals."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from .. import assembly, processes
from ..config import Config
from ..measuring.alarms import Alarms, settled
from ..measuring.likelihood import bound
from ..opening import verify
from ..parts.head import has_fast_bfloat16
from ..text.batches import Batches, Budget, shuffled, usual
from ..text.corpus import Corpus
from ..text.store import pick
from ..weights import load_tensors, load_weights, tensors_of
from . import checkpoint
from .averaging import Average
from .compiling import compile_in_place
from .planning import LEAST_VALIDATIONS, Plan, plan
from .procedures import reset_decoder
from .records import Record, Tally, append, cut, interruptible
from .schedules import schedule
from .sharding import put_together
from .steps import Steps

Listener = Callable[[str, Record], None]
"""Called with "start", "train", "valid" or "end" and a record of numbers, "note" and a text, and
after all "verdict" with what the doctor says."""

RECORD_EVERY = 25
SHORT = 512
"""Hidden states up to which a step is short: at 1,024 more of oneDNN's programs gain nothing."""

WORTH = 4
"""Times as long as a validation took, it is trained before one that no epoch asks for."""


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
    begun: int = 0  # the step at which it was
    validated: int = 0  # the step of the last validation
    bad: int = 0  # steps skipped in a row, because a gradient was not finite
    skipped: int = 0  # the same in all
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
        self.valid = pick(corpus.valid, settings.valid_sentences, config.seed)
        self.device = assembly.pick_device(settings.device)
        self.vae = assembly.assemble(config, corpus.tokenizer.vocab_size)
        # oneDNN keeps what it makes for a shape, and every batch is another: of 1,024, its own
        # bound, up to a few hundred megabytes. In bf16, to make it again takes a tenth of a step,
        # if that is a short one. It reads this once, at a process's first product.
        short = has_fast_bfloat16(torch.device("cpu")) and self.vae.decoder.width <= SHORT
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512" if short else "32")
        self.schedule, self.alarms = schedule(**config.beta), Alarms(config.latent)
        self.steps = Steps(self.vae, config, corpus.train, self.device)
        self.optimizer, self.objective = self.steps.optimizer, self.steps.objective
        self.average = Average(self.vae, settings.average)
        tokens = settings.batch_tokens or usual(corpus.train.lengths)
        self.budget = Budget(tokens, settings.batch_sentences)
        for part in (self.vae.encoder, self.vae.decoder) if settings.compile else ():
            compile_in_place(part, lambda text: listener("note", {"text": text}))
        self.at, self.tally = Position(), Tally(time.monotonic())
        self.pretrain = settings.pretrain
        self.plan = Plan(per_epoch=1, steps=0, every=1)

    def fit(self) -> Position:
        settings, at = self.config.training, self.at
        batches = self._batches(at.epoch)
        # Epochs differ in length by a batch or two: a run that is gone on with must plan as before.
        self.plan = plan(settings, len(self._batches(0) if at.epoch else batches))
        self.steps.expect(self.plan.per_epoch)
        parameters = sum(p.numel() for p in self.vae.parameters())
        begun = {"steps": self.plan.steps, "step": at.step, "parameters": parameters}
        self.listener("start", begun)
        began = time.monotonic() - at.seconds
        tally, progress = self.tally, self._progress()
        tally.since = time.monotonic() - tally.spent
        at.ended = self._over()
        last = cost = 0.0  # when it was last validated, and how long that took; seconds
        with interruptible() as interrupted:
            stop = float(interrupted())
            while not at.ended and progress < 1 and not stop:
                if at.index >= len(batches):
                    at.epoch, at.index = at.epoch + 1, 0
                    batches = self._batches(at.epoch)
                if self._pretraining and progress >= self.pretrain:
                    self._begin_anew()
                self._step(batches, progress)
                at.step, at.index = at.step + 1, at.index + 1
                # Processes have clocks of their own, and Ctrl-C reaches them one by one.
                at.seconds, stop = processes.most(time.monotonic() - began, interrupted())
                tally.spent = began + at.seconds - tally.since
                before, progress = progress, self._progress()
                self.average.add(self.vae, at.step, progress)
                if at.step % RECORD_EVERY == 0 or self.device.type == "cpu":
                    self.steps.check(at.step)
                if at.step % RECORD_EVERY == 0:
                    found = tally.flush(time.monotonic())
                    found["skipped"] = int(self.steps.skipped)
                    self._record("train", found)
                # A run limited by minutes may end long before its epoch does: look in now and then,
                # as long as most of the minutes are left to the training.
                parts = [int(p * LEAST_VALIDATIONS) for p in (before, progress)]
                passed = bool(settings.max_minutes) and parts[0] < parts[1]
                if at.step % self.plan.every == 0 or (passed and at.seconds - last >= WORTH * cost):
                    looked = time.monotonic()
                    self._validate()
                    now = time.monotonic()
                    tally.since += now - looked  # words a second are of training alone
                    last, cost = processes.most(now - began, now - looked)
                    at.seconds = last
            if stop and not at.ended:
                at.ended = "interrupted"
            elif not at.ended:
                if at.step != at.validated or at.best == -math.inf:
                    self._validate()
                at.ended = at.ended or "budget used"
            self._save()
        self.listener("end", asdict(at))
        return at

    def restore(self) -> None:
        """Go back to the newest whole checkpoint; records after it are dropped."""
        found = checkpoint.latest(self.out / "checkpoints")
        if found is None:
            self._keep_records()
            return  # it was stopped before there was one
        tensors, state = found
        model = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
        load_weights(self.vae, model, self.out)
        checkpoint.restore_optimizers(self.optimizer.each, tensors)
        learned = {k[10:]: v for k, v in tensors.items() if k.startswith("objective.")}
        own_state = self.objective.state_dict()  # another objective begins with what it begins with
        self.objective.load_state_dict({k: learned.get(k, v) for k, v in own_state.items()})
        self.average.restore({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
        self.at = Position(**state["position"])
        self.optimizer.restore(state["optimizer"], self.at.best)
        if "tally" in state:
            self.tally.restore(state["tally"])
        self.steps.bad.fill_(self.at.bad)
        self.steps.skipped.fill_(self.at.skipped)
        self._keep_records()

    def _keep_records(self) -> None:
        """Records that were made after the step where the run stands are made again."""
        path = self.out / "metrics.jsonl"
        if path.exists() and processes.first():
            kept = cut(path, self.at.step)
            for record in (r for r in kept if r["kind"] == "valid"):
                free = record["step"] <= self.at.begun  # of the encoder that was pre-trained
                beta = 0.0 if free else self._beta(record["progress"])
                self.alarms(record, beta, self._beta(1.0))

    def _batches(self, epoch: int) -> Batches:
        return shuffled(self.corpus.train.lengths, self.budget, self.config.seed, epoch)

    def _progress(self) -> float:
        minutes = self.config.training.max_minutes
        used = self.at.step / self.plan.steps if self.plan.steps else 1.0
        return max(used, self.at.seconds / (60 * minutes)) if minutes is not None else used

    def _beta(self, progress: float) -> float:
        """The KL's weight: none while the encoder is pre-trained, then as scheduled."""
        if self._pretraining and progress < self.pretrain:
            return 0.0  # a run that is extended has that part before it again, and is past it
        return self.schedule(max(0.0, progress - self.pretrain) / (1 - self.pretrain))

    def _begin_anew(self) -> None:
        """Pre-training is over: its best encoder, another decoder, and no bound reached yet."""
        if self.at.best > -math.inf:
            self._back_to_best()
        other = self.config.model_copy(update={"seed": self.config.seed + 1})
        fresh = assembly.assemble(other, self.corpus.tokenizer.vocab_size)
        reset_decoder(self.vae, fresh, self.optimizer.each)
        self.average.forget()
        self.optimizer.begin_anew()
        self.at.reset, self.at.begun, self.at.aggressive = True, self.at.step, True
        self.at.best, self.at.stale, self.at.information = -math.inf, 0, -math.inf
        self._save()  # the best model will be another one: a stop must not go back before this

    def _back_to_best(self) -> None:
        verify(self.out, assembly.FILES, mixed=True)
        load_weights(self.vae, load_tensors(self.out / "model.safetensors"), self.out)
        self.average.forget()  # the way there is not the one that is gone on from here

    @property
    def _pretraining(self) -> bool:
        return self.pretrain > 0 and not self.at.reset

    def _step(self, batches: Batches, progress: float) -> None:
        at, rates, beta = self.at, self.optimizer.rates(progress), self._beta(progress)
        self.steps.step(
            at.step, batches, at.index, rates, beta, reads_first=at.aggressive, tally=self.tally
        )

    def _validate(self) -> None:
        self.steps.settle()
        self.steps.sound(self.at.step, dict(self.vae.named_parameters()))
        with self.average.instead(self.vae):
            worth = self._look()
        at = self.at
        at.validated = at.step
        if self.optimizer.validated(worth, (at.step - at.begun) / self.plan.per_epoch):
            self._back_to_best()
        at.ended = self._over()
        if not at.ended and self._progress() < 1:
            self._save()  # the end is saved as such

    def _over(self) -> str:
        """Why validations say that training is over; empty while they do not."""
        at, patience = self.at, self.config.training.patience
        if self._pretraining:
            return ""
        if self.optimizer.over:
            return "learning rate halved to its end"
        return f"no better bound in {at.stale} validations" if 0 < patience <= at.stale else ""

    def _look(self) -> float:
        """Measure the bound on the validation part; a better model than before is saved.

        What counts is the bound; while an autoencoder is trained, its reconstructions."""
        at = self.at
        with put_together(self.vae):
            found = bound(self.vae, self.valid, seed=self.config.seed)
        self._record("valid", found)
        at.aggressive = at.aggressive and found["mi"] >= at.information
        at.information = found["mi"]
        beta = self._beta(self._progress())
        for text in self.alarms(found | {"step": at.step}, beta, self._beta(1.0)):
            self.listener("note", {"text": text})
        worth = found["log_px" if self._pretraining else "elbo"]
        if worth > at.best:
            at.best, at.stale = worth, 0
            assembly.save(self.out, self.config, self.corpus.tokenizer, self.vae)
        elif settled(beta, self._beta(1.0)):
            at.stale += 1  # the bound may well fall while the KL's weight is still moving
        return worth

    def _record(self, kind: str, found: Record) -> None:
        at = self.at
        record = {
            "kind": kind,
            "step": at.step,
            "epoch": round(at.step / self.plan.per_epoch, 4),
            "progress": round(self._progress(), 6),
            "seconds": round(at.seconds, 2),
            **found,
        }
        if processes.first():
            append(self.out / "metrics.jsonl", record)
        self.listener(kind, record)

    def _save(self) -> None:
        tensors = {f"model.{k}": v for k, v in tensors_of(self.vae).items()}
        tensors |= checkpoint.optimizer_tensors(self.optimizer.each)
        tensors |= {f"objective.{k}": v for k, v in self.objective.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.tensors().items()}
        self.steps.sound(self.at.step, tensors)
        tensors = processes.collected(tensors)
        self.at.bad, self.at.skipped = int(self.steps.bad), int(self.steps.skipped)
        own = {"optimizer": self.optimizer.state(), "tally": self.tally.state()}
        state = {"position": asdict(self.at), **own}
        if processes.first():
            checkpoint.save(self.out / "checkpoints", self.at.step, tensors, state)
        processes.gather(None)  # who is done sooner would end, and have the first ended meanwhile

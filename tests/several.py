"""What each of several processes runs for test_processes.py: trainings, one after the other."""

import json
import os
import signal
import sys
from pathlib import Path

from midsentence import pipeline, processes

FAST = [
    "latent=4", "encoder.embedding=8", "encoder.hidden=8", "decoder.embedding=8",
    "decoder.hidden=8", "training.batch_tokens=128", "tokenizer.kind=word", "corpus.max_tokens=32",
    "precision=float32", "training.max_steps=12", "training.parts=4",
]  # fmt: skip
NARROW = ["decoder.kind=transformer", "encoder.kind=transformer", "decoder.heads=2"]
NARROW += ["encoder.heads=2", "training.recompute=true", "encoder.dropout=0.1"]

CASES = {
    "plain": ["decoder.dropout=0.2", "decoder.word_dropout=0.1"],
    "in pieces": [*NARROW, "training.strategy=fsdp", "head.tied=true", "training.average=0.3"],
    "plain, briefly": ["decoder.dropout=0.2", "training.max_steps=4"],
    "in pieces, briefly": [*NARROW, "training.strategy=fsdp", "training.max_steps=4"],
    "mixed": ["optimizer.kind=mixed", "training.pretrain=0.3", "objective.kind=rate"],
    "aggressive": ["training.aggressive=10", "optimizer.kind=sgd", "optimizer.lr=0.05"],
    "iwae": ["objective.kind=iwae", "objective.samples=3", "objective.bow=0.1", "prior.kind=vamp"],
}
"""Every kind of state that processes must keep equal."""


def small_text(folder):
    """The path of a text of 48 lines, enough for two steps an epoch."""
    people, things = ("anna", "ben", "carla", "dirk"), ("a book", "two trees", "the sea")
    path = folder / "text.txt"
    path.write_text("\n".join(f"{p} {v} {t}" for p in people for v in "sxyz" for t in things))
    return str(path)


def settings(name):
    drop = ("decoder.embedding", "encoder.embedding") if "transformer" in str(CASES[name]) else ()
    return [s for s in FAST if not s.startswith(drop)] + CASES[name] if drop else FAST + CASES[name]


def train(corpus, folder, name, *, stop=None, resume=False):
    """A case, trained to its end or until it is told to stop after the step `stop`."""

    def listen(event, record):
        if event == "valid" and record["step"] == stop:
            os.kill(os.getpid(), signal.SIGINT)

    return pipeline.train(
        corpus, folder / name, settings=[] if resume else settings(name), resume=resume,
        listener=listen,
    )  # fmt: skip


def train_all(corpus, folder, names, *, stop=None, resume=False):
    for name in names:
        model = train(corpus, folder, name, stop=stop, resume=resume)
        text = model and model.sample(7, seed=1)
        if text and processes.first():
            (folder / name / "samples.json").write_text(json.dumps(text))


if __name__ == "__main__":
    corpus, folder, stop, resume, *names = sys.argv[1:]
    train_all(corpus, Path(folder), names, stop=int(stop), resume=resume == "resume")
    processes.leave()

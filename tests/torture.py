"""Trainings that are killed and go on, against trainings that were left alone.

    python tests/torture.py [--kills 50] [--seed 0]

Half of the kills come at a random time, half at a random one of the things that are asked of the
disk inside `checkpoint.save` and `assembly.save` (`faults.py`); up to five in one run, in one at
least. What is compared by SHA-256: every tensor of the last
checkpoint, its state, the model folder, the records, and ten samples. Clocks are left out.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from functools import partial
from itertools import cycle, product
from pathlib import Path

import torch

import faults
from midsentence import TextVAE, UserError, pipeline
from midsentence.learning import checkpoint
from midsentence.learning.records import read
from several import FAST, small_text

CLOCKS = ("seconds", "words_per_second")
KINDS = ("lstm", "transformer")
LONGEST = 5


def cases(threads=(1, 2), precisions=("float32", "bfloat16")):
    """Settings by name: models, threads and precisions."""
    found = {}
    for kind, count, precision in product(KINDS, threads, precisions):
        usual = [s for s in FAST if "precision" not in s and "parts" not in s]
        if kind == "transformer":
            usual = [s for s in usual if "embedding" not in s]
            usual += ["encoder.heads=2", "decoder.heads=2"]
        found[f"{kind}, {count} threads, {precision}"] = [
            *usual, f"encoder.kind={kind}", f"decoder.kind={kind}", f"precision={precision}",
            f"training.threads={count}", "training.max_steps=60", "training.epochs=99",
            "training.patience=0", "training.validations=0.1",
            "decoder.dropout=0.2", "training.average=0.5",
        ]  # fmt: skip
    return found


def in_child(act, kill_after: float | None = None) -> int:
    """Run `act` in a copy of this process; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if kill_after is not None:
        end = time.monotonic() + kill_after
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train(source: str, out: Path, settings: list[str], die_at: int = 0) -> None:
    """What a person does: begin, or go on with what there is. Dies at the k-th call in saving."""
    if die_at:
        faults.watched(faults.Disk(out, faults.dying, die_at, saving=True))
    if (out / "config.toml").exists():
        pipeline.train(source, out, resume=True)
    else:
        pipeline.train(source, out, settings=settings)
    (out / "samples.json").write_text(json.dumps(TextVAE.from_pretrained(out).sample(10, seed=3)))


def fingerprint(out: Path) -> dict[str, str]:
    """SHA-256 of everything that must be the same."""
    tensors, state = checkpoint.latest(out / "checkpoints")
    state["position"].pop("seconds"), state["tally"].pop("seconds")
    records = [{k: v for k, v in r.items() if k not in CLOCKS} for r in read(out / "metrics.jsonl")]
    parts = {f"checkpoint {name}": t.numpy().tobytes() for name, t in tensors.items()}
    parts |= {
        name: (out / name).read_bytes()
        for name in ("config.toml", "tokenizer.json", "model.safetensors", "samples.json")
    }
    parts |= {"state": json.dumps(state).encode(), "metrics": json.dumps(records).encode()}
    return {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}


def torture(folder: Path, kills: int, seed: int, settings: dict[str, list[str]], say=print) -> int:
    """Kill and go on, `kills` times in all; the number of chains that ended otherwise."""
    chance, source, wrong, longest = random.Random(seed), small_text(folder), 0, 0
    whole, calls, lasted, kinds = {}, {}, {}, {"time": 0, "saving": 0}
    for name, its in settings.items():
        out = folder / "whole"
        began = time.monotonic()
        assert in_child(partial(train, source, out, its)) == 0
        lasted[name] = time.monotonic() - began
        whole[name] = fingerprint(out)
        calls[name] = counted(source, folder / "counted", its)
        assert fingerprint(folder / "counted") == whole[name], f"{name}: two runs differ"
        for left in ("whole", "counted"):
            shutil.rmtree(folder / left)
    for name in cycle(settings):
        left = kills - sum(kinds.values())
        if not left:
            break
        out, chain = folder / "killed", []
        planned = min(left, LONGEST if longest < LONGEST else 1 + chance.randrange(LONGEST))
        while len(chain) < planned:
            kind = min(kinds, key=kinds.__getitem__)
            at, after = 0, None  # each within its part of the run, or it would be over first
            if kind == "saving":
                at = 1 + chance.randrange(calls[name] // planned)
            else:
                after = chance.random() * lasted[name] / planned
            code = in_child(partial(train, source, out, settings[name], at), after)
            if code == 0:
                break  # it was over first
            if code != -signal.SIGKILL:
                say(f"FAILED    {name}: ended with {code} after {chain}")
                return wrong + 1
            chain.append(f"call {at}" if at else f"{after:.2f} s")
            kinds[kind] += 1
        longest = max(longest, len(chain))
        code = in_child(partial(train, source, out, settings[name]))
        same = code == 0 and fingerprint(out) == whole[name]
        if chain:
            say(f"{'the same' if same else 'DIFFERENT'}  {name}: killed at {', '.join(chain)}")
        if not same:
            other = fingerprint(out) if code == 0 else {}
            others = [k for k in whole[name] if other.get(k) != whole[name][k]]
            say(f"    exit {code}; {others[:5]}")
        wrong += not same
        shutil.rmtree(out)
    say(
        f"{kills} kills ({kinds['saving']} inside saving), {longest} in the longest chain, "
        f"{wrong} chains that ended otherwise"
    )
    return wrong


def counted(source: str, out: Path, settings: list[str]) -> int:
    """How much is asked of the disk inside saving, by a training that is left alone."""
    read, write = os.pipe()

    def count():
        disk = faults.Disk(out, saving=True)
        faults.watched(disk)
        train(source, out, settings)
        os.write(write, str(disk.count).encode())

    assert in_child(count) == 0
    return int(os.read(read, 100))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="One thread, fp32.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            settings = cases((1,), ("float32",)) if asked.short else cases()
            sys.exit(bool(torture(Path(folder), asked.kills, asked.seed, settings)))
        except UserError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    torch.set_num_threads(1)  # a pool of threads doesn't survive a fork
    main()

"""Speed, beside the reference: python benchmarks/speed.py TRAIN TEST [--config ptb|yahoo] [--json]

Training words/s, IW-500 sentences/s, greedy, sampling and beam-5 sentences/s, peak memory in
training, and the share of this machine's measured product peak that training reaches (bf16 where
the processor has it, else fp32). --set trains ours with other settings, as
--set head.gradient_words=1024. With
--peer CHECKOUT the same tasks are done by vae-lagging-encoder at the same sizes, in turn with ours,
and on the same weights where something is evaluated or written. benchmarks/README.md says how to
read it. Without TRAIN and TEST, --config yahoo draws text with Yahoo's statistics.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lanes import LATENT, SIZES, serve
from midsentence.parts.head import has_fast_bfloat16
from midsentence.text.corpus import prepare

KIND = torch.bfloat16 if has_fast_bfloat16(torch.device("cpu")) else torch.float32
WORDS = 512
"""That ours estimates the likelihood by, the second time; the reference has no such thing."""

PEAK = f"{str(KIND).removeprefix('torch.')} peak, GFLOP/s"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("texts", nargs="*", metavar="TRAIN TEST", type=Path)
    parser.add_argument("--config", choices=SIZES, default="ptb")
    parser.add_argument("--peer", type=Path, help="a checkout of jxhe/vae-lagging-encoder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", default="train,likelihood,greedy,sample,beam")
    parser.add_argument("--steps", type=int, default=100, help="of training a round")
    parser.add_argument("--warm", type=int, default=600, help="steps before anything is written")
    parser.add_argument("--precision", default="auto", help="precision of ours")
    parser.add_argument("--set", nargs="*", default=[], help="settings of ours, a.b=c")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if len(asked.texts) not in ((0, 2) if asked.config == "yahoo" else (2,)):
        parser.error("give TRAIN and TEST (only --config yahoo can draw its own)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = asked.texts or draw_yahoo(folder)
        found = measure(asked, folder, *texts)
    print(json.dumps(found, indent=1) if asked.json else table(found, asked))


def measure(asked: argparse.Namespace, folder: Path, train: Path, test: Path) -> dict[str, Any]:
    corpus = prepare(
        str(train), folder / "corpus", valid=str(test), test=str(test),
        tokenizer_settings={"kind": "word"},
    )  # fmt: skip
    words = corpus.tokenizer.pieces(range(corpus.tokenizer.vocab_size))
    (folder / "words.json").write_text(json.dumps(words))
    for part, store in (("train", corpus.train), ("test", corpus.test)):
        lines = store.text(corpus.tokenizer, range(len(store)))
        (folder / f"{part}.txt").write_text("\n".join(lines) + "\n", "utf-8")
    rows = np.random.default_rng(0).permutation(len(corpus.test))
    tasks, found = asked.tasks.split(","), {}
    if "train" in tasks:  # before there are lanes, which take both cores to start
        found[PEAK] = {"ours": [product_peak(asked.threads)]}
    lanes = {"ours": Lane(folder, "ours", asked.precision, asked)}
    if asked.peer:
        lanes["peer"] = Lane(folder, "peer", str(asked.peer.resolve()), asked)

    def rounds(name: str, **arguments: dict[str, Any]) -> None:
        """One uncounted turn each, then `asked.rounds` in alternation."""
        made: dict[str, list[Any]] = {lane: [] for lane in arguments}
        for turn in range(asked.rounds + 1):
            for lane, (task, details) in arguments.items():
                answer = lanes[lane].do(task, **details)
                if turn:
                    made[lane].append(answer)
        found[name] = {lane: [a["rate"] for a in answers] for lane, answers in made.items()}
        for lane, answers in made.items():
            if "nll" in answers[0]:
                found.setdefault(f"NLL, {name.partition(',')[0]}", {})[lane] = answers[0]["nll"]
            if name == "greedy":
                written[lane] = answers[0]["lines"]
        print(f"{name}: {line(found[name])}", file=sys.stderr, flush=True)

    written: dict[str, list[str]] = {}
    if "train" in tasks:
        by_32 = {"steps": asked.steps, "batch": 32}
        rounds("training, batch 32, words/s", **dict.fromkeys(lanes, ("train", by_32)))
        own = {"ours": ("train", by_32 | {"batch": None}), "peer": ("train", by_32)}
        rounds("training, default batch, words/s", **{lane: own[lane] for lane in lanes})
        found["peak memory, MB"] = {k: [lane.do("memory")["rate"]] for k, lane in lanes.items()}
    lanes["ours"].do("train", steps=asked.warm, batch=None, tag="warm")
    for lane in lanes.values():
        lane.do("load", path=str(folder / "run-warm" / "model.safetensors"))
    some = [int(i) for i in rows[:64]]
    count = {"ours": len(some), "peer": 4}
    if "likelihood" in tasks:
        for name, few in ("IW-500", 0), (f"IW-500 by {WORDS} words", WORDS):
            asking = {k: {"rows": some[: count[k]], "words": few} for k in lanes}
            rounds(f"{name}, sentences/s", **{k: ("likelihood", asking[k]) for k in lanes})
    count = {"greedy": (2000, 100), "sample": (2000, 100), "beam": (500, 10)}
    for kind in ("greedy", "sample", "beam"):
        if kind in tasks:
            sizes = dict(zip(("ours", "peer"), count[kind], strict=True))
            rounds(kind, **{k: ("write", {"count": sizes[k], "kind": kind}) for k in lanes})
    for lane in lanes.values():
        lane.end()
    found["flop a word"] = {"ours": [flop(asked.config, len(words))]}
    if "peer" in written:
        pairs = list(zip(written["ours"], written["peer"], strict=False))
        found["greedy sentences that agree"] = {"ours": [np.mean([a == b for a, b in pairs])]}
    return found


class Lane:
    """A process that does one task at a time."""

    def __init__(self, folder: Path, name: str, other: str, asked: argparse.Namespace):
        command = [sys.executable, __file__, "--lane", name, str(folder), asked.config, other,
                   str(asked.threads), *asked.set]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, task: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([task, arguments]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a lane ended early; what it said is above")
        return dict(json.loads(answer))

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def product_peak(threads: int) -> float:
    """The best of many products of the sizes that training makes, GFLOP/s."""
    torch.set_num_threads(threads)
    best = 0.0
    for m, k, n in ((1024, 1024, 10_000), (2048, 2048, 2048), (1024, 256, 10_000)):
        a, b = torch.randn(m, k).to(KIND), torch.randn(k, n).to(KIND)
        out = torch.empty(m, n, dtype=KIND)
        for _ in range(12):
            began = time.perf_counter()
            torch.mm(a, b, out=out)
            best = max(best, 2 * m * k * n / (time.perf_counter() - began) / 1e9)
    return best


def flop(size: str, vocab: int) -> int:
    """Of the matrix products a word in training: forward once, backward twice."""
    s = SIZES[size]
    reads = 4 * s["enc_nh"] * (s["ni"] + s["enc_nh"])
    writes = 4 * s["dec_nh"] * (s["ni"] + LATENT + s["dec_nh"])
    return 6 * (reads + writes + s["dec_nh"] * vocab)


def draw_yahoo(folder: Path) -> tuple[Path, Path]:
    """Zipf words, 20,000 types, about 80 words a line (He et al. 2019, appendix: Yahoo)."""
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, 20_001)
    edges = np.cumsum(weights / weights.sum())
    paths = []
    for part, count in (("train", 20_000), ("test", 500)):
        lengths = np.clip(rng.normal(80, 25, count).round(), 20, 200).astype(int)
        lines = (" ".join(f"w{i}" for i in np.searchsorted(edges, rng.random(n))) for n in lengths)
        paths.append(folder / f"drawn-{part}.txt")
        paths[-1].write_text("\n".join(lines) + "\n")
    return paths[0], paths[1]


def line(rates: dict[str, list[float]]) -> str:
    return ", ".join(
        f"{lane} {statistics.median(r):,.1f} ({min(r):,.1f} to {max(r):,.1f})"
        for lane, r in rates.items()
    )


def table(found: dict[str, Any], asked: argparse.Namespace) -> str:
    rows = [
        f"{asked.config} sizes, {asked.threads} threads, median of {asked.rounds} (least to most)",
        "",
        "| | midsentence | reference | ratio |",
        "|---|---|---|---|",
    ]
    for name, rates in found.items():
        if name.startswith("NLL") or name == "flop a word":
            continue
        cells = []
        for lane in ("ours", "peer"):
            r = rates.get(lane)
            spread = f" ({min(r):,.4g} to {max(r):,.4g})" if r and len(r) > 1 else ""
            cells.append(f"{statistics.median(r):,.4g}{spread}" if r else "")
        ratio = ""
        if "peer" in rates:
            # Turn by turn, so that a machine whose speed drifts does not matter.
            pairs = [a / b for a, b in zip(rates["ours"], rates["peer"], strict=True)]
            ratio = f"{statistics.median(pairs):.2f}"
        rows.append(f"| {name} | {cells[0]} | {cells[1]} | {ratio} |")
    trained = found.get("training, default batch, words/s")
    if trained:
        done = statistics.median(trained["ours"]) * found["flop a word"]["ours"][0] / 1e9
        share = done / found[PEAK]["ours"][0]
        rows.append(f"| share of that peak in training | {share:.1%} | | |")
    return "\n".join(rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--lane"]:
        lane, folder, size, other, threads, *settings = sys.argv[2:]
        serve(lane, Path(folder), size, other, int(threads), settings)
    else:
        main()

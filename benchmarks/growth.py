"""How speed and memory grow: python benchmarks/growth.py [--words 1 10 100] [--svg FILE]

Draws corpora of Zipf words (20 a line at most) of so many millions of words and trains on each for
some steps, in a process of its own, validating as always; then the same at other vocabularies,
latent sizes and batches, on the smallest corpus. Start-up is from the text file to the first step.
Memory is the most that the process holds for itself while it trains and validates (RssAnon): pages
of the memory-mapped corpus are the system's to drop.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

LINE, LATENT, BATCH, VOCAB = 20, 32, 32, 10_000
AXES = [{}, {"vocab": 50_000}, {"latent": 512}, {"batch": 512}]


def draw(path: Path, millions: float, vocab: int) -> None:
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, vocab + 1)
    edges = np.cumsum(weights / weights.sum())
    names = np.array([f"w{i}" for i in range(vocab)])
    lines = int(millions * 1e6 / LINE)
    with path.open("w") as file:
        for start in range(0, lines, 50_000):
            count = min(50_000, lines - start)
            ids = np.searchsorted(edges, rng.random((count, LINE)) * edges[-1])
            lengths = rng.integers(LINE // 2, 3 * LINE // 2 + 1, count).clip(1, LINE)
            file.writelines(
                " ".join(names[r[:n]]) + "\n" for r, n in zip(ids, lengths, strict=True)
            )


def prepared(text: str, folder: str) -> None:
    """In its own process: what it takes to tokenise is not what it takes to train."""
    from midsentence.text.corpus import prepare

    began = time.perf_counter()
    asked = {"kind": "word", "vocab_size": 60_000}
    corpus = prepare(text, Path(folder), tokenizer_settings=asked)
    took = time.perf_counter() - began
    words = len(corpus.train.tokens)
    print(json.dumps({"prepare_s": took, "words": words, "prepare_peak_mb": status("VmHWM")}))


def trained(folder: str, out: str, latent: int, batch: int, steps: int) -> None:
    began = time.perf_counter()
    from midsentence import config
    from midsentence.learning import trainer
    from midsentence.text.corpus import Corpus

    settings = config.compose(
        "ptb",
        None,
        [
            "head.gradient_words=0",
            "head.sampled_words=0",
            f"latent={latent}",
            "training.epochs=1000",
        ],
    )
    settings.training.max_steps = steps
    settings.training.batch_sentences, settings.training.batch_tokens = batch, 1 << 20
    corpus = Corpus.open(Path(folder))
    speeds: list[float] = []
    memory: list[float] = []
    opened: list[float] = []

    def listen(event: str, record: dict[str, Any]) -> None:
        if event == "start":
            opened.append(time.perf_counter() - began)
        if event == "train":
            speeds.append(record["words_per_second"])
        if event in ("train", "valid"):
            memory.append(status("RssAnon"))

    Path(out).mkdir()
    trainer.train(settings, corpus, Path(out), listener=listen)
    found = {"words_per_second": float(np.median(speeds[1:])), "rss_anon_mb": max(memory)}
    print(json.dumps(found | {"open_s": opened[0], "vocab": corpus.tokenizer.vocab_size}))


def status(field: str) -> float:
    """MB, from the system's account of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"this system does not report {field}")


def child(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--words", nargs="+", type=float, default=[1, 10, 100], help="millions")
    parser.add_argument("--steps", type=int, default=100, help="100 or more: speed is by fifties")
    parser.add_argument("--svg", type=Path)
    asked = parser.parse_args()
    rows = []
    for size in asked.words:
        for axis in AXES if size == min(asked.words) else AXES[:1]:
            rows.append(measure(size, asked.steps, **axis))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print("| million words | vocabulary | latent | batch | words/s | memory, MB | tokenise, s "
          "| tokenise, peak MB | open, s |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for r in rows:
        print(f"| {r['millions']:g} | {r['vocab']:,} | {r['latent']} | {r['batch']} "
              f"| {r['words_per_second']:,.0f} | {r['rss_anon_mb']:,.0f} | {r['prepare_s']:.1f} "
              f"| {r['prepare_peak_mb']:,.0f} | {r['open_s']:.1f} |")  # fmt: skip
    if asked.svg:
        asked.svg.write_text(
            picture([r for r in rows if r["batch"] == BATCH][:1] + rows[len(AXES) :])
        )


def measure(
    millions: float, steps: int, vocab: int = VOCAB, latent: int = LATENT, batch: int = BATCH
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        text, folder, out = Path(name) / "text.txt", Path(name) / "corpus", Path(name) / "run"
        draw(text, millions, vocab)
        found = child("--prepare", text, folder)
        text.unlink()
        found |= child("--train", folder, out, latent, batch, steps)
    return found | {"millions": millions, "latent": latent, "batch": batch}


def picture(rows: list[dict[str, Any]]) -> str:
    """Three small curves over the size of the corpus, as one SVG."""
    panels = {
        "words_per_second": "words/s in training",
        "rss_anon_mb": "memory in training, MB",
        "prepare_s": "tokenise, s",
    }
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 220" font-size="12"',
        ' font-family="sans-serif" fill="#333"><rect width="720" height="220" fill="#fff"/>',
    ]
    logs = [np.log10(r["millions"]) for r in rows]
    for index, (key, title) in enumerate(panels.items()):
        left, values = 240 * index + 50, [r[key] for r in rows]
        high = 1.15 * max(values)
        xs = [left + 165 * (x - logs[0]) / ((logs[-1] - logs[0]) or 1) for x in logs]
        ys = [180 - 140 * v / high for v in values]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
        parts.append(f'<text x="{left - 10}" y="24" font-weight="bold">{title}</text>')
        parts.append(f'<path d="M{left - 10} 40V180H{left + 175}" fill="none" stroke="#999"/>')
        parts.append(f'<path d="{path}" fill="none" stroke="#2563a8" stroke-width="2"/>')
        for x, y, r, v in zip(xs, ys, rows, values, strict=True):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#2563a8"/>')
            parts.append(f'<text x="{x:.1f}" y="{y - 9:.1f}" text-anchor="middle">{v:,.0f}</text>')
            parts.append(
                f'<text x="{x:.1f}" y="197" text-anchor="middle">{r["millions"]:g}M</text>'
            )
    parts.append('<text x="360" y="215" text-anchor="middle">words in the corpus</text></svg>')
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--prepare"]:
        prepared(*sys.argv[2:])
    elif sys.argv[1:2] == ["--train"]:
        folder, out, *numbers = sys.argv[2:]
        trained(folder, out, *map(int, numbers))
    else:
        main()

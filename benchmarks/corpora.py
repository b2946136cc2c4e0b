"""Corpora larger than memory: what preparing them and going through them takes.

    python benchmarks/corpora.py prepare 1000000 3000000 10000000
    python benchmarks/corpora.py order 1000000 10000000 100000000

``prepare``: so many lines of drawn words (Zipf's law, 50,000 of them, 10 a line or --a-line)
through a pipe into a corpus: seconds, lines a second of one core, and the greatest memory that is
the process's own (anonymous: the corpus itself is mapped). ``order``: a store of so many sentences
is written as it stands, then opened, and the batches of an epoch are asked for: all where they are
up to ten million, else the first of every shard.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

WORDS = 50_000


def own_memory() -> int:
    """Megabytes of this process's memory that no file stands behind."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) // 1024
    raise SystemExit("RssAnon is not in /proc/self/status: this benchmark is for Linux")


def measured(work: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What `work` returns, its seconds, and the peak of its own memory."""
    peak, ended = [own_memory()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            peak[0] = max(peak[0], own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    found = work(*arguments)
    seconds = time.perf_counter() - began
    ended.set()
    watcher.join()
    return {**found, "seconds": round(seconds, 1), "megabytes": peak[0]}


def lines(count: int, words: int) -> Iterator[bytes]:
    names = np.array([f"w{i}".encode() for i in range(WORDS)], dtype=object)
    chance = np.random.default_rng(0)
    for start in range(0, count, 10_000):
        rows = np.minimum(chance.zipf(1.2, (min(10_000, count - start), words)), WORDS) - 1
        yield b"\n".join(b" ".join(row) for row in names[rows]) + b"\n"


def feed(path: Path, count: int, words: int) -> None:
    with path.open("wb") as pipe:
        for block in lines(count, words):
            pipe.write(block)


def prepare(folder: Path, kind: str, words: int, count: int) -> dict[str, Any]:
    from midsentence.text.corpus import prepare

    pipe = folder / "pipe"
    os.mkfifo(pipe)
    writer = multiprocessing.Process(target=feed, args=(pipe, count, words))
    writer.start()
    settings = {"kind": kind, "vocab_size": 20_000}
    began = time.process_time()
    corpus = prepare(str(pipe), folder / "corpus", tokenizer_settings=settings, max_tokens=256)
    cpu = time.process_time() - began
    writer.join()
    held = sum(p.stat().st_size for p in (folder / "corpus").rglob("*.bin"))
    return {
        "kind": kind, "words_a_line": words, "lines": count, "train": len(corpus.train),
        "lines_a_cpu_second": round(count / cpu), "gigabytes_on_disk": round(held / 1e9, 2),
    }  # fmt: skip


def written(folder: Path, count: int) -> None:
    """A store of `count` sentences of 1 to 20 words, without a tokenizer in between."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    total = 0
    with (
        (folder / "tokens.bin").open("wb") as tokens,
        (folder / "offsets.bin").open("wb") as offsets,
        (folder / "sizes.bin").open("wb") as sizes,
        (folder / "labels.bin").open("wb") as labels,
    ):
        offsets.write(np.zeros(1, np.int64).tobytes())
        for start in range(0, count, 1 << 20):
            lengths = chance.integers(1, 21, min(1 << 20, count - start))
            ends = total + np.cumsum(lengths)
            tokens.write(chance.integers(4, 20_000, int(lengths.sum())).astype(np.uint16).tobytes())
            offsets.write(ends.astype(np.int64).tobytes())
            sizes.write((5 * lengths).astype(np.int32).tobytes())
            labels.write(np.full(len(lengths), -1, np.int32).tobytes())
            total = int(ends[-1])
    meta = {"format": 1, "dtype": "uint16", "sentences": count, "tokens": total, "dropped": 0,
            "label_names": []}  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta))


def order(folder: Path, count: int) -> dict[str, Any]:
    from midsentence.text.batches import Budget, Shards, collate, shuffled
    from midsentence.text.store import TokenStore

    store = TokenStore.open(folder)
    began = time.perf_counter()
    batches = shuffled(store.lengths, Budget(), 0, 0)
    planned = time.perf_counter() - began
    chosen = range(len(batches))
    if isinstance(batches, Shards) and count > 10_000_000:
        chosen = [0, *batches.ends[:-1].tolist()]
    seen = 0
    for index in chosen:
        seen += len(collate([store[int(i)] for i in batches[index]]))
    return {
        "sentences": count, "batches": len(batches), "seconds_to_plan": round(planned, 1),
        "seen": seen,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("prepare", "order"))
    parser.add_argument("counts", type=int, nargs="+")
    parser.add_argument("--kind", default="word", choices=("word", "bpe"))
    parser.add_argument("--a-line", type=int, default=10, help="Words in a line of `prepare`.")
    parser.add_argument("--folder", type=Path, help="Where there is room; a temporary one.")
    asked = parser.parse_args()
    for count in asked.counts:
        with tempfile.TemporaryDirectory(dir=asked.folder) as name:
            folder = Path(name)
            if asked.what == "order":
                written(folder / "store", count)
            work: Any = prepare if asked.what == "prepare" else order
            place = folder if asked.what == "prepare" else folder / "store"
            more = (asked.kind, asked.a_line, count) if asked.what == "prepare" else (count,)
            # A process of its own: what one leaves behind is not counted as another's.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                print(json.dumps(pool.submit(measured, work, place, *more).result()), flush=True)


if __name__ == "__main__":
    main()

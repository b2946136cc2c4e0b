"""The service under load: benchmarks/load.py RUN [--clients 100] [--requests 50]

Starts `midsentence serve RUN` on a free port, as a process of its own, and measures: the time to an
answer when nobody else asks; with many clients at once; and while half-open connections pile up.
Then throws malformed requests at it, made by a seeded generator from its OpenAPI. Prints one table.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Answer = tuple[int, float]
"""(status, seconds); status 0: no answer."""


async def ask(port: int, method: str, path: str, body: bytes = b"") -> Answer:
    """One request on a connection of its own."""
    began = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        found = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        status = int(found.split(b" ", 2)[1]) if found.startswith(b"HTTP/1.1 ") else 0
    except (OSError, TimeoutError):
        status = 0
    return status, time.perf_counter() - began


def bodies(lines: Sequence[str], seed: int) -> list[tuple[str, bytes]]:
    """What one client asks, one thing after another."""
    chance = random.Random(seed)
    a, b = chance.sample(list(lines), 2)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/sample", {"n": 4, "seed": seed}),
        ("/v1/reconstruct", {"texts": [a, b]}),
        ("/v1/encode", {"texts": [a, b]}),
        ("/v1/interpolate", {"a": a, "b": b, "steps": 5}),
        ("/v1/neighbours", {"text": a, "n": 5}),
    ]
    return [(path, json.dumps(body).encode()) for path, body in asked]


async def clients(port: int, lines: Sequence[str], count: int, requests: int) -> list[Answer]:
    async def one(number: int) -> list[Answer]:
        asked = bodies(lines, number)
        return [await ask(port, "POST", *asked[i % len(asked)]) for i in range(requests)]

    return [a for found in await asyncio.gather(*map(one, range(count))) for a in found]


async def honest(port: int, lines: Sequence[str], requests: int) -> list[Answer]:
    """One client, one request after another."""
    return await clients(port, lines, 1, requests)


async def besieged(port: int, lines: Sequence[str], sockets: int, requests: int) -> list[Answer]:
    """The same while `sockets` connections are half-open, each opened again when it is closed."""

    async def half(number: int) -> None:
        head = b"POST /v1/sample HTTP/1.1\r\nHost: localhost\r\n"
        starts = (b"", head[:12], head + b"X: ", head + b"Content-Length: 9\r\n\r\n{")
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(starts[number % len(starts)])
                await reader.read()
                writer.close()
            except OSError:
                await asyncio.sleep(0.1)

    tasks = [asyncio.create_task(half(i)) for i in range(sockets)]
    await asyncio.sleep(1)
    found = await honest(port, lines, requests)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


def malformed(spec: dict[str, Any], count: int, seed: int) -> list[tuple[str, str, bytes]]:
    """Requests that are wrong, or that are right by accident: examples with a part exchanged."""
    chance = random.Random(seed)
    routes = [(method.upper(), path, item[method]) for path, item in spec["paths"].items()
              for method in item]  # fmt: skip
    odd: list[Any] = [None, True, -1, 0, 1.5, 10**400, 1e308, "", " ", "\ud800", "\0", "a" * 5000,
                      [], {}, [[]], [None], {"a": {}}, "NaN", float("nan"), float("inf"), -0.0,
                      "../../etc/passwd", "http://localhost/", ["x"] * 65, [0.0] * 70_000,
                      "\u202e", "{{7*7}}", 2**63, [[[[[[[[1]]]]]]]]]  # fmt: skip

    def example(operation: dict[str, Any]) -> Any:
        try:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            named = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            return dict(named["examples"][0])
        except KeyError:
            return {}

    found = []
    for _ in range(count):
        method, path, operation = chance.choice(routes)
        path = re.sub(r"\{\w+\}", lambda _: chance.choice(["0", "-1", "x", "%00", "9" * 30]), path)
        body: Any = example(operation)
        for _ in range(chance.randint(1, 3)):
            key = chance.choice([*body, "seed", "how", "label", "more"])
            body[key] = chance.choice(odd)
        content = json.dumps(body).encode()
        kind = chance.random()
        if kind < 0.15:  # damaged
            content = bytearray(content)
            for _ in range(chance.randint(1, 8)):
                if content:
                    content[chance.randrange(len(content))] = chance.randrange(256)
            content = bytes(content)
        elif kind < 0.2:
            content = content[: chance.randrange(len(content) + 1)]
        elif kind < 0.22:
            content = b"[" * chance.randrange(200_000)
        if chance.random() < 0.05:
            method = chance.choice(["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
        found.append((method, path, content))
    return found


async def attack(
    port: int, asked: Sequence[tuple[str, str, bytes]], at_once: int = 8
) -> list[Answer]:
    gate, found = asyncio.Semaphore(at_once), []

    async def one(method: str, path: str, body: bytes) -> None:
        async with gate:
            found.append(await ask(port, method, path, body))

    await asyncio.gather(*(one(*request) for request in asked))
    return found


def row(name: str, answers: Sequence[Answer], seconds: float) -> str:
    times = np.array([t for _, t in answers]) * 1000
    statuses = Counter(status for status, _ in answers)
    shown = ", ".join(f"{status or 'none'}: {n:,}" for status, n in sorted(statuses.items()))
    return (f"| {name} | {len(answers):,} | {shown} | {np.percentile(times, 50):.1f} | "
            f"{np.percentile(times, 99):.1f} | {len(answers) / seconds:.0f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--requests", type=int, default=50, help="of each client")
    parser.add_argument("--sockets", type=int, default=300, help="half-open ones")
    parser.add_argument("--malformed", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    from midsentence import pipeline
    from midsentence.text.store import pick

    corpus = pipeline.Corpus.open(asked.run / "corpus")
    chosen = pick(corpus.valid, 200, seed=0)
    lines = [t for t in corpus.valid.text(corpus.tokenizer, chosen.rows) if len(t) < 4000]
    service = subprocess.Popen(
        [sys.executable, "-m", "midsentence", "serve", str(asked.run), "--port", "0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert service.stderr is not None
    try:
        port = None
        while port is None:
            said = re.search(r":(\d+)  \(", service.stderr.readline())
            port = int(said.group(1)) if said else None
        asyncio.run(measure(port, lines, asked))
        began = time.monotonic()
    finally:
        service.terminate()
        service.wait(20)
    print(f"\nended {time.monotonic() - began:.1f} s after it was told to")


async def measure(port: int, lines: Sequence[str], asked: argparse.Namespace) -> None:
    while (await ask(port, "GET", "/health"))[0] != 200:
        await asyncio.sleep(0.2)
    await honest(port, lines, 50)  # warm
    print("| | requests | answers by status | p50 ms | p99 ms | requests/s |")
    print("|---" * 6 + "|")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    spec = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
    wrong = malformed(spec, asked.malformed, asked.seed)
    for name, work in (
        ("one client, quiet", lambda: honest(port, lines, 300)),
        (f"one client, {asked.sockets} half-open connections",
         lambda: besieged(port, lines, asked.sockets, 300)),
        (f"{asked.clients} clients", lambda: clients(port, lines, asked.clients, asked.requests)),
        ("malformed", lambda: attack(port, wrong)),
        ("one client, afterwards", lambda: honest(port, lines, 300)),
    ):  # fmt: skip
        began = time.perf_counter()
        print(row(name, await work(), time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()

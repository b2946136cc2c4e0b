"""A service that makes its answers up, always the same ones: the page is tried against it without
a model. It has the routes the page uses and, like the real service, takes no name it doesn't know.

    python tests/page_stub.py --points 50000 --port 8765

Two answers hold more than was agreed, and the page does without where they aren't there:
  GET /v1/map      "plane": {"centre": [D], "x": [D], "y": [D]}, the PCA view's plane. With it the
                   page shows where any z lies (a way from A to B, the palette, the sliders).
  GET /v1/watch    "running" and "samples".
"""

import argparse
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, Response

PAGE = Path(__file__).parents[1] / "src" / "midsentence" / "web" / "page"
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
CSP = "default-src 'self'; img-src 'self' data: blob:; style-src 'self'"
D, KINDS = 24, 9
LABELS = ["plain", "question", "negation", "exclamation"]

WHO = [
    "the old man",
    "a girl",
    "my sister",
    "the captain",
    "nobody",
    "every child",
    "the moon",
    "a dog",
]
DOES = [
    "sees",
    "finds",
    "sings of",
    "waits for",
    "forgets",
    "carries",
    "paints",
    "remembers",
    "follows",
]
WHAT = [
    "the river",
    "a small house",
    "the last train",
    "an open window",
    "the sea at night",
    "a letter",
]
WHERE = ["", "in the morning", "behind the hill", "without a word", "for the first time", "again"]

HOSTILE = [
    "<img src=x onerror=window.broken=1>", "</script><script>window.broken=1</script>",
    "<svg onload=window.broken=1>", '"><b>bold</b>', "' onmouseover='window.broken=1",
    "javascript:window.broken=1", "<iframe srcdoc='<script>parent.broken=1</script>'>",
    "<style>*{display:none}</style>", "<!-- comment", "&lt;b&gt; &amp; &#60;", "{{7*7}}", "${7*7}",
    "<%= 7*7 %>", "#{7*7}", "null", "undefined", "NaN", "[object Object]",
    "__proto__", "constructor",
    "\u202eright to left override", "\u2066isolate left open", "z\u200be\u200br\u200bo\u200dwidth",
    "Z̷̡a̶̛l̸g̷o̴ ̵t̶e̸x̵t̸", "👩‍👩‍👧‍👦 🏳️‍🌈 emoji", "עברית and العربية mixed", "中文句子和標點。",
    "tab\tand\\backslash\\n", "a" * 3000, "x \ufeff\u00ad\u2028 y",
]  # fmt: skip


class Made:
    """The corpus: clusters in D dimensions, and the plane they are seen in."""

    def __init__(self, points: int, hostile: bool) -> None:
        rng = np.random.default_rng(7)
        self.kind = rng.integers(0, KINDS, points)
        scale = np.exp(-0.18 * np.arange(D))
        middles = rng.normal(size=(KINDS, D)) * 2.2 * scale
        self.z = middles[self.kind] + rng.normal(size=(points, D)) * scale
        self.axes = np.linalg.svd(self.z - self.z.mean(0), full_matrices=False)[2][:2]
        self.centre = self.z.mean(0)
        self.xy = (self.z - self.centre) @ self.axes.T
        self.text = [self.sentence(rng.integers(0, 1 << 30)) for _ in range(points)]
        if hostile:
            self.text[: len(HOSTILE)] = HOSTILE
        self.label = (self.kind % 4).tolist()
        self.held = [int(i >= points - points // 50) for i in range(points)]
        self.born = time.monotonic()

    @staticmethod
    def sentence(n: int) -> str:
        parts = []
        for words in (WHO, DOES, WHAT, WHERE):
            parts.append(words[n % len(words)])
            n //= len(words)
        return " ".join(part for part in parts if part)

    @cached_property
    def length(self) -> list[int]:
        return [len(text.split()) for text in self.text]

    @cached_property
    def nll(self) -> list[float | None]:
        return (1.5 + np.abs(np.sin(self.z[:, 0] * 2)) * 3).round(3).tolist()

    def near(self, z: np.ndarray, n: int) -> list[int]:
        return np.square(self.z - z).sum(1).argsort()[:n].tolist()

    def encode(self, text: str) -> np.ndarray:
        if text in self.text:
            return self.z[self.text.index(text)]
        return np.random.default_rng(sum(map(ord, text))).normal(size=D) * np.exp(
            -0.18 * np.arange(D)
        )

    def place(self, where: str | list[float]) -> np.ndarray:
        return self.encode(where) if isinstance(where, str) else np.array(where)

    def written(self, z: np.ndarray, n: int = 0, t: float = 0.0) -> dict[str, Any]:
        away = float(np.linalg.norm((z - self.centre) / np.exp(-0.18 * np.arange(D))))
        beyond = round(1 - float(np.exp(-((away / 9) ** 4))), 5)
        cells = np.floor(z[:6] * 3).astype(int)
        text = self.sentence(int(abs(hash(tuple(cells.tolist())))) + 8 * 9 * n)
        return {"text": text, "z": z.tolist(), "beyond": beyond, "far": beyond > 0.995, "t": t}

    def neighbours(self, z: np.ndarray, n: int = 5) -> list[dict[str, Any]]:
        return [
            {"text": self.text[i], "distance": float(np.linalg.norm(self.z[i] - z)),
             "label": LABELS[self.label[i]], "row": i}
            for i in self.near(z, n)
        ]  # fmt: skip


def make_app(
    points: int = 2000, *, corpus: bool = True, training: bool = False, hostile: bool = True
):
    app, made = FastAPI(), Made(points, hostile)
    about_space = {
        "active": list(range(20)),
        "loc": made.z.mean(0).tolist(),
        "scale": made.z.std(0).tolist(),
    }
    directions = {"question": {"method": "probe", "accuracy": 0.94, "from": 120, "to": 118}}

    @app.middleware("http")
    async def policy(request: Request, call: Any) -> Response:
        answer = await call(request)
        answer.headers["content-security-policy"] = CSP
        return answer

    @app.exception_handler(HTTPException)
    async def wrong(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code)

    async def asked(request: Request, *known: str) -> dict[str, Any]:
        body = await request.json()
        more = set(body) - {*known, "how", "seed", "label"}
        if more:
            raise HTTPException(422, f"{min(more)}: extra inputs are not permitted")
        if any(isinstance(v, str) and not v.strip() for v in body.values()):
            raise HTTPException(422, "text: a sentence must have something in it")
        return body

    def there() -> None:
        if not corpus:
            raise HTTPException(404, "this run has no corpus to make a map of")

    def around() -> None:
        if not corpus:
            raise HTTPException(422, "this run has no corpus to move about in")

    def file(name: str) -> Response:
        path = PAGE / name
        if "/" in name or not path.is_file() or path.suffix not in TYPES:
            raise HTTPException(404, "there is no such file")
        return FileResponse(path, media_type=TYPES[path.suffix])

    app.get("/")(lambda: file("index.html"))

    @app.get("/page/{name}")
    def module(name: str):
        return file(name)

    @app.get("/v1/model")
    def model():
        return {
            "name": "stub",
            "weights": "0" * 64,
            "latent": D,
            "labels": [],
            "encoder": "lstm",
            "posterior": "gaussian",
            "prior": "normal",
            "decoder": "lstm",
            "tokenizer": "word",
            "vocabulary": 40,
            "parameters": 1000,
            "sentences": points if corpus else 0,
            "directions": list(directions),
            "training": training,
            "evaluation": None,
            **(about_space if corpus else {}),
        }

    told: dict[str, bytes] = {}

    @app.get("/v1/map")
    def whole():
        there()
        if "map" not in told:
            told["map"] = json.dumps(
                {
                    "count": points,
                    "views": ["pca", "umap"],
                    "x": made.xy[:, 0].round(4).tolist(),
                    "y": made.xy[:, 1].round(4).tolist(),
                    "text": made.text,
                    "label": made.label,
                    "label_names": LABELS,
                    "length": made.length,
                    "cluster": made.kind.tolist(),
                    "held": made.held,
                    "plane": {
                        "centre": made.centre.tolist(),
                        "x": made.axes[0].tolist(),
                        "y": made.axes[1].tolist(),
                    },
                }
            ).encode()
        return Response(told["map"], media_type="application/json")

    @app.get("/v1/map/view/{name}")
    def view(name: str):
        there()
        xy = made.xy if name == "pca" else made.z[:, 2:4] * 3 + made.xy[:, ::-1] * 0.4
        return {"x": xy[:, 0].round(4).tolist(), "y": xy[:, 1].round(4).tolist()}

    @app.get("/v1/map/nll")
    def nll():
        there()
        share = min(1.0, 0.5 + (time.monotonic() - made.born) / 20)
        known = int(share * points)
        return {"values": made.nll[:known] + [None] * (points - known), "done": share}

    @app.get("/v1/map/dimension/{d}")
    def dimension(d: int):
        there()
        return {"values": made.z[:, d].round(4).tolist()}

    @app.post("/v1/map/point")
    async def point(request: Request):
        there()
        body = await asked(request, "x", "y", "view", "n")
        z = made.centre + np.array([body["x"], body["y"]]) @ made.axes
        hot = body.get("how", {}).get("temperature", 1)
        samples = [
            made.written(z, 1 + body.get("seed", 0) + int(k * hot * 2)) for k in range(body["n"])
        ]
        return {
            "z": z.tolist(),
            "written": made.written(z),
            "samples": samples,
            "neighbours": made.neighbours(z),
        }

    @app.post("/v1/read")
    async def read(request: Request):
        text = (await asked(request, "text"))["text"]
        z = made.encode(text)
        tokens = [
            {"token": w, "nll": (7 * len(w) + 3 * i) % 90 / 10} for i, w in enumerate(text.split())
        ]
        tokens.append({"token": "</s>", "nll": 0.2})
        xy = (z - made.centre) @ made.axes.T
        kl = np.abs(np.random.default_rng(3).normal(size=D)) * np.exp(-0.2 * np.arange(D)) * 2
        return {
            "mean": z.tolist(),
            "variance": [0.1] * D,
            "kl": kl.tolist(),
            "tokens": tokens,
            "nll": sum(t["nll"] for t in tokens),
            "reconstruction": made.written(z),
            "x": float(xy[0]) if corpus else None,
            "y": float(xy[1]) if corpus else None,
            "neighbours": made.neighbours(z) if corpus else [],
        }

    @app.post("/v1/encode")
    async def encode(request: Request):
        zs = [made.encode(t) for t in (await asked(request, "texts"))["texts"]]
        about = [made.written(z) for z in zs]
        return {
            "z": [z.tolist() for z in zs],
            "beyond": [w["beyond"] for w in about],
            "far": [w["far"] for w in about],
        }

    @app.post("/v1/decode")
    async def decode(request: Request):
        return {"written": [made.written(np.array(z)) for z in (await asked(request, "z"))["z"]]}

    @app.post("/v1/interpolate")
    async def interpolate(request: Request):
        body = await asked(request, "a", "b", "steps", "path", "nll")
        if body["path"] == "density":
            around()
        a, b = made.place(body["a"]), made.place(body["b"])
        ts = np.linspace(0, 1, body["steps"])
        answer: dict[str, Any] = {
            "written": [made.written((1 - t) * a + t * b, t=float(t)) for t in ts]
        }
        if body.get("nll"):
            answer["nll"] = [float(2 + np.sin(3 * t) + 0.4 * np.cos(11 * t)) for t in ts]
        return answer

    @app.post("/v1/analogy")
    async def analogy(request: Request):
        around()
        body = await asked(request, "a", "b", "c")
        a, b, c = (made.place(body[k]) for k in "abc")
        return {"written": made.written(c + b - a)}

    @app.post("/v1/edit")
    async def edit(request: Request):
        around()
        body = await asked(request, "text", "direction", "strength")
        if body["direction"] not in directions:
            raise HTTPException(422, f"there is no direction {body['direction']!r}")
        return {"written": made.written(made.place(body["text"]) + body.get("strength", 1.0) * 0.8)}

    @app.get("/v1/directions")
    def known_directions():
        return {"directions": [{"name": n, **about} for n, about in directions.items()]}

    @app.post("/v1/direction")
    async def direction(request: Request):
        around()
        body = await asked(request, "name", "from", "to", "method")
        if body["name"] in directions:
            raise HTTPException(
                422, f"there is a direction {body['name']!r} already: choose another name"
            )
        about = {
            "method": "probe",
            "accuracy": 1.0,
            "from": len(body["from"]),
            "to": len(body["to"]),
        }
        directions[body["name"]] = about
        return {"name": body["name"], **about}

    @app.get("/v1/watch")
    def watch(after: int = 0):
        records = []
        for k in range(min(40, after + 6)):
            kind = "valid" if k % 5 == 4 else "train"
            kl = 6 * (1 - np.exp(-k / 9))
            records.append(
                {
                    "kind": kind,
                    "step": 25 * (k + 1),
                    "progress": (k + 1) / 40,
                    "seconds": 3.0 * k,
                    "elbo": -60 - 40 * np.exp(-k / 8),
                    "kl": kl,
                    "log_px": -58.0,
                }
            )
            if kind == "train":
                records[-1] |= {"objective": -58 - 40 * np.exp(-k / 8), "beta": min(1.0, k / 20)}
        return {
            "records": records[after:],
            "next": len(records),
            "running": len(records) < 40,
            "samples": made.text[100:104] if points > 104 else [],
        }

    @app.get("/v1/export/projector.zip")
    def projector():
        there()
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("tensors.tsv", "0\t0\n")
            archive.writestr("metadata.tsv", "text\tlabel\n")
        headers = {"content-disposition": 'attachment; filename="projector.zip"'}
        return Response(out.getvalue(), media_type="application/zip", headers=headers)

    @app.get("/v1/export/atlas.csv")
    def atlas():
        there()
        headers = {"content-disposition": 'attachment; filename="atlas.csv"'}
        return Response("text,label,tokens,cluster,x,y\n", media_type="text/csv", headers=headers)

    return app


@contextmanager
def serving(app: Any, port: int = 0) -> Iterator[str]:
    """The address of an app that is served from a thread."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="warning", lifespan="off", ws="none")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--training", action="store_true")
    asked_for = parser.parse_args()
    with serving(make_app(asked_for.points, training=asked_for.training), asked_for.port) as url:
        print(url, flush=True)
        threading.Event().wait()

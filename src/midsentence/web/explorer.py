"""The explorer's routes: its page, the map, what a click shows, exports, a training watched."""

import csv
import io
import threading
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import APIRouter
from fastapi.params import Path as InPath
from fastapi.params import Query
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException

from ..cloud import of_lines
from ..errors import UserError
from ..learning.records import read
from ..measuring.survey import InMemory, survey
from ..text.batches import collate
from ..writing import busy
from . import schemas as ask
from .atlas import Atlas
from .context import Service, all_told, told
from .gate import Gate
from .plain import encoded
from .service import bare

PAGE = resources.files(__package__) / "page"
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
NEIGHBOURS, SAMPLES = 5, 8


def routes(atlas: Atlas | None, run: Path | None = None) -> Callable[[Service], APIRouter]:
    """atlas: None for a run without its corpus. run: a run folder that is being trained, to be
    watched."""

    def made(service: Service) -> APIRouter:
        api = APIRouter()
        _page(api)
        _map(api, service, atlas)
        _exports(api, service, atlas)
        _watch(api, service, run)
        if atlas is not None:
            atlas.find_nll(service.engine)
        return api

    return made


def once(make: Callable[[], bytes]) -> Callable[[], bytes]:
    """What `make` makes for the first who asks, kept for all the others."""
    lock, kept = threading.Lock(), list[bytes]()

    def found() -> bytes:
        with lock:
            if not kept:
                kept.append(make())
        return kept[0]

    return found


def _page(api: APIRouter) -> None:
    files = {f.name: f for f in PAGE.iterdir() if Path(f.name).suffix in TYPES}

    def answer(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such file")
        return FileResponse(str(files[name]), media_type=TYPES[Path(name).suffix])

    @api.get("/", include_in_schema=False)
    def index() -> Response:
        return answer("index.html")

    @api.get("/page/{name}", include_in_schema=False)
    def module(name: str) -> Response:
        return answer(name)


def _map(api: APIRouter, service: Service, atlas: Atlas | None) -> None:
    model = service.model

    def there() -> Atlas:
        if atlas is None:
            raise HTTPException(404, f"{service.why} to make a map of")
        return atlas

    points = once(lambda: encoded(there().told()))

    @api.get("/v1/map")
    def whole() -> Response:
        """Every point: where, what, and of which kind."""
        return Response(points(), media_type="application/json")

    @api.get("/v1/map/view/{name}")
    def view(name: str) -> Any:
        """The points in another view."""
        if name not in there().views:
            raise HTTPException(404, f"there is no view {name!r} of this map")
        xy = there().views[name].xy.round(4)
        return {"x": xy[:, 0].tolist(), "y": xy[:, 1].tolist()}

    @api.get("/v1/map/nll")
    def nll() -> Any:
        """Nats a token by one posterior sample (a bound); null where it is not known yet."""
        chart = there()
        return {"values": chart.nll.round(4).tolist(), "done": chart.done / max(1, len(chart))}

    @api.get("/v1/map/dimension/{d}")
    def dimension(d: Annotated[int, InPath(ge=0, le=65_535)]) -> Any:
        """Posterior means in one dimension."""
        if d >= model.latent:
            raise HTTPException(404, f"there is no dimension {d}: there are {model.latent}")
        return {"values": there().mean[:, d].double().cpu().numpy().round(4).tolist()}

    @api.post("/v1/map/search")
    def search(asked: ask.Search) -> Any:
        """Rows of the points whose text holds a string, in any case."""
        wanted = asked.query.casefold()
        return {"rows": [i for i, text in enumerate(there().lines) if wanted in text.casefold()]}

    @api.post("/v1/map/point")
    def point(asked: ask.Point) -> Any:
        """What is written at a place of the map, and the sentences nearest to it."""
        space, z = service.around(asked.label), there().at(asked.x, asked.y, asked.view)
        greedy = space.written(z[None], seed=asked.seed)[0]
        drawn = {"temperature": 1.0} | asked.decoding()
        samples = space.written(z.repeat(asked.n, 1), seed=asked.seed, **drawn) if asked.n else []
        near = [asdict(n) for n in space.neighbours(z, NEIGHBOURS)]
        return {"z": z.tolist(), "written": told(greedy), "samples": all_told(samples),
                "neighbours": near}  # fmt: skip

    @api.post("/v1/read")
    def read(asked: ask.Read) -> Any:
        """One sentence: its posterior, its words' NLL given its mean, and its reconstruction."""
        sentences = model.ids([asked.text], asked.label)

        def looked() -> dict[str, Any]:
            found, own = survey(model.vae, sentences), of_lines(model, [asked.text], asked.label)
            return {
                "mean": own.mean[0],
                "variance": own.variance[0].tolist(),
                "kl": found.kl[0].tolist(),
                "tokens": _words(service, sentences, own.mean),
            }

        about: dict[str, Any] = service.engine.call(looked)
        z = about.pop("mean")
        x, y = (there().project(z[None])[0].tolist()) if atlas is not None else (None, None)
        near = service.around(asked.label).neighbours(z, NEIGHBOURS) if service.space else []
        return about | {
            "mean": z.tolist(),
            "nll": sum(word["nll"] for word in about["tokens"]),
            "reconstruction": service.written(z[None], asked)[0],
            "neighbours": [asdict(n) for n in near],
            "x": x,
            "y": y,
        }


def _words(service: Service, sentences: InMemory, z: torch.Tensor) -> list[dict[str, Any]]:
    model = service.model
    batch = collate([sentences[0]], sentences.labels).to(model.vae.device)
    with torch.no_grad():
        log_p = model.vae.log_words(batch, z.float()).tolist()
    names = [*model.tokenizer.pieces(sentences[0]), "</s>"]
    return [{"token": name, "nll": -p} for name, p in zip(names, log_p, strict=True)]


def _exports(api: APIRouter, service: Service, atlas: Atlas | None) -> None:
    def there() -> Atlas:
        if atlas is None:
            raise HTTPException(404, f"{service.why} to export")
        return atlas

    packed = once(lambda: _packed(there()))
    table = once(lambda: _table(there(), ",", True).encode())

    @api.get("/v1/export/projector.zip")
    def projector() -> Response:
        """tensors.tsv and metadata.tsv for the Embedding Projector."""
        return _download(packed(), "application/zip", "projector.zip")

    @api.get("/v1/export/atlas.csv")
    def csv_file() -> Response:
        """Text, place and columns for embedding-atlas: --text text --x x --y y."""
        return _download(table(), "text/csv", "atlas.csv")


def _packed(chart: Atlas) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        rows = ("\t".join(f"{v:.5g}" for v in z) for z in chart.mean.tolist())
        file.writestr("tensors.tsv", "\n".join(rows) + "\n")
        file.writestr("metadata.tsv", _table(chart, "\t", False))
    return out.getvalue()


def _download(content: bytes, kind: str, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=kind, headers=headers)


def _table(chart: Atlas, delimiter: str, places: bool) -> str:
    names = chart.space.cloud.names
    out = io.StringIO()
    # In .tsv quotes are text, for the Embedding Projector as for `text.readers`.
    quoted: Any = {} if delimiter == "," else {"quoting": csv.QUOTE_NONE, "quotechar": None}
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n", **quoted)
    writer.writerow(["text", "label", "tokens", "cluster", *(["x", "y"] if places else [])])
    xy, clusters = chart.views["pca"].xy, chart.clusters.tolist()
    for i, text in enumerate(chart.lines):
        label = names[chart.label[i]] if chart.label[i] >= 0 else ""
        row = [*(" ".join(cell.split()) for cell in (text, label)), chart.lengths[i], clusters[i]]
        writer.writerow(row + ([f"{v:.5g}" for v in xy[i]] if places else []))
    return out.getvalue()


def _watch(api: APIRouter, service: Service | None, run: Path | None) -> None:
    written: list[str] = []

    @api.get("/v1/watch")
    def watch(after: Annotated[int, Query(ge=0, le=10**9)] = 0) -> Any:
        """Records of a training that goes on, from number `after` on, and what its best model
        writes."""
        if run is None:
            raise UserError("nothing is being trained here: start with `midsentence train --watch`")
        records = read(run / "metrics.jsonl")
        if service is not None and not written:
            written[:] = service.model.sample(SAMPLES, seed=0)  # whoever else asks at once
        return {
            "records": records[after:],
            "next": len(records),
            "running": busy(run),
            "samples": written,
        }


def waiting(run: Path, hosts: tuple[str, ...], key: str | None = None) -> Gate:
    """The application until there is a model: the page, and the curves."""
    api = APIRouter()
    _page(api)
    _watch(api, None, run)

    @api.get("/v1/model")
    def describe() -> Any:
        nothing: dict[str, list[Any]] = {
            key: [] for key in ("labels", "active", "loc", "scale", "directions")
        }
        return {"name": run.resolve().name, "latent": 0, "sentences": 0, "training": True} | nothing

    @api.get("/v1/map")
    def none_yet() -> Any:
        raise HTTPException(404, "there is a map after the first validation")

    return bare(api, hosts, key)

"""The service: what `Space` and `TextVAE` do, as JSON over HTTP.

Its routes are plain functions, run by threads, and meet in the engine.
"""

from collections.abc import Callable
from typing import Any

import torch
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from .. import __version__
from ..bundle import TextVAE
from ..directions import Direction
from ..errors import UserError
from ..space import Space
from . import routes
from .card import Card
from .context import Service
from .engine import Engine, Gone, Late, SharedSpace, SharedVAE, Stopped
from .gate import LOOPBACK, Gate, Limits
from .metrics import Metrics
from .plain import PlainJSON


def health(service: Service) -> APIRouter:
    api = APIRouter()

    @api.get("/health")
    def healthy() -> Any:
        """Whether the model writes: it is made to."""
        z = torch.zeros(1, service.model.latent)
        if service.space is not None and service.space.cloud.sphere:
            z[0, 0] = 1
        text = service.model.decode(z, greedy=True, max_length=8)[0]
        return {"status": "ok", "decoded": text, "version": __version__}

    @api.get("/metrics")
    def metrics() -> Response:
        """Counters for Prometheus."""
        service.metrics.waiting.set(len(service.engine.waiting))
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return api


def create(
    model: TextVAE,
    space: Space | None,
    card: Card,
    *,
    found: dict[str, Direction] | None = None,
    hosts: tuple[str, ...] = LOOPBACK,
    key: str | None = None,
    limits: Limits | None = None,
    seconds: float = 30.0,
    more: Callable[[Service], APIRouter] | None = None,
) -> Gate:
    """The whole application. more: further routes, the explorer's. seconds: for an answer."""
    limits, metrics = limits or Limits(), Metrics()
    engine = Engine(seconds=seconds, watch=metrics.rows.observe)
    shared = SharedSpace.of(space, engine) if space is not None else None
    own = shared.model if shared is not None else SharedVAE(model, engine)
    assert isinstance(own, SharedVAE)
    service = Service(own, shared, card, engine, metrics, dict(found or {}))

    api = APIRouter(dependencies=[Depends(engine.begin)])
    api.include_router(routes.text(service))
    api.include_router(health(service))
    if more is not None:
        api.include_router(more(service))
    gate = bare(api, hosts, key, limits, metrics)
    gate.close = engine.close
    return gate


def bare(
    api: APIRouter,
    hosts: tuple[str, ...],
    key: str | None = None,
    limits: Limits | None = None,
    metrics: Metrics | None = None,
) -> Gate:
    """Routes, with errors of one line, behind the gate."""
    app = FastAPI(
        title="midsentence",
        version=__version__,
        summary="A latent space of sentences.",
        docs_url=None,  # their scripts come from elsewhere
        redoc_url=None,
        default_response_class=PlainJSON,
    )
    app.include_router(api)
    _errors(app)
    return Gate(app, hosts, metrics or Metrics(), key, limits or Limits())


def _errors(app: FastAPI) -> None:
    """Every error is one line, and says nothing of what was sent but where it is wrong."""

    def says(status: int, text: str, **headers: str) -> PlainJSON:
        return PlainJSON({"error": text}, status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        return says(422, f"{where}: {first['msg']}")

    @app.exception_handler(UserError)
    async def wrong(_: Request, error: UserError) -> Response:
        return says(422, str(error))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return says(error.status_code, str(error.detail), **(error.headers or {}))

    @app.exception_handler(Late)
    async def late(_: Request, error: Late) -> Response:
        return says(503, "it took too long to compute: ask for less", **{"retry-after": "1"})

    @app.exception_handler(Gone)
    async def gone(_: Request, error: Gone) -> Response:
        return says(499, "nobody waits for the answer any more")  # what nginx counts them as

    @app.exception_handler(Stopped)
    async def stopped(_: Request, error: Stopped) -> Response:
        return says(503, "the service is ending")

"""The commands that serve a run over HTTP. `app` lists them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import launch
from ..errors import UserError
from .options import OwnPrior, Run, all_lines, warn_unavailable

Host = Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 is everywhere.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")]
KEY = "MIDSENTENCE_API_KEY"
Key = Annotated[
    str | None,
    typer.Option(envvar=KEY, help="What clients must know."),
]
AllowHost = Annotated[
    list[str], typer.Option(help="A name this is reached by, besides localhost; may be repeated.")
]
Sentences = Annotated[int, typer.Option(min=100, help="Training sentences in the latent space.")]
SENTENCES = 20_000


def serve(
    run: Run,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: Key = None,
    allow_host: AllowHost = [],  # noqa: B006 (never changed)
    sentences: Sentences = SENTENCES,
    own_prior: OwnPrior = False,
) -> None:
    """Answer over HTTP what the other commands do: JSON, with OpenAPI at /openapi.json.

    [bold]Examples[/bold]

      midsentence serve runs/poems

      curl localhost:8000/v1/sample -H 'content-type: application/json' -d '{"n": 3}'
    """
    _start(run, host, port, api_key, allow_host, sentences, own_prior, explorer=False)


def explore(
    run: Run,
    corpus: Annotated[
        str | None, typer.Option(help="A file of lines to put on the map too.")
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: Key = None,
    allow_host: AllowHost = [],  # noqa: B006 (never changed)
    sentences: Sentences = SENTENCES,
    umap: Annotated[bool, typer.Option("--umap", help="Also a UMAP view (extra map).")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="A run that is being trained; a small map.")
    ] = False,
    own_prior: OwnPrior = False,
) -> None:
    """A page to look at the latent space and move about in it, served with the service.

    [bold]Example[/bold]

      midsentence explore runs/poems        then open http://localhost:8000
    """
    if watch:
        if corpus or umap or own_prior or sentences != SENTENCES:
            raise UserError(
                "--watch goes without --corpus, --umap, --sentences and --own-prior: leave them out"
            )
        if not run.is_dir():
            raise UserError(f"{run}: no such folder; `midsentence train --watch` makes one")
        server = _installed()
        from ..web.watching import Latest

        parent = int(os.environ[CHILD]) if CHILD in os.environ else None
        if parent is not None:
            modest()
        names = server.hosts(host, allow_host)
        _guard(server, host, api_key)
        with server.listening(host, port) as bound:
            app = Latest(run, names, api_key, parent=parent)
            server.run(app, bound, host)
        return
    _start(run, host, port, api_key, allow_host, sentences, own_prior,
           explorer=True, corpus=corpus, umap=umap)  # fmt: skip


def _start(
    run: Path,
    host: str,
    port: int,
    key: str | None,
    names: list[str],
    sentences: int,
    own_prior: bool,
    *,
    explorer: bool,
    corpus: str | None = None,
    umap: bool = False,
) -> None:
    server = _installed()
    from .. import directions
    from ..bundle import TextVAE
    from ..space import open_if_it_can
    from ..web import service
    from ..web.atlas import Atlas, umap_package
    from ..web.card import Card

    reached = server.hosts(host, names)
    _guard(server, host, key)
    # First of all: that a port is taken should be said at once.
    with server.listening(host, port) as bound:
        if umap:
            umap_package()
        model = TextVAE.from_pretrained(run, prior="own" if own_prior else "fitted")
        warn_unavailable(model)
        # Before what takes long: a file may be misspelt.
        more_lines = [] if corpus is None else all_lines(model, corpus)
        print(f"{run}: finding where its sentences lie ...", file=sys.stderr)
        space = open_if_it_can(run, model, sentences)
        found = {}
        for name in directions.names(run):
            try:
                found[name] = directions.read(run, name, model.weights)
            except UserError as error:  # all else can be done without it
                print(f"no direction {name}: {error}", file=sys.stderr)
        more: Any = None
        if explorer:
            from ..web import explorer as page

            atlas = None if space is None else Atlas.of(space, more_lines)
            if atlas is not None and umap:
                print("UMAP ...", file=sys.stderr)
                atlas.add_umap()
            more = page.routes(atlas)
        app = service.create(
            model, space, Card.of(run, model, space), found=found, key=key,
            hosts=reached, more=more,
        )  # fmt: skip
        server.run(app, bound, host)


def _guard(server: Any, host: str, key: str | None) -> None:
    """Say who may use the model, if it's everyone. Raises UserError for a key nobody can give."""
    if key is None and KEY in os.environ:  # typer takes an empty variable for one that is not set
        key = ""
    if key is None and not server.is_loopback(host):
        print("anyone who reaches this port may use the model: --api-key asks for a key",
              file=sys.stderr)  # fmt: skip
    if key is not None and not key.strip():
        raise UserError("--api-key is empty: give a key, or leave it out to serve without one")
    if key is not None and (key != key.strip() or not (key.isascii() and key.isprintable())):
        raise UserError("no header can hold this --api-key: ASCII, and no space at its ends")


def _installed() -> Any:
    """`web.server`. Raises UserError without the extra."""
    try:
        from ..web import server, service
    except ImportError as error:
        text = f"{error.name} is not installed: pip install 'midsentence[web]'"
        raise UserError(text) from None
    assert service
    return server


CHILD = "MIDSENTENCE_WATCHES"
"""Set for a process that watches the training which started it, to that one's number."""


def modest() -> None:
    """Take what the training leaves of the processor."""
    import torch

    torch.set_num_threads(1)
    if hasattr(os, "nice"):
        os.nice(15)


class Watched:
    """A listener to a training that has it watched in a browser, by a process of its own: what that
    computes cannot touch the random numbers of the training."""

    def __init__(self, out: Path, inner: Callable[[str, Any], None]):
        _installed()
        self.out, self.inner = out, inner
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self, event: str, record: Any) -> None:
        if event == "start" and self.process is None:
            command = [sys.executable, "-m", "midsentence", "explore", str(self.out), "--watch"]
            # Ctrl-C is for the training, which then ends this.
            self.process = subprocess.Popen(
                [*command, "--port", "0"],
                start_new_session=True,
                env=launch.alone() | {CHILD: str(os.getpid())},
            )
        self.inner(event, record)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

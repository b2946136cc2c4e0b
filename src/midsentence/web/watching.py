"""A run that is being trained, served: always its best model so far."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from ..bundle import TextVAE
from ..errors import UserError
from ..opening import read_json
from ..space import open_if_it_can
from . import explorer, service
from .atlas import Atlas
from .card import Card
from .gate import Gate, Message, Receive, Send

SENTENCES, EVERY = 2000, 2.0
"""Of the map, so that it is made in a moment while training has the processor; seconds between two
looks at the run."""


class Latest:
    """An ASGI application that is always the newest of several. parent: ends this process when that
    one, which started it, is gone."""

    def __init__(
        self, run: Path, hosts: tuple[str, ...], key: str | None, *, parent: int | None = None
    ):
        self.run, self.hosts, self.key, self.parent = run, hosts, key, parent
        self.app: Gate = explorer.waiting(run, hosts, key)
        self.seen: Any = None
        self.trouble: list[str] = []  # the last, as often as it came in a row, three times at most
        self.weights: str | None = None
        self.ending = threading.Event()
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    def close(self) -> None:
        self.ending.set()
        self.app.close()

    def _look(self) -> None:
        while not self.ending.is_set():
            if self.parent is not None and os.getppid() != self.parent:
                os.kill(os.getpid(), signal.SIGTERM)  # the training was killed: nobody else ends us
            try:
                self.refresh()
            except Exception as error:  # whatever a half-written run may look like
                print(f"{self.run}: {error}", file=sys.stderr)
            self.ending.wait(EVERY)

    def refresh(self) -> None:
        """Serve the model in the run folder, if it is another than before."""
        try:
            now = (self.run / "manifest.json").stat().st_mtime_ns
            if now == self.seen:
                return
            model = TextVAE.from_pretrained(self.run, prior="own")
            newest = read_json(self.run / "manifest.json")["files"]["model.safetensors"]
            if model.weights != self.weights:
                self._serve(model)
        except (UserError, OSError) as error:  # it is just being written: next time
            self.trouble = [*(t for t in self.trouble if t == str(error)), str(error)][-3:]
            if len(self.trouble) == 2:  # or not
                print(f"{self.run}: {error}", file=sys.stderr)
            return
        if model.weights == newest:  # the manifest is there before the files, and the old ones pass
            self.seen = now

    def _serve(self, model: TextVAE) -> None:
        space = open_if_it_can(self.run, model, SENTENCES) if model.latent else None
        atlas = Atlas.of(space) if space is not None else None
        card = Card.of(self.run, model, space, training=True)
        before, self.app = self.app, service.create(
            model, space, card, hosts=self.hosts, key=self.key,
            more=explorer.routes(atlas, self.run),
        )  # fmt: skip
        self.weights = model.weights
        before.close()  # who still waits for the old one is told that it ends, and asks again
        if self.ending.is_set():
            self.app.close()

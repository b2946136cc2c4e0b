"""What stands between the network and the routes: who may ask, how much, and for how long."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread

from .engine import ASKER, Asker
from .metrics import Metrics
from .plain import encoded

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; "
    "style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """body: bytes of a request. receive, send: seconds a client has to send its request and to take
    each piece of the answer. waiting: requests read, worked on or waited for at once."""

    body: int = 1 << 20
    receive: float = 10.0
    send: float = 30.0
    waiting: int = 128


class Refused(Exception):
    """An answer that needs no route."""

    def __init__(self, status: int, why: str, headers: dict[str, str] | None = None):
        super().__init__(why)
        self.status, self.why = status, why
        # What the client is still sending is not waited for.
        self.headers = {"connection": "close"} | (headers or {})


def _name(host: str) -> str:
    """A host without its port."""
    return (host if host.endswith("]") else host.rpartition(":")[0] or host).lower()


def _follows_a_link(scope: Message, headers: dict[str, str]) -> bool:
    """To the explorer: whoever made the link learns nothing of what its page shows."""
    to = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    return (scope["method"], scope["path"], *to) == ("GET", "/", "navigate", "document")


@dataclass
class Gate:
    """An ASGI application around another. hosts: names in the Host header that are answered;
    key: what a client must know, or None; close: called when the service begins to end."""

    app: App
    hosts: tuple[str, ...]
    metrics: Metrics
    key: str | None = None
    limits: Limits = field(default_factory=Limits)
    close: Callable[[], None] = lambda: None
    busy: int = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._time(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        # As many threads as may wait, or waiting would be in a line before the line.
        anyio.to_thread.current_default_thread_limiter().total_tokens = self.limits.waiting
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _time(self, scope: Message, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                held = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"]] + [
                    (k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in held
                ]
            await asyncio.wait_for(send(message), self.limits.send)

        try:
            await self._let_in(scope, receive, answer)
        except Refused as refused:
            await self._refuse(refused, answer)
        except TimeoutError:
            pass  # whoever does not take the answer does not get it; the connection is closed
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.answered(route, status, time.monotonic() - began)

    async def _let_in(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        self._check_host(headers)
        self._check_key(headers)
        # Pages of other sites may make a browser ask, but not by themselves learn who may.
        if self._elsewhere(headers) and not _follows_a_link(scope, headers):
            raise Refused(403, "requests from other sites are not answered")
        self._check_room()
        self.busy += 1  # also while it sends its body: as many bodies are held at most
        working = True

        async def counted(message: Message) -> None:
            nonlocal working
            if working:  # who takes long to read the answer holds nobody up
                working = False
                self.busy -= 1
            await send(message)

        try:
            await self._pass(scope, await self._body(headers, receive), receive, counted)
        finally:
            self.busy -= working

    async def _pass(self, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        """On to the application."""
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                await gone
                return {"type": "http.disconnect"}
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        asker = Asker()
        ASKER.set(asker)
        gone = asyncio.create_task(self._disconnected(receive, asker))
        try:
            await self.app(scope, again, send)
        finally:
            gone.cancel()

    @staticmethod
    async def _disconnected(receive: Receive, asker: Asker) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        asker.leave()

    def _check_host(self, headers: dict[str, str]) -> None:
        """A name that is not ours is a page's that had its name point here (DNS rebinding)."""
        if "*" not in self.hosts and _name(headers.get("host", "")) not in self.hosts:
            raise Refused(400, "unknown Host: start the service with --allow-host NAME for others")

    def _elsewhere(self, headers: dict[str, str]) -> bool:
        """Whether a page of another site asks. A browser says so; to an address without TLS that is
        not this machine it says no more than the page's Origin, and that not of every GET."""
        if "sec-fetch-site" in headers:
            return headers["sec-fetch-site"] not in ("none", "same-origin")
        if "origin" not in headers:
            return False
        name = _name(headers["origin"].partition("://")[2])
        return name != _name(headers.get("host", "")) and name not in self.hosts

    def _check_room(self) -> None:
        if self.busy >= self.limits.waiting:
            raise Refused(429, "too many requests at once: try again", {"retry-after": "1"})

    def _check_key(self, headers: dict[str, str]) -> None:
        if self.key is None:
            return
        kind, _, value = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key", "")
        if kind.lower() == "bearer":
            given = value
        elif kind.lower() == "basic":  # what a browser asks its user for: any name, the key
            try:
                given = base64.b64decode(value).decode().partition(":")[2]
            except ValueError:  # no base64, or no UTF-8 in it
                given = ""
        # Digests, so that not even the length takes a different time.
        digests = [hashlib.sha256(k.encode("utf-8", "replace")).digest() for k in (given, self.key)]
        if not hmac.compare_digest(*digests):
            raise Refused(401, "a key is needed: Authorization: Bearer KEY",
                          {"www-authenticate": 'Basic realm="midsentence"'})  # fmt: skip

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        most = self.limits.body
        too_large = Refused(413, f"a request may have {most:,} bytes at most")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise Refused(400, "Content-Length is not a number")
        if len(length) > 12 or int(length) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.receive):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "the request was not finished")
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise too_large
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Refused(408, f"the request took over {self.limits.receive:g} s to send") from None

    @staticmethod
    async def _refuse(refused: Refused, send: Send) -> None:
        content = encoded({"error": refused.why})
        headers = {"content-type": "application/json", "content-length": str(len(content))}
        start = [(k.encode(), v.encode()) for k, v in (headers | refused.headers).items()]
        await send({"type": "http.response.start", "status": refused.status, "headers": start})
        await send({"type": "http.response.body", "body": content})

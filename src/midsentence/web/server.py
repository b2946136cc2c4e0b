"""Running the service: uvicorn, with an end to every wait."""

import asyncio
import re
import socket
import sys
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import UserError
from .gate import LOOPBACK

HEAD_SECONDS = 10.0
"""For the head of a request, from its first byte or from opening the connection."""

TAKE_SECONDS = 30.0
"""For a client to take what was written to it before the connection was closed."""

CONNECTIONS = 1000
"""Open at once; the one that has been silent longest makes room for another, if one is silent."""

HEAD_BYTES, IDLE_SECONDS, FAREWELL_SECONDS = 16 * 1024, 5, 3


class PunctualProtocol(H11Protocol):
    """uvicorn's protocol, whose timeout is for idle connections only: a request's head that is half
    sent would be waited for without end. (Bodies are the gate's to time.)"""

    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) <= CONNECTIONS or self._made_room():
            self._expect_head()
        else:
            self.transport.abort()

    def _made_room(self) -> bool:
        # A set has no order, but each protocol knows when it will have been silent for too long.
        others: Any = self.connections
        ends = [(timer.when(), id(c), c) for c in others if not c.transport.is_closing()
                and (timer := c.deadline or c.timeout_keep_alive_task)]  # fmt: skip
        if ends:
            min(ends)[-1]._late()
        return bool(ends)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self.deadline is None and not self.transport.is_closing():
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_later()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()

    def _abort_later(self) -> None:
        """A closed connection lives until the client has read all: not for ever."""
        self.loop.call_later(TAKE_SECONDS, self.transport.abort)

    def _expect_head(self) -> None:
        self.deadline = self.loop.call_later(HEAD_SECONDS, self._late)

    def _forget(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def _late(self) -> None:
        self.deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
            self._abort_later()


class Server(uvicorn.Server):
    """Closes its application first: those who wait for the model are told so at once, and not what
    they are told when their tasks are cancelled."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.close()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def server(app: Any, host: str, port: int) -> Server:
    """app: a Gate, or what is like one."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=PunctualProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=FAREWELL_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    return Server(config)


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def hosts(host: str, names: list[str]) -> tuple[str, ...]:
    """What a Host header may say: this machine's own names, where we listen, and what was asked.
    Raises UserError for a name that no such header has."""
    found = [in_address(name).lower() for name in (host, *names)]
    for name in found[1:]:
        if not re.fullmatch(r"\*|[\w.-]+|\[[\da-f:.]+\]", name, re.ASCII):
            raise UserError(f"--allow-host {name}: a name alone, without http:// and port")
    return (*LOOPBACK, *found)


def in_address(host: str) -> str:
    """As it stands in a URL: a number of IPv6 in brackets."""
    try:
        return f"[{host}]" if ip_address(host).version == 6 else host
    except ValueError:
        return host


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UserError where the port is taken, or the address not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()  # until then another could bind to the same port
    except OSError as error:
        found.close()
        why = error.strerror or str(error)
        text = f"cannot listen on {host}:{port}: {why}. --port 0 finds a free one"
        raise UserError(text) from None
    return found


def run(app: Any, bound: socket.socket, host: str) -> None:
    """Serve on a socket of `listening` until Ctrl-C or SIGTERM; `FAREWELL_SECONDS` later it is
    over."""
    shown = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::") else in_address(host)
    print(f"http://{shown}:{bound.getsockname()[1]}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
    with suppress(KeyboardInterrupt):  # raised by uvicorn once all is shut down
        server(app, host, bound.getsockname()[1]).run(sockets=[bound])

"""Limits below the application: how large and how slow a request may be before anything is answered, and how many connections there are.

uvicorn by itself waits for ever for the rest of a request and takes headers of any size. Here a connection notes when something came, and
one look at all of them, four times a second, closes those that are late: requests that are not late pay for no timer.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from mapsto.service.overload import Overload
from mapsto.service.refusal import error_body

__all__ = ["Connection", "ConnectionLimits", "limited", "watch"]

_IDLE, _HEADERS, _BODY = range(3)
"""What a connection waits for: a request, the rest of its headers, the rest of its body."""

_TOO_MANY = "there are too many connections"


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """What a client may take its time for, a worker."""

    connections: int = 1000
    """Beyond it 503; beyond twice as many they are closed unheard."""
    header_bytes: int = 32 << 10
    """Of the request line and the headers; beyond it 431."""
    headers: int = 100
    """Beyond it 431."""
    header_seconds: float = 10.0
    """From the first byte of a request, or the start of a connection, to the end of the headers; beyond it 408."""
    body_gap: float = 10.0
    """Seconds between two parts of a body; beyond it 408."""
    body_seconds: float = 20.0
    """Seconds for a whole body, and one more for each `body_rate` bytes of it; beyond it 408."""
    body_rate: int = 16 << 10
    """Bytes a second."""
    framing: int = 1 << 20
    """Bytes around a body that comes in chunks: their lengths, extensions, trailers; beyond it 400."""
    idle: float = 60.0
    """Seconds for which a connection is kept for the next request."""
    linger: float = 5.0
    """Seconds for which the rest of a body is taken and dropped whose request has its answer."""
    unsent: float = 30.0
    """Seconds for which a client may take nothing of its answer."""
    pipelined: int = 32
    """Requests that may come before the answer to the first; what comes beyond is not read."""
    body_bytes: int = 64 << 20
    """Of a body whose length is said before it comes."""
    ending_gap: float = 2.0
    """`body_gap` once the service ends."""


class Connection(HttpToolsProtocol):
    """A client's connection; made by uvicorn, of a class that `limited` gives."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()
    overload: ClassVar[Overload | None] = None
    told: ClassVar[tuple[Callable[[int], None], ...]] = ()
    """Called with the status of each request that is refused."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._phase = _HEADERS
        self._began = self._last = self.loop.time()
        self._received = self._body = 0
        self._large = self._refused = self._too_many = self._secure = False
        self._begun = False
        """Whether a request has begun that is not whole yet."""
        self._gap = self.limits.body_gap
        self._unsent, self._unsent_since = 0, 0.0

    # -- what comes

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._secure = transport.get_extra_info("sslcontext") is not None
        if len(self.connections) > self.limits.connections:
            self._too_many = True
            if len(self.connections) > 2 * self.limits.connections:
                self._refused = True
                self._tell(503)
                transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._refused or self._too_many:
            self._refuse(503, _TOO_MANY)
            return
        limits, size = self.limits, len(data)
        self._last = self.loop.time()
        if self.overload is not None and not (self._begun or self._received) and self._is_free():
            refusal = self.overload.refusal(data)
            if refusal is not None:
                answer, last = refusal
                self._phase = _IDLE
                self.transport.write(answer)
                if last or self.flow.write_paused:  # who takes no answers is not told again
                    self.transport.close()
                return
        if not (self._begun or self._received):
            data = _without_upgrade(data)
        self._received += size
        self._large = size > limits.header_bytes
        super().data_received(data)
        if self._phase == _BODY:
            if self._received - self._body > limits.framing:
                self._refuse(400, f"there are more than {limits.framing} bytes around the body's chunks")
        elif self._phase == _HEADERS:
            if self._received > limits.header_bytes or len(self.headers or ()) > limits.headers:
                self._refuse(431, self._too_large())
        elif self._received:  # blank lines before a request are part of it
            self._phase, self._began = _HEADERS, self._last

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Whether the connection stays open for an answer: a client that sends no more may still wait for what it asked."""
        if self._is_free() or self._refused or self._phase == _BODY or self._secure:
            return False  # over TLS a connection ends as a whole
        self.cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun = True
        if self._phase != _HEADERS:
            self._phase, self._began = _HEADERS, self._last

    def on_headers_complete(self) -> None:
        if self._refused:
            return
        limits = self.limits
        if len(self.headers) > limits.headers or (
            (self._large or self._received > limits.header_bytes) and self._header_bytes() > limits.header_bytes
        ):
            self._refuse(431, self._too_large())
            return
        if self._declared() > limits.body_bytes:
            self._refuse(413, f"the body has more than {limits.body_bytes} bytes")
            return
        if len(self.pipeline) >= limits.pipelined:
            self.cycle.keep_alive = False  # the connection ends with the last answer
            self._refused = True
            return
        self._phase, self._began = _BODY, self._last
        self._received = self._body = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._refused:
            return
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused:
            return
        self._phase, self._received, self._begun = _IDLE, 0, False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """As uvicorn's, without a timer for the connection that is kept."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._last = self.loop.time()
        if self._phase == _BODY:
            self._began = self._last  # from when the rest is only waited for
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        self.flow.resume_reading()

    def shutdown(self) -> None:
        self._gap = min(self._gap, self.limits.ending_gap)
        super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    # -- what does not come

    def look(self, now: float, since: float) -> None:
        """Close the connection if it is late; `since` is the time of the look before this one."""
        limits = self.limits
        if self._takes_nothing(now):
            self.transport.abort()
        elif self._refused or self.transport.is_closing():
            return
        elif self._too_many:
            self._refuse(503, _TOO_MANY)
        elif self.flow.read_paused:  # it is the service that does not go on
            self._last = now
            self._began += now - since
        elif self._phase == _HEADERS:
            if now - self._began > limits.header_seconds:
                self._refuse(
                    408, f"the headers were not whole within {limits.header_seconds:g} s", silent=not self._received
                )
        elif self._phase == _BODY:
            if self.cycle.response_complete:
                if now - self._began > limits.linger:
                    self.transport.close()
            elif now - self._last > self._gap:
                self._refuse(408, f"nothing of the body came for {self._gap:g} s")
            elif now - self._began > limits.body_seconds + self._body / limits.body_rate:
                self._refuse(408, f"the body came slower than {limits.body_rate} bytes a second")
        elif self._is_free() and now - self._last > limits.idle:
            self.transport.close()

    def _takes_nothing(self, now: float) -> bool:
        """Whether the client takes nothing of an answer."""
        size = self.transport.get_write_buffer_size()
        if not size or not self._unsent or size < self._unsent:
            self._unsent_since = now
        self._unsent = size
        return now - self._unsent_since > self.limits.unsent

    def _is_free(self) -> bool:
        return not self.cycle or self.cycle.response_complete  # there is none before the first request

    def _header_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _declared(self) -> int:
        """The bytes that the request says its body has; 0 where it does not."""
        length = next((value for name, value in self.headers if name == b"content-length"), b"")
        return int(length) if length.isdigit() else 0

    def _too_large(self) -> str:
        return (
            f"there are more than {self.limits.headers} headers, or more than {self.limits.header_bytes} bytes of them"
        )

    def _tell(self, status: int) -> None:
        for each in self.told:
            each(status)

    def _refuse(self, status: int, text: str, *, silent: bool = False) -> None:
        """Answer the request that is not whole, if no answer to another is under way, and close the connection."""
        if self._refused:
            return
        self._refused = True
        if not silent:
            self._tell(status)
        if self._phase == _HEADERS and not self._is_free():
            self.cycle.keep_alive = False
            return
        if not silent and not self.pipeline and (self._is_free() or not self.cycle.response_started):
            self.transport.write(_answer(status, text))
        self.transport.close()


class _Flow(FlowControl):
    """uvicorn's, which reads on only when no whole request waits for its turn."""

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if self.read_paused and not self._pipeline:
            super().resume_reading()


def limited(
    limits: ConnectionLimits, overload: Overload | None = None, closed: Callable[[int], None] = lambda status: None
) -> type[Connection]:
    """The class of connections with these limits, whose requests are refused where there are too many.

    `closed` is told the status of each request that is refused, 503 of a connection that is closed unheard.
    """
    own = {"limits": limits, "overload": overload, "told": (closed,)}
    return type("LimitedConnection", (Connection,), own)


async def watch(connections: Collection[Any], *, every: float = 0.25) -> None:
    """Look at connections, those of a server's state, until it is cancelled."""
    clock = asyncio.get_running_loop().time
    before = clock()
    while True:
        await asyncio.sleep(every)
        now = clock()
        for connection in tuple(connections):
            connection.look(now, before)
        before = now


def _without_upgrade(data: bytes) -> bytes:
    r"""A request without the wish for another protocol, which RFC 9110 lets a server pass over.

    >>> _without_upgrade(b"GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n")
    b'GET / HTTP/1.1\r\nignored: h2c\r\n\r\n'
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return data
    return _UPGRADE.sub(b"\r\nignored:", data[: end + 2]) + data[end + 2 :]


_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


def _answer(status: int, text: str) -> bytes:
    body = error_body(text)
    again = b"retry-after: 1\r\n" if status == 503 else b""
    return (
        b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n%s"
        % (
            status,
            HTTPStatus(status).phrase.encode(),
            len(body),
            again,
            body,
        )
    )

"""One process of the service: uvicorn around the application, with an end that loses nothing.

SIGTERM and SIGINT: readiness fails at once; after a window, in which load balancers look elsewhere, no connection is taken any more;
what a handler has begun is answered and stored; then the process ends with 0. A request that was half sent is given up after a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn

from mapsto.errors import SpecError, StoreError
from mapsto.service.connections import ConnectionLimits, limited, watch
from mapsto.service.overload import Overload
from mapsto.service.request_handler import Application
from mapsto.service.service import Service

if TYPE_CHECKING:
    from mapsto.service.tls import Certificates

__all__ = ["Beside", "Ending", "follow", "serve"]

_POLL_SECONDS = 0.25
"""Between two looks at what changed in the state."""
_HANDSHAKE_SECONDS, _FAREWELL_SECONDS = 10.0, 5.0
"""That TLS may take at the beginning and the end of a connection."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How the service ends."""

    window: float = 0.0
    """Seconds for which it still takes requests while readiness fails."""
    most: float = 30.0
    """Seconds that what was begun may still take."""


class Beside(Protocol):
    """Another server of the same service in the same event loop."""

    async def start(self) -> object:
        """Take requests."""
        ...

    async def stop(self, most: float) -> None:
        """Take none any more, and wait for those that were begun, so many seconds at most."""
        ...


class _Server(uvicorn.Server):
    """uvicorn's, with signals left to `serve`, and TLS by a context that it is given."""

    context: ssl.SSLContext | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; a handshake that is not whole in time ends."""
        if self.context is None:
            await super().startup(sockets)
            return
        await self.lifespan.startup()
        config, loop = self.config, asyncio.get_running_loop()
        kind: Any = config.http_protocol_class

        def connection() -> asyncio.Protocol:
            return kind(config=config, server_state=self.server_state, app_state=self.lifespan.state)

        self.servers = [
            await loop.create_server(
                connection,
                sock=each,
                ssl=self.context,
                backlog=config.backlog,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_FAREWELL_SECONDS,
            )
            for each in sockets or ()
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def serve(
    service: Service,
    application: Application,
    sockets: Sequence[socket.socket],
    *,
    ending: Ending,
    limits: ConnectionLimits | None = None,
    overload: Overload | None = None,
    closed: Callable[[int], None] = lambda status: None,
    started: Callable[[], None] = lambda: None,
    beside: Sequence[Beside] = (),
    tls: Certificates | None = None,
    supervisor: int | None = None,
) -> None:
    """Answer until a signal says to end, or the supervisor has ended, by default the process that started this one.

    `overload` refuses requests unread; `closed` is told of the status of each that breaks the limits of a connection. What answers `beside`
    HTTP starts and stops with it.
    """
    config = uvicorn.Config(
        application,
        http=limited(limits or ConnectionLimits(), overload, closed),
        ws="none",
        proxy_headers=False,  # nothing here depends on where a request came from
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(ending.most)),
    )
    server = _Server(config)
    server.context = None if tls is None else tls.context
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    work = asyncio.ensure_future(server.serve(list(sockets)))
    polling = asyncio.ensure_future(follow(service, supervisor or os.getppid(), tls))
    watching = asyncio.ensure_future(watch(server.server_state.connections))
    while not server.started and not work.done():
        await asyncio.sleep(0.01)
    if not work.done():
        for each in beside:
            await each.start()
        started()
    waiting = asyncio.ensure_future(ended.wait())
    await asyncio.wait([work, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    service.ready = False
    if not work.done():
        await asyncio.sleep(ending.window)
        server.should_exit = True
    await asyncio.gather(work, *(each.stop(ending.most) for each in beside))
    polling.cancel()
    watching.cancel()
    await service.closed()


async def follow(service: Service, parent: int | None = None, tls: Certificates | None = None) -> None:
    """Take over what other processes change, packages that are to be loaded again, and other certificates; end with the process `parent`,
    where one is given.
    """
    loop, said = asyncio.get_running_loop(), ""
    looks = [service.refresh, service.note_uses, service.reload]
    if tls is not None:
        looks.append(tls.reload)
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        wrong = ""
        try:
            service.overwrite_answers()
        except (OSError, ValueError) as error:  # of a file that goes meanwhile
            wrong = f"answers were not overwritten: {type(error).__name__}"
        for look in looks:
            try:
                for text in await loop.run_in_executor(None, look) or ():
                    sys.stderr.write(f"mapsto: {text}\n")
            except Exception as error:  # whatever it is: who does not follow would answer keys that have ended
                if isinstance(error, SpecError):  # files of TLS, which are looked at again once they change
                    sys.stderr.write(f"mapsto: TLS goes on as it was: {error}\n")
                    continue
                wrong = str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
        if wrong and wrong != said:  # once, and not at every look
            sys.stderr.write(f"mapsto: {wrong}\n")
        said = wrong
        if parent is not None and os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            return

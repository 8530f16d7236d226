"""A whole service in a thread of the tests, behind the connections that a worker has: it starts at once, and is asked over loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import uvicorn

from mapsto.service.connections import ConnectionLimits, limited, watch
from tests.service.in_process import InProcess

__all__ = ["Listening", "listening"]


class Listening(NamedTuple):
    """The service ``signs`` on a port."""

    port: int
    key: str
    service: InProcess
    server: uvicorn.Server

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def open(self) -> int:
        """Connections that there are."""
        return len(self.server.server_state.connections)


@contextmanager
def listening(folder: Path, *, limits: ConnectionLimits | None = None) -> Generator[Listening]:
    """The service, ended at the end."""
    opened = socket.create_server(("127.0.0.1", 0))
    service = InProcess(folder)
    own = limited(limits or ConnectionLimits())
    config = uvicorn.Config(
        service.application, http=own, ws="none", lifespan="off", log_level="critical", proxy_headers=False
    )
    server = uvicorn.Server(config)

    async def run() -> None:
        watching = asyncio.ensure_future(watch(server.server_state.connections, every=0.02))
        await server.serve([opened])
        watching.cancel()

    thread = threading.Thread(target=service.run, args=(run(),))
    key = service.key(scopes=("predict", "adapt", "learn"))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Listening(opened.getsockname()[1], key, service, server)
    finally:
        server.should_exit = True
        thread.join()
        service.close()

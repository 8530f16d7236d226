"""A whole service in the process of the tests, asked over ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fastapi import FastAPI

from mapsto.service.access import Access
from mapsto.service.hosts import Hosts
from mapsto.service.keys import made
from mapsto.service.request_handler import RequestHandler
from mapsto.service.request_log import RequestLog
from mapsto.service.routes import application
from mapsto.service.served_model import ServedModel
from mapsto.service.service import Service
from mapsto.service.state import State, VersionRow
from mapsto.service.tokens import Tokens
from tests.cli.packages import linear_package

__all__ = ["Answer", "InProcess", "started"]

Found = TypeVar("Found")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class InProcess:
    """The service ``signs`` with its state, its routes, and a log of its requests."""

    def __init__(self, folder: Path, *, tokens: Tokens | None = None, hosts: Hosts | None = None) -> None:
        linear_package(folder / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
        self.state = State(folder / "state.sqlite")
        self.service = Service([ServedModel("signs", folder / "signs")], self.state, folder)
        who = Access(self.service.keys, tokens).caller
        self.routes: FastAPI = application(self.service, who, lambda: b"# metrics\n")
        self.log: list[str] = []
        self._runner = asyncio.Runner()
        handler = RequestHandler(self.service, self.routes, who, hosts=hosts)
        self.application = RequestLog(
            handler, models=lambda: self.service.names, active=self.service.active, write=self.log.append
        )

    def key(self, **more: Any) -> str:
        """A new key, which the service knows."""
        _, key = made(self.state, **more)
        self.service.keys.refresh()
        return key

    def learnt(self, version: str, note: str) -> None:
        """A version as the learner publishes it, of the head of one that there is."""
        row = self.state.version("signs", self.state.versions("signs")[0].version)
        assert row is not None
        self.state.add_version(
            VersionRow(
                model="signs",
                version=version,
                kind="learned",
                parent="1",
                package=row.package,
                content=row.content,
                note=note,
            )
        )

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        method: str = "",
        reading: Any = None,
        **headers: str,
    ) -> Answer:
        """An answer; ``_`` in a header's name stands for ``-``; `reading` is told when the body is read."""
        return self.run(self.asked(path, body, key=key, method=method, reading=reading, **headers))

    def run(self, work: Coroutine[Any, Any, Found]) -> Found:
        """What comes of it, in the event loop of the service."""
        return self._runner.run(work)

    async def asked(
        self,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        method: str = "",
        reading: Any = None,
        **headers: str,
    ) -> Answer:
        """As `ask`, for those who ask many times."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        if key is not None:
            sent.append((b"authorization", f"Bearer {key}".encode()))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method or ("GET" if body is None else "POST"),
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": sent,
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        return await self._asked(scope, content, reading)

    def close(self) -> None:
        self._runner.run(self.service.closed())
        self._runner.close()
        self.state.close()

    async def _asked(self, scope: dict[str, Any], content: bytes, reading: Any) -> Answer:
        said: list[Any] = []

        async def receive() -> dict[str, Any]:
            if reading is not None:
                reading(len(content))
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        await self.application(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in said[0]["headers"]}
        return Answer(said[0]["status"], headers, b"".join(each.get("body", b"") for each in said[1:]))


@contextmanager
def started(folder: Path, **more: Any) -> Iterator[InProcess]:
    service = InProcess(folder, **more)
    try:
        yield service
    finally:
        service.close()

"""The studio below a path of a service: whoever looks signs in with an API key, and each request is answered with that key's rights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from anyio import from_thread
from fastapi import FastAPI, Request

from mapsto.recipe.serving import Thresholds
from mapsto.service.client import Client, ServiceError
from mapsto.service.request_handler import Application, Who
from mapsto.studio.application import application
from mapsto.studio.services import Services
from mapsto.studio.sessions import key_of
from mapsto.studio.site import Studio

__all__ = ["mounted"]


def mounted(routes: FastAPI, who: Who, settings: Mapping[str, Any]) -> FastAPI:
    """The studio of a service.

    Parameters
    ----------
    routes
        Those of the service.
    who
        Tells a caller.
    settings
        ``secret``, hexadecimal, by which all workers sign forms; ``alerts``, the limits of alerts; ``where``, the service's address.
    """

    def client(request: Request) -> Client | None:
        key = key_of(request)
        return _InProcess(routes, key) if key else None

    limits = Thresholds.model_validate(settings["alerts"])
    services = Services(client=client, where=settings["where"], thresholds=limits, who=who)
    return application(Studio(folders=None, services=services, secret=bytes.fromhex(settings["secret"])))


class _InProcess(Client):
    """A client of the routes of this process: its methods are called in worker threads, and what is asked is answered in the event loop."""

    def __init__(self, routes: Application, key: str) -> None:
        super().__init__("http://127.0.0.1", key)
        self._routes = routes

    def _sent(self, path: str, content: bytes | None) -> bytes:
        status, body = from_thread.run(self._answer, path, content)
        if status >= 400:
            raise ServiceError(_said(body), status=status, where=path)
        return body

    async def _answer(self, path: str, content: bytes | None) -> tuple[int, bytes]:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET" if content is None else "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"authorization", f"Bearer {self._key}".encode())],
            "server": ("127.0.0.1", 80),
            "client": None,
        }
        status, parts = 500, list[bytes]()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content or b"", "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                parts.append(message.get("body", b""))

        await self._routes(scope, receive, send)
        return status, b"".join(parts)


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace")[:200]

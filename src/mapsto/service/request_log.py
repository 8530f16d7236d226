"""A line of JSON for each request: when, by which key, of which model, how it ended; never what it held.

Names from the path are written only where they are the service's own, since anything may stand in a path, a key too.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, MutableMapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from mapsto.service.request_handler import CALLER, Application, Receive, Scope, Send

__all__ = ["RequestLog", "action_of", "line"]

_ACTIONS = frozenset(
    ("adapt", "feedback", "infer", "jobs", "learner", "live", "metrics", "promote", "ready", "rollback", "versions")
)


def _to_stderr(line: str) -> None:
    sys.stderr.write(line)


class RequestLog:
    """The application, with a line for each of its requests.

    Parameters
    ----------
    models
        Names of the models.
    active
        The version of a model that answers where none is asked for.
    write
        Takes a line.
    shown
        How the name of a caller stands in it.
    """

    def __init__(
        self,
        application: Application,
        *,
        models: Callable[[], Collection[str]],
        active: Callable[[str], str],
        write: Callable[[str], object] = _to_stderr,
        shown: Callable[[str], str] = str,
    ) -> None:
        self._application, self._models, self._active, self._write = application, models, active, write
        self._shown = shown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        began, told = time.perf_counter(), {}
        scope[CALLER] = told
        status = 499  # the client went before there was an answer

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._application(scope, receive, noted)
        except Exception:
            status = 500
            raise
        finally:
            self._write(self._line(scope, told.get("name"), status, time.perf_counter() - began))

    def _line(self, scope: Scope, caller: str | None, status: int, seconds: float) -> str:
        parts = scope["path"].split("/")
        model = unquote(parts[3]) if parts[1:3] == ["v2", "models"] and len(parts) > 3 else ""
        model = model if model in self._models() else ""
        version = ""
        if model and status < 400:
            asked = parts[5] if len(parts) > 5 and parts[4] == "versions" else ""
            version = asked or self._active(model)
        return line(
            caller=caller if caller is None else self._shown(caller),
            method=scope["method"] if len(scope["method"]) < 8 else "",
            action=action_of(scope["path"]),
            model=model,
            version=version,
            status=status,
            seconds=seconds,
        )


def action_of(path: str) -> str:
    """What a path asks for; empty where it is none of the service's actions, so that no text of a client's is.

    >>> action_of("/v2/models/m/infer"), action_of("/v2/models/m/jobs/j-1"), action_of("/v2/secret")
    ('infer', 'jobs', '')
    """
    parts = path.split("/")
    action = parts[4] if len(parts) == 6 and parts[4] == "jobs" else parts[-1]
    return action if action in _ACTIONS else ""


def line(*, caller: str | None, method: str, action: str, model: str, version: str, status: int, seconds: float) -> str:
    """The line of a request, which holds no text of its client's."""
    row = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "key": caller,
        "method": method,
        "action": action,
        "model": model,
        "version": version,
        "status": status,
        "ms": round(seconds * 1000, 3),
    }
    return json.dumps(row) + "\n"

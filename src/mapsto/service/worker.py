"""A process that answers: `python -m mapsto.service.worker`, with the settings as JSON on standard input.

The listening socket is the supervisor's, so that a worker that is started again goes on with the connections that wait.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mapsto.data.privacy.pseudonyms import Pseudonyms
from mapsto.data.privacy.settings import Privacy
from mapsto.service.access import Access, AccessSettings
from mapsto.service.batching import Batcher
from mapsto.service.hosts import Hosts
from mapsto.service.keys import RunKey
from mapsto.service.metrics import Metrics
from mapsto.service.mounted import Mounted, mount
from mapsto.service.overload import Overload
from mapsto.service.request_handler import Application, Observe, RequestHandler
from mapsto.service.request_log import RequestLog
from mapsto.service.routes import application
from mapsto.service.served_model import ServedModel
from mapsto.service.server import Beside, Ending, serve
from mapsto.service.service import Limits, Service
from mapsto.service.state import State
from mapsto.service.writer import RemoteWriter, Writes
from mapsto_runtime.signed_package import Trust

if TYPE_CHECKING:
    from mapsto.data.privacy.settings import FieldAction
    from mapsto.service.tracing import Tracing

__all__ = ["Answering", "answering", "main", "models_of"]


def models_of(
    settings: Sequence[Mapping[str, str]], *, metrics: Metrics | None = None, **more: Any
) -> list[ServedModel]:
    """The models of settings: ``name`` and ``folder`` each; `metrics` are told of their batches."""
    return [
        ServedModel(
            each["name"],
            Path(each["folder"]),
            observe=None if metrics is None else metrics.batch(each["name"]),
            **more,
        )
        for each in settings
    ]


def _to(descriptor: int | None) -> Callable[[str], object]:
    """What writes a line to a file that was inherited, else to standard error."""
    if descriptor is None:
        return sys.stderr.write
    return lambda line: os.write(descriptor, line.encode())


def _shown(privacy: Mapping[str, Any] | None) -> Callable[[str], str]:
    """How the name of a caller stands in the log of requests."""
    if privacy is None or privacy["settings"]["callers"] == "keep":
        return str
    pseudonyms = Pseudonyms.of_file(Path(privacy["key"]))

    @lru_cache(4096)
    def shown(name: str) -> str:
        return pseudonyms.of("CALLER", name)

    return shown


def _fields(privacy: Mapping[str, Any] | None) -> tuple[Mapping[str, FieldAction], Pseudonyms | None]:
    """What becomes of fields of tables, and under which key."""
    if privacy is None:
        return {}, None
    fields = Privacy.of(privacy["settings"], where="serve").fields
    return fields, Pseudonyms.of_file(Path(privacy["key"])) if "hash" in fields.values() else None


class Answering(NamedTuple):
    """What answers requests, in whatever server."""

    service: Service
    handler: Application
    metrics: Metrics
    callers: Access
    state: State
    observe: Observe
    tracing: Tracing | None
    write: Callable[[str], object] | None
    """Takes a line for each request; None: none are wanted."""
    shown: Callable[[str], str]
    """How a caller's name stands there."""

    def close(self) -> None:
        """Look at nothing any more."""
        self.metrics.close()
        if self.tracing is not None:
            self.tracing.close()
        self.state.close()


def answering(settings: Mapping[str, Any], *, address: str) -> Answering:
    """The service of settings and the ASGI application around it, for a server that listens on an address."""
    limits = Limits(**settings["limits"])
    state = State(settings["state"], durability=settings["durability"])
    metrics = Metrics([each["name"] for each in settings["models"]])
    writer: Writes = RemoteWriter(Path(settings["socket"]), masks=settings["privacy"] is not None)
    tracing = None
    if settings["tracing"]:
        from mapsto.service.tracing import Tracing, TracingSettings

        tracing = Tracing(TracingSettings(**settings["tracing"]), role="worker")
        Batcher.trace = tracing.batch
        writer = tracing.writing(writer, Path(settings["traces"]))
    fields, pseudonyms = _fields(settings["privacy"])
    service = Service(
        models_of(
            settings["models"],
            metrics=metrics,
            most_wait=limits.most_wait,
            trust=Trust.from_plain(settings["trust"]),
            fields=fields,
            pseudonyms=pseudonyms,
        ),
        state,
        Path(settings["folder"]),
        worker=settings["worker"],
        workers=settings.get("workers", 256),
        limits=limits,
        writer=writer,
        run=RunKey(**settings["run"]) if settings["run"] else None,
    )
    access = AccessSettings(**settings["access"])
    callers = Access(service.keys, access.tokens())
    service.charge = callers.charge
    metrics.follow(service)
    routes = application(service, callers.caller, metrics.text)
    for each in settings.get("mounted", ()):
        mount(routes, callers.caller, Mounted(**each))
    behind = metrics.around(routes)
    observe = metrics.request if tracing is None else tracing.observing(metrics.request, lambda: service.names)
    handler: Application = RequestHandler(service, behind, callers.caller, observe, Hosts(address, access.hosts))
    if tracing is not None:
        handler = tracing.around(handler)
    write, shown = _to(settings.get("log")) if access.log else None, _shown(settings["privacy"])
    if write is not None:
        handler = RequestLog(handler, models=lambda: service.names, active=service.active, write=write, shown=shown)
    return Answering(service, handler, metrics, callers, state, observe, tracing, write, shown)


def main() -> None:
    """Answer until SIGTERM."""
    import uvloop

    settings: dict[str, Any] = json.load(sys.stdin)
    listening = socket.socket(fileno=settings["listening"])
    parts = answering(settings, address=listening.getsockname()[0])
    service = parts.service

    def started() -> None:
        with contextlib.suppress(BrokenPipeError):  # the supervisor has ended, and this process does next
            os.write(settings["ready"], b"1")

    signal.signal(signal.SIGHUP, lambda number, frame: service.reload_soon())
    overload = Overload(service.limits.most_wait, parts.callers.name_of, parts.metrics.refused_unread)
    tls = None
    if settings["tls"]:
        from mapsto.service.tls import Certificates, TlsSettings

        tls = Certificates(TlsSettings(**settings["tls"]))
        parts.metrics.certificate(lambda: tls.ends)
    beside: list[Beside] = []
    if settings["grpc"]:
        from mapsto.service.grpc_server import GrpcServer

        beside.append(
            GrpcServer(
                service,
                parts.callers.caller,
                settings["grpc"],
                observe=parts.observe,
                credentials=None if tls is None else tls.grpc(),
                overload=overload,
                tracing=parts.tracing,
                write=parts.write,
                shown=parts.shown,
            )
        )
    gc.collect()
    gc.freeze()  # what was loaded stays, and need not be looked through again and again
    gc.set_threshold(10_000)
    work = serve(
        service,
        parts.handler,
        [listening],
        ending=Ending(**settings["ending"]),
        overload=overload,
        closed=parts.metrics.closed,
        started=started,
        beside=beside,
        tls=tls,
        supervisor=settings["supervisor"],
    )
    uvloop.run(work)
    parts.close()


if __name__ == "__main__":
    main()

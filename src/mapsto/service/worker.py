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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mapsto.service.access import Access, AccessSettings
from mapsto.service.hosts import Hosts
from mapsto.service.keys import RunKey
from mapsto.service.metrics import Metrics
from mapsto.service.overload import Overload
from mapsto.service.request_handler import Application, RequestHandler
from mapsto.service.request_log import RequestLog
from mapsto.service.routes import application
from mapsto.service.served_model import ServedModel
from mapsto.service.server import Beside, Ending, serve
from mapsto.service.service import Limits, Service
from mapsto.service.state import State
from mapsto.service.writer import RemoteWriter
from mapsto_runtime.signed_package import Trust

__all__ = ["main", "models_of"]


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


def main() -> None:
    """Answer until SIGTERM."""
    import uvloop

    settings: dict[str, Any] = json.load(sys.stdin)
    limits = Limits(**settings["limits"])
    state = State(settings["state"], durability=settings["durability"])
    metrics = Metrics([each["name"] for each in settings["models"]])
    service = Service(
        models_of(
            settings["models"],
            metrics=metrics,
            most_wait=limits.most_wait,
            trust=Trust.from_plain(settings["trust"]),
        ),
        state,
        Path(settings["folder"]),
        worker=settings["worker"],
        limits=limits,
        writer=RemoteWriter(Path(settings["socket"])),
        run=RunKey(**settings["run"]) if settings["run"] else None,
    )

    access = AccessSettings(**settings["access"])
    callers = Access(service.keys, access.tokens())
    who = callers.caller
    listening = socket.socket(fileno=settings["listening"])
    hosts = Hosts(listening.getsockname()[0], access.hosts)

    def started() -> None:
        with contextlib.suppress(BrokenPipeError):  # the supervisor has ended, and this process does next
            os.write(settings["ready"], b"1")

    signal.signal(signal.SIGHUP, lambda number, frame: service.reload_soon())
    metrics.follow(service)
    behind = metrics.around(application(service, who, metrics.text))
    handler: Application = RequestHandler(service, behind, who, metrics.request, hosts)
    if access.log:
        handler = RequestLog(handler, models=lambda: service.names, active=service.active)
    overload = Overload(limits.most_wait, callers.name_of, metrics.refused_unread)
    beside: list[Beside] = []
    if settings["grpc"]:
        from mapsto.service.grpc_server import GrpcServer

        write = sys.stderr.write if access.log else None
        beside.append(
            GrpcServer(service, who, settings["grpc"], observe=metrics.request, overload=overload, write=write)
        )
    gc.collect()
    gc.freeze()  # what was loaded stays, and need not be looked through again and again
    gc.set_threshold(10_000)
    work = serve(
        service,
        handler,
        [listening],
        ending=Ending(**settings["ending"]),
        overload=overload,
        closed=metrics.closed,
        started=started,
        beside=beside,
        supervisor=settings["supervisor"],
    )
    uvloop.run(work)
    metrics.close()
    state.close()


if __name__ == "__main__":
    main()

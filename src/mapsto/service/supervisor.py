"""The processes of a service, kept running: workers that answer, one that writes, one that fits versions, one that learns.

A process that ends by itself is started again; one that cannot start, time after time, ends the service with what it said. SIGTERM and
SIGINT end the workers first, which answer what they have begun, then the writer, which stores what waits, then the fitter and the
learner. SIGHUP has the workers load their packages again.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from mapsto.data.privacy.masking import TextMasking
from mapsto.data.privacy.settings import Privacy
from mapsto.errors import MapstoError, SpecError, StoreError
from mapsto.service.access import AccessSettings
from mapsto.service.children import Child, Children, private_folder
from mapsto.service.keys import RunKey
from mapsto.service.masked_log import MaskedLog
from mapsto.service.metrics import FOLDER_VARIABLE, forget_process
from mapsto.service.mounted import Mounted
from mapsto.service.server import Ending
from mapsto.service.service import Limits
from mapsto_runtime.signed_package import Trust

if TYPE_CHECKING:
    from mapsto.service.tls import TlsSettings
    from mapsto.service.tracing import TracingSettings

__all__ = ["Settings", "Supervisor", "beside", "only_one", "shared_settings"]

_BESIDE = ("fitter", "learner")
"""Processes without which the service answers all the same: they are started again and again."""
_START_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a service is."""

    state: str
    """A file or ``postgresql://…``."""
    folder: Path
    """Where workers keep answers for their labels."""
    models: Mapping[str, Path]
    """Packages by name."""
    adapts: bool = True
    """Whether a model adapts, so that one process fits versions that take seconds."""
    learning: tuple[str, ...] = ()
    """Models that learn from feedback."""
    learner: str = "online.ridge"
    promote: bool = True
    every: float = 5.0
    """Seconds between two versions at most."""
    durability: str = "process"
    workers: int = 1
    limits: Limits = field(default_factory=Limits)
    ending: Ending = field(default_factory=Ending)
    access: AccessSettings = field(default_factory=AccessSettings)
    grpc: str = ""
    """The address that gRPC is answered on, such as ``127.0.0.1:8081``; empty: on none."""
    trust: Trust = field(default_factory=Trust)
    """Whose packages are loaded."""
    tls: TlsSettings | None = None
    """None: HTTP and gRPC are plain."""
    tracing: TracingSettings | None = None
    """None: there are no traces."""
    mounted: tuple[Mounted, ...] = ()
    """Applications below paths of the service."""
    run: RunKey | None = None
    """A key that is valid as long as this service runs."""
    privacy: Privacy | None = None
    """What is masked before it is stored, and how long it is kept; None: nothing, and for ever."""
    privacy_key: Path | None = None
    """The file of the key of pseudonyms, with `privacy`."""


class Supervisor:
    """The processes of a service.

    Parameters
    ----------
    listening
        The socket that all workers take connections from.
    masking
        What lines go through that the processes write to standard error.
    """

    def __init__(self, settings: Settings, listening: socket.socket, *, masking: TextMasking | None = None) -> None:
        self._settings, self._listening = settings, listening
        self._alone = only_one(settings.folder)
        self._place = private_folder()
        self._metrics = self._place / "metrics"
        self._metrics.mkdir()
        self._ready, self._tells = os.pipe()
        common = {
            **shared_settings(settings),
            "supervisor": os.getpid(),
            "socket": str(self._place / "writer"),
            "traces": str(self._place / "traces"),
            "answers": str(settings.folder),
        }
        self._log = None if masking is None else MaskedLog(masking)
        self._children = Children(
            beside=_BESIDE,
            where="mapsto serve",
            forget=lambda number: forget_process(number, self._metrics),
            without=(FOLDER_VARIABLE,),
            stderr=None if self._log is None else self._log.end,
        )
        self._wanted = [Child("writer", "mapsto.service.writer", common)]
        inherited = [listening.fileno(), self._tells]
        if self._log is not None:
            inherited.append(self._log.unmasked)
        shared = {FOLDER_VARIABLE: str(self._metrics)} if settings.workers > 1 else {}
        for number in range(settings.workers):
            own = {
                "worker": number,
                "workers": settings.workers,
                "folder": str(settings.folder),
                "limits": asdict(settings.limits),
                "ending": asdict(settings.ending),
                "access": asdict(settings.access),
                "grpc": settings.grpc,
                "tls": None if settings.tls is None else asdict(settings.tls),
                "mounted": [asdict(each) for each in settings.mounted],
                "run": None if settings.run is None else asdict(settings.run),
                "listening": listening.fileno(),
                "ready": self._tells,
            }
            if self._log is not None:
                own["log"] = self._log.unmasked  # of requests, which holds nothing that is to be masked line by line
            self._wanted.append(Child(f"worker {number + 1}", "mapsto.service.worker", common | own, inherited, shared))
        self._wanted += beside(settings, common)
        self._ended = False

    def run(self, started: Callable[[], None], *, note: Callable[[str], None]) -> None:
        """Start all, call `started` once every worker answers, and keep them running until a signal.

        Raises `MapstoError` where a process ends again and again.
        """
        handlers = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGINT)}
        handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._reload)
        try:
            for child in self._wanted:
                self._children.start(child)
            self._await_workers()
            if not self._ended:
                started()
            while not self._ended:
                self._children.look(note)
                time.sleep(0.05)
        finally:
            self._stop()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    # -- private

    def _end(self, number: int, frame: Any) -> None:
        self._ended = True

    def _reload(self, number: int, frame: Any) -> None:
        for child in self._children.all:
            if child.process is not None and child.name.startswith("worker"):
                child.process.send_signal(signal.SIGHUP)
            elif child.name == "learner":
                self._children.restart(child)

    def _await_workers(self) -> None:
        """Waits until every worker has said that it answers, and what stores feedback takes it."""
        missing, end = self._settings.workers, time.monotonic() + _START_SECONDS
        while (missing or not (self._place / "writer").exists()) and not self._ended:
            if select.select([self._ready], [], [], 0.1)[0]:
                missing -= len(os.read(self._ready, missing))
            if not self._ended:
                self._children.look(lambda text: None)
            if time.monotonic() > end:
                raise MapstoError(f"the workers did not answer within {_START_SECONDS:.0f} s", where="mapsto serve")

    def _stop(self) -> None:
        """End all: workers, writer, fitter, learner."""
        ending = self._settings.ending
        self._children.stop(("worker", "writer", *_BESIDE), seconds=ending.window + ending.most + 10)
        if self._log is not None:
            self._log.close()
        shutil.rmtree(self._place, ignore_errors=True)
        self._alone.release()
        os.close(self._ready)
        os.close(self._tells)


def shared_settings(settings: Settings) -> dict[str, Any]:
    """What every process of the service is told."""
    privacy = settings.privacy
    return {
        "state": settings.state,
        "durability": settings.durability,
        "models": [{"name": name, "folder": str(folder)} for name, folder in settings.models.items()],
        "trust": asdict(settings.trust),
        "tracing": None if settings.tracing is None else asdict(settings.tracing),
        "privacy": None if privacy is None else {"settings": privacy.plain(), "key": str(settings.privacy_key)},
    }


def beside(settings: Settings, common: Mapping[str, Any]) -> list[Child]:
    """The processes that fit versions and learn, as far as the settings want them; `common` is what all processes are given."""
    found: list[Child] = []
    if settings.adapts:
        fits = {"limits": asdict(settings.limits), "poll": 0.2}
        found.append(Child("fitter", "mapsto.service.fitter", {**common, **fits}))
    if settings.learning:
        learns = {
            "learner": settings.learner,
            "every": settings.every,
            "poll": 0.2,
            "promote": settings.promote,
            "models": [each for each in common["models"] if each["name"] in settings.learning],
        }
        found.append(Child("learner", "mapsto.service.learner", {**common, **learns}))
    return found


def only_one(folder: Path) -> FileLock:
    """The right to keep answers in a folder, held as long as this process lives.

    Raises `SpecError` where another service has it: each would overwrite the other's answers.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(folder / "service.lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise SpecError(
            "a service runs on this state already",
            where=str(folder),
            hint="end that first, give it --workers, or serve with another --state",
        ) from error
    except OSError as error:
        raise StoreError(
            f"cannot be made ({error.strerror})", where=str(folder), hint="give another --state"
        ) from error
    return lock

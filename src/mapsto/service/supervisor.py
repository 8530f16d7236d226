"""The processes of a service, kept running: workers that answer, one that writes, one that fits versions, one that learns.

A process that ends by itself is started again; one that cannot start, time after time, ends the service with what it said. SIGTERM and
SIGINT end the workers first, which answer what they have begun, then the writer, which stores what waits, then the fitter and the
learner. SIGHUP has the workers load their packages again.
"""

from __future__ import annotations

import json
import math
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock, Timeout

from mapsto.data.privacy.masking import TextMasking
from mapsto.data.privacy.settings import Privacy
from mapsto.errors import MapstoError, SpecError, StoreError
from mapsto.service.access import AccessSettings
from mapsto.service.keys import RunKey
from mapsto.service.masked_log import MaskedLog
from mapsto.service.metrics import FOLDER_VARIABLE, forget_process
from mapsto.service.server import Ending
from mapsto.service.service import Limits
from mapsto_runtime.signed_package import Trust

if TYPE_CHECKING:
    from mapsto.service.tls import TlsSettings
    from mapsto.service.tracing import TracingSettings

__all__ = ["Settings", "Supervisor"]

_SHORT = 10.0
"""Seconds of a process that did not get far."""
_MOST_SHORT = 5
"""Processes of one kind that end so soon, one after the other, before the service is given up."""
_BESIDE = ("fitter", "learner")
"""Processes without which the service answers all the same: they are started again and again."""
_LONGEST_PAUSE = 30.0
"""Seconds before what ends again and again is started again."""
_START_SECONDS = 120.0
_IN_MEMORY = Path("/dev/shm")
_PREFIX = "mapsto-"


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
    run: RunKey | None = None
    """A key that is valid as long as this service runs."""
    privacy: Privacy | None = None
    """What is masked before it is stored, and how long it is kept; None: nothing, and for ever."""
    privacy_key: Path | None = None
    """The file of the key of pseudonyms, with `privacy`."""


class _EndsAgainError(MapstoError):
    """A process without which the service cannot be ends again and again."""

    exit_code = 1


@dataclass(eq=False)
class _Child:
    """A process that is to run."""

    name: str
    module: str
    settings: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    """Infinity while it is to be started again."""
    short: int = 0
    """How often in a row it ended as soon as it was started."""
    again: float = 0.0
    """When it is started again."""


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
        self._alone = _only_one(settings.folder)
        _remove_left_behind()
        memory = str(_IN_MEMORY) if os.access(_IN_MEMORY, os.W_OK) else None  # which no full disk makes unwritable
        self._place = Path(
            tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=memory)
        )  # only this user may enter it
        self._metrics = self._place / "metrics"
        self._metrics.mkdir()
        self._ready, self._tells = os.pipe()
        common: dict[str, Any] = {
            "state": settings.state,
            "durability": settings.durability,
            "supervisor": os.getpid(),
            "socket": str(self._place / "writer"),
            "traces": str(self._place / "traces"),
            "tracing": None if settings.tracing is None else asdict(settings.tracing),
            "models": [{"name": name, "folder": str(folder)} for name, folder in settings.models.items()],
            "trust": asdict(settings.trust),
            "privacy": None
            if settings.privacy is None
            else {"settings": settings.privacy.plain(), "key": str(settings.privacy_key)},
        }
        self._log = None if masking is None else MaskedLog(masking)
        self._children = [_Child("writer", "mapsto.service.writer", common)]
        for number in range(settings.workers):
            own = {
                "worker": number,
                "folder": str(settings.folder),
                "limits": asdict(settings.limits),
                "ending": asdict(settings.ending),
                "access": asdict(settings.access),
                "grpc": settings.grpc,
                "tls": None if settings.tls is None else asdict(settings.tls),
                "run": None if settings.run is None else asdict(settings.run),
                "listening": listening.fileno(),
                "ready": self._tells,
            }
            if self._log is not None:
                own["log"] = self._log.unmasked  # of requests, which holds nothing that is to be masked line by line
            self._children.append(_Child(f"worker {number + 1}", "mapsto.service.worker", common | own))
        if settings.adapts:
            fits = {"limits": asdict(settings.limits), "poll": 0.2}
            self._children.append(_Child("fitter", "mapsto.service.fitter", common | fits))
        if settings.learning:
            learns = {
                "learner": settings.learner,
                "every": settings.every,
                "poll": 0.2,
                "promote": settings.promote,
                "models": [each for each in common["models"] if each["name"] in settings.learning],
            }
            self._children.append(_Child("learner", "mapsto.service.learner", common | learns))
        self._ended = False

    def run(self, started: Callable[[], None], *, note: Callable[[str], None]) -> None:
        """Start all, call `started` once every worker answers, and keep them running until a signal.

        Raises `MapstoError` where a process ends again and again.
        """
        handlers = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGINT)}
        handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._reload)
        try:
            for child in self._children:
                self._start(child)
            self._await_workers()
            if not self._ended:
                started()
            while not self._ended:
                self._look(note)
                time.sleep(0.05)
        finally:
            self._stop()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    # -- private

    def _end(self, number: int, frame: Any) -> None:
        self._ended = True

    def _reload(self, number: int, frame: Any) -> None:
        for child in self._children:
            if child.process is not None and child.name.startswith("worker"):
                child.process.send_signal(signal.SIGHUP)
            elif child.process is not None and child.name == "learner":
                child.process.terminate()  # it is started again with what is there now
                child.began = -math.inf  # which is no failure

    def _start(self, child: _Child) -> None:
        inherited = (self._listening.fileno(), self._tells) if child.name.startswith("worker") else ()
        if inherited and "log" in child.settings:
            inherited = (*inherited, child.settings["log"])
        environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        environment.pop(FOLDER_VARIABLE, None)
        if self._settings.workers > 1:
            environment[FOLDER_VARIABLE] = str(self._metrics)
        child.process = subprocess.Popen(
            [sys.executable, "-m", child.module],
            stdin=subprocess.PIPE,
            pass_fds=inherited,
            stderr=None if self._log is None else self._log.end,
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends them in their order
            env=environment,
        )
        child.began = time.monotonic()
        given = child.process.stdin
        if given is not None:
            try:
                given.write(json.dumps(child.settings).encode())
                given.close()
            except BrokenPipeError:  # it has ended already, which is seen below
                return

    def _await_workers(self) -> None:
        """Waits until every worker has said that it answers, and what stores feedback takes it."""
        missing, end = self._settings.workers, time.monotonic() + _START_SECONDS
        while (missing or not (self._place / "writer").exists()) and not self._ended:
            if select.select([self._ready], [], [], 0.1)[0]:
                missing -= len(os.read(self._ready, missing))
            self._look(lambda text: None)
            if time.monotonic() > end:
                raise MapstoError(f"the workers did not answer within {_START_SECONDS:.0f} s", where="mapsto serve")

    def _look(self, note: Callable[[str], None]) -> None:
        """Start again what has ended."""
        for child in self._children:
            process = child.process
            if process is None or process.poll() is None or self._ended:
                continue
            if child.began == math.inf:  # it waits for its turn
                if time.monotonic() >= child.again:
                    self._start(child)
                continue
            forget_process(process.pid, self._metrics)
            soon = time.monotonic() - child.began < _SHORT
            child.short = child.short + 1 if soon else 0
            if child.short >= _MOST_SHORT and child.name not in _BESIDE:
                raise _EndsAgainError(
                    f"the {child.name} ended {child.short} times as soon as it was started, last with {process.returncode}",
                    where="mapsto serve",
                    hint="look at what it said above",
                )
            ended = child.began > -math.inf
            how = f"ended with {process.returncode} and" if ended else "loads packages again, and therefore"
            note(f"the {child.name} {how} is started again")
            child.began, child.again = math.inf, time.monotonic() + min(0.2 * child.short**2, _LONGEST_PAUSE)

    def _stop(self) -> None:
        """End all: workers, writer, fitter, learner."""
        order = ("worker", "writer", "fitter", "learner")
        for kind in order:
            own = [
                child.process for child in self._children if child.name.startswith(kind) and child.process is not None
            ]
            for process in own:
                if process.poll() is None:
                    process.terminate()
            for process in own:
                try:
                    process.wait(self._settings.ending.window + self._settings.ending.most + 10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        if self._log is not None:
            self._log.close()
        shutil.rmtree(self._place, ignore_errors=True)
        self._alone.release()
        os.close(self._ready)
        os.close(self._tells)


def _only_one(folder: Path) -> FileLock:
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


def _remove_left_behind() -> None:
    """Remove the folders of services of this user that were killed."""
    for parent in (_IN_MEMORY, Path(tempfile.gettempdir())):
        for folder in parent.glob(f"{_PREFIX}*-*"):
            pid = folder.name[len(_PREFIX) :].partition("-")[0]
            with suppress(OSError):
                if pid.isdigit() and folder.stat().st_uid == os.getuid() and not psutil.pid_exists(int(pid)):
                    shutil.rmtree(folder, ignore_errors=True)

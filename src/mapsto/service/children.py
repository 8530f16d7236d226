"""Processes that are kept running: each is given its settings as JSON, and is started again where it ends by itself."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mapsto.errors import MapstoError

__all__ = ["Child", "Children", "EndsAgainError", "private_folder"]

_SHORT = 10.0
"""Seconds of a process that did not get far."""
_MOST_SHORT = 5
"""Processes of one kind that end so soon, one after the other, before all is given up."""
_LONGEST_PAUSE = 30.0
"""Seconds before what ends again and again is started again."""
_IN_MEMORY = Path("/dev/shm")
_PREFIX = "mapsto-"


class EndsAgainError(MapstoError):
    """A process without which the service cannot be ends again and again."""

    exit_code = 1


@dataclass(eq=False)
class Child:
    """A process that is to run."""

    name: str
    module: str
    settings: dict[str, Any]
    """Of its own, as JSON."""
    inherited: Sequence[int] = ()
    """File descriptors that it is given."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """Beside that of this process."""
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    """Infinity while it is to be started again."""
    short: int = 0
    """How often in a row it ended as soon as it was started."""
    again: float = 0.0
    """When it is started again."""


class Children:
    """Processes in the order in which they are started.

    Parameters
    ----------
    beside
        Names of those without which the service answers all the same: they are started again and again.
    where
        The command that is named where one cannot run.
    forget
        Told of the number of each process that has ended by itself.
    without
        Variables of this process' environment that they are not given.
    stderr
        Where they write what is wrong, a file descriptor; None: where this process does.
    """

    def __init__(
        self,
        *,
        beside: Collection[str] = (),
        where: str,
        forget: Callable[[int], None] = lambda number: None,
        without: Collection[str] = (),
        stderr: int | None = None,
    ) -> None:
        self._stderr = stderr
        self._beside, self._where, self._forget, self._without = beside, where, forget, without
        self.all: list[Child] = []

    def start(self, child: Child) -> None:
        """Start a process, and keep it running from now on."""
        if child not in self.all:
            self.all.append(child)
        environment = {name: value for name, value in os.environ.items() if name not in self._without}
        environment.setdefault("OMP_NUM_THREADS", "1")
        child.process = subprocess.Popen(
            [sys.executable, "-m", child.module],
            stdin=subprocess.PIPE,
            pass_fds=child.inherited,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends them in their order
            env=environment | dict(child.environment),
        )
        child.began = time.monotonic()
        given = child.process.stdin
        if given is not None:
            try:
                given.write(json.dumps(child.settings).encode())
                given.close()
            except BrokenPipeError:  # it has ended already, which is seen below
                return

    def look(self, note: Callable[[str], None]) -> None:
        """Start again what has ended. Raises `EndsAgainError` where one cannot be kept running."""
        for child in self.all:
            process = child.process
            if process is None or process.poll() is None:
                continue
            if child.began == math.inf:  # it waits for its turn
                if time.monotonic() >= child.again:
                    self.start(child)
                continue
            self._forget(process.pid)
            soon = time.monotonic() - child.began < _SHORT
            child.short = child.short + 1 if soon else 0
            if child.short >= _MOST_SHORT and child.name not in self._beside:
                raise EndsAgainError(
                    f"the {child.name} ended {child.short} times as soon as it was started, last with {process.returncode}",
                    where=self._where,
                    hint="look at what it said above",
                )
            ended = child.began > -math.inf
            how = f"ended with {process.returncode} and" if ended else "loads packages again, and therefore"
            note(f"the {child.name} {how} is started again")
            child.began, child.again = math.inf, time.monotonic() + min(0.2 * child.short**2, _LONGEST_PAUSE)

    def restart(self, child: Child) -> None:
        """Have a process end, and be started again with what is there then."""
        if child.process is not None:
            child.process.terminate()
            child.began = -math.inf  # which is no failure

    def stop(self, kinds: Sequence[str], *, seconds: float) -> None:
        """End all whose names begin so, kind after kind, each within so many seconds."""
        for kind in kinds:
            own = [each.process for each in self.all if each.name.startswith(kind) and each.process is not None]
            for process in own:
                if process.poll() is None:
                    process.terminate()
            for process in own:
                try:
                    process.wait(seconds)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def private_folder() -> Path:
    """A folder of this process, in memory where there is some, which only this user may enter; those of processes that were killed go."""
    _remove_left_behind()
    memory = str(_IN_MEMORY) if os.access(_IN_MEMORY, os.W_OK) else None  # which no full disk makes unwritable
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=memory))


def _remove_left_behind() -> None:
    """Remove the folders of services of this user that were killed."""
    for parent in (_IN_MEMORY, Path(tempfile.gettempdir())):
        for folder in parent.glob(f"{_PREFIX}*-*"):
            pid = folder.name[len(_PREFIX) :].partition("-")[0]
            with suppress(OSError):
                if pid.isdigit() and folder.stat().st_uid == os.getuid() and not psutil.pid_exists(int(pid)):
                    shutil.rmtree(folder, ignore_errors=True)

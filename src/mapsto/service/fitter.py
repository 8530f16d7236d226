"""The process that takes up jobs of adapting, one after the other.

`python -m mapsto.service.fitter` is it, with the settings as JSON on standard input. Each job is fitted in a process of its own at the
lowest priority (`fitting`), so that one that takes too long, or too much memory, is ended and fails, and no other is concerned.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from mapsto.errors import StoreError
from mapsto.service.fitting import LENGTH, Fitted, Support
from mapsto.service.job_queue import Job, JobQueue
from mapsto.service.state import BASE, State, VersionRow, new_holder

__all__ = ["Fitter", "main"]

_LEASE_SECONDS = 10.0
"""After which a job whose process was killed is taken up again."""
_LOOK = 0.1
"""Seconds between two looks at a fit that runs."""


class Fitter:
    """Takes up the jobs of a state.

    Parameters
    ----------
    seconds
        Of a job, at most.
    most
        Private versions that a tenant may have of a model.
    ended
        Whether to stop; the job at hand waits again then.
    """

    def __init__(
        self, state: State, *, seconds: float = 600.0, most: int = 100, ended: Callable[[], bool] = lambda: False
    ) -> None:
        self._queue, self._seconds, self._most, self._ended = JobQueue(state), seconds, most, ended
        self._holder = new_holder()

    def step(self) -> bool:
        """Take up the next job and see it through; False where none waits."""
        job = self._queue.claim(self._holder, _LEASE_SECONDS)
        if job is None:
            return False
        found = self._fitted(job)
        if found is None:
            self._queue.give_back(job, self._holder)
        elif found.error:
            self._queue.fail(job, self._holder, found.error)
        else:
            self._queue.finish(job, self._holder, _version(job, found), most=self._most, note=found.note)
        return True

    def _fitted(self, job: Job) -> Fitted | None:
        """What came of a job; None where it is given up, for this process ends or the job is another's."""
        process = subprocess.Popen(
            [sys.executable, "-m", "mapsto.service.fitting"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            return self._awaited(job, process)
        finally:
            process.kill()
            process.communicate()

    def _awaited(self, job: Job, process: subprocess.Popen[bytes]) -> Fitted | None:
        given, answer = process.stdin, process.stdout
        if given is None or answer is None:
            return None
        content = msgspec.msgpack.encode((job.way, job.content))
        waiting = memoryview(len(content).to_bytes(LENGTH, "little") + content)
        os.set_blocking(given.fileno(), False)
        parts: list[bytes] = []
        end, renewed = time.monotonic() + self._seconds, time.monotonic()
        while not self._ended():
            now = time.monotonic()
            if now > end:
                return Fitted(error=f"it took more than {self._seconds:g} s; give fewer examples or classes")
            if now - renewed > _LEASE_SECONDS / 4:
                if not self._queue.renew(job, self._holder, _LEASE_SECONDS):
                    return None
                renewed = now
            readable, writable, _ = select.select([answer], [given] if waiting else [], [], _LOOK)
            if writable:
                try:
                    waiting = waiting[os.write(given.fileno(), waiting) :]
                except BrokenPipeError:  # it has ended, which is seen below
                    waiting = memoryview(b"")
            if readable:
                part = os.read(answer.fileno(), 1 << 20)
                if not part:
                    return _said(b"".join(parts), process.wait())
                parts.append(part)
        return None


def _said(content: bytes, code: int) -> Fitted:
    """What a process that has ended said."""
    try:
        return msgspec.msgpack.decode(content, type=Fitted)
    except msgspec.DecodeError:
        how = f"was ended by signal {-code}; perhaps memory ran out" if code < 0 else f"ended with {code}"
        return Fitted(error=f"the process that fitted it {how}; give fewer examples or classes")


def _version(job: Job, found: Fitted) -> VersionRow:
    support = msgspec.msgpack.decode(job.content, type=Support)
    return VersionRow(
        model=job.model,
        version=f"a-{secrets.token_hex(6)}",
        kind="adapted",
        parent=BASE,
        package=job.package,
        content=found.head,
        owner=None if job.shared else job.tenant,
        note=f"{len(support.numbers)} examples of {len(support.classes)} classes; {found.note}",
    )


def main() -> None:
    """Fit until SIGTERM or SIGINT, or until the process that started this one has ended."""
    settings: dict[str, Any] = json.load(sys.stdin)
    signals: list[int] = []

    def end(number: int, frame: Any) -> None:
        signals.append(number)

    def ended() -> bool:
        return bool(signals) or os.getppid() != settings["supervisor"]

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    state = State(settings["state"], durability=settings["durability"])
    limits = settings["limits"]
    fitter = Fitter(state, seconds=limits["job_seconds"], most=limits["versions"], ended=ended)
    while not ended():
        try:
            busy = fitter.step()
        except StoreError as error:
            sys.stderr.write(f"mapsto: {error}\n")
            busy = False
            time.sleep(1.0)
        if not busy:
            time.sleep(settings["poll"])
    state.close()


if __name__ == "__main__":
    main()

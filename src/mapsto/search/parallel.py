"""Several workers of one search: processes of this machine, or tasks of Ray on many; all they share is the trials and the store."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from mapsto.errors import MissingExtra, SpecError, StepError
from mapsto.search.trials import Trial, Trials
from mapsto.search.worker import Job, work

__all__ = ["run_processes", "run_ray"]

_POLL = 0.5
_LAST = 1 << 16
"""Bytes of a worker's last words."""


def run_processes(job: Job, workers: int, trials: Trials, on_end: Callable[[Trial], None]) -> None:
    """Let so many processes work until there is nothing left to do. Raises `SpecError` or `StepError` where one fails."""
    running = [_Worker(dataclasses.replace(job, number=number)) for number in range(workers)]
    told = {trial.number for trial in trials.all() if _is_over(trial)}
    try:
        while True:
            over = all(process.poll() is not None for process in running)
            told |= _tell(trials, told, on_end)
            if over:
                break
            time.sleep(_POLL)
    except BaseException:
        for process in running:
            process.terminate()
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
        raise
    for process in running:
        _raise_failed(process.returncode, process.said())


def run_ray(job: Job, workers: int, trials: Trials, on_end: Callable[[Trial], None]) -> None:
    """Let so many tasks of Ray work, on its machines. The storage and the store must be places that all of them see.

    Raises `MissingExtra` without Ray, and what a worker raises.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtra("ray", "scale", where="--ray") from error
    cluster: Any = ray
    if not cluster.is_initialized():
        cluster.init(log_to_driver=False, include_dashboard=False)
    remote: Any = cluster.remote(num_cpus=1)(_work)
    tasks = [remote.remote(dataclasses.asdict(job) | {"number": number}) for number in range(workers)]
    told = {trial.number for trial in trials.all() if _is_over(trial)}
    left = tasks
    while left:
        _, left = cluster.wait(left, num_returns=len(left), timeout=_POLL)
        told |= _tell(trials, told, on_end)
    for failed in filter(None, cluster.get(tasks)):
        _raise_failed(int(failed["code"]), str(failed["text"]))


def _work(plain: Mapping[str, Any]) -> dict[str, Any] | None:
    """A worker on a machine of Ray's; gives how it failed, where it did."""
    from mapsto.errors import MapstoError

    try:
        work(Job(**plain))
    except MapstoError as error:
        return {"code": error.exit_code, "text": str(error)}
    return None


class _Worker(subprocess.Popen[bytes]):
    """A process that works on a job. What it says goes into a file: a pipe that nobody reads would stop it once it is full."""

    def __init__(self, job: Job) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (`said` reads it after the process)
        program = "from mapsto.search.worker import main; main()"
        super().__init__(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._said
        )
        if self.stdin is not None:
            with suppress(BrokenPipeError):  # it has failed already, and says why
                self.stdin.write(json.dumps(dataclasses.asdict(job)).encode())
                self.stdin.close()

    def said(self) -> str:
        """Once it has ended, the last of what it wrote on standard error."""
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - _LAST))
        text = self._said.read().decode(errors="replace")
        self._said.close()
        return text


def _is_over(trial: Trial) -> bool:
    return trial.state in ("complete", "failed", "stopped", "lost")


def _tell(trials: Trials, told: set[int], on_end: Callable[[Trial], None]) -> set[int]:
    new = [trial for trial in trials.all() if _is_over(trial) and trial.number not in told]
    for trial in new:
        on_end(trial)
    return {trial.number for trial in new}


def _raise_failed(code: int, text: str) -> None:
    if code == 0:
        return
    said = text.strip().splitlines()
    what = said[-1] if said else f"it ended with code {code}"
    if code == 2:
        raise SpecError(what)
    raise StepError(f"a worker of the search failed: {what}", hint="run the same command again, it goes on")

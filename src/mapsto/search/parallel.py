"""Several workers of one search: processes of this machine, or tasks of Ray on many; all they share is the trials and the store."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from mapsto.errors import MissingExtra, SpecError, StepError
from mapsto.search.trials import Trial, Trials
from mapsto.search.worker import Job, work

__all__ = ["run_processes", "run_ray"]

_POLL = 0.5


def run_processes(job: Job, workers: int, trials: Trials, on_end: Callable[[Trial], None]) -> None:
    """Let so many processes work until there is nothing left to do. Raises `SpecError` or `StepError` where one fails."""
    running = [_started(dataclasses.replace(job, number=number)) for number in range(workers)]
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
        _raise_failed(process.returncode, process.stderr.read().decode() if process.stderr is not None else "")


def run_ray(job: Job, workers: int, trials: Trials, on_end: Callable[[Trial], None]) -> None:
    """Let so many tasks of Ray work, on its machines. The storage and the store must be places that all of them see.

    Raises `MissingExtra` without Ray, and what a worker raises.
    """
    try:
        import ray
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


def _started(job: Job) -> subprocess.Popen[bytes]:
    program = "from mapsto.search.worker import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if process.stdin is not None:
        process.stdin.write(json.dumps(dataclasses.asdict(job)).encode())
        process.stdin.close()
    return process


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

"""Speed and memory of a package, measured in a process of its own that does nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["speed_of"]

_PATIENCE = 300.0
"""Seconds until a measurement is given up."""


def speed_of(folder: Path, *, seconds: float = 0.6) -> dict[str, Any]:
    """The figures of `mapsto_runtime.measurement.measured` with one thread and with one for each core, and ``process_s``, the time from
    a process's start to its end in which it opens the package and answers once.

    Where they cannot be measured there is ``absent`` alone, the reason.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = "1" if cores == 1 else f"1,{cores}"
    found = _run(folder, threads, str(seconds))
    if "absent" in found:
        return found
    start = time.perf_counter()
    cold = _run(folder, "1", "0")
    took = time.perf_counter() - start
    if "absent" not in cold:
        found["process_s"] = took
    return found


def _run(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "mapsto_runtime.measurement", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return {"absent": f"it took longer than {_PATIENCE:.0f} s"}
    except OSError as error:
        return {"absent": f"no process could be started ({error.strerror})"}
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        return {"absent": said[-1] if said else f"its process ended with {done.returncode}"}
    return json.loads(done.stdout)

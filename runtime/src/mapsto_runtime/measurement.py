"""What a package costs where it runs: seconds to open it, milliseconds an answer, answers a second, peak memory.

``python -m mapsto_runtime.measurement PACKAGE`` prints the figures as JSON, on a device too. The process has nothing else to do, so that
its memory and the time of its first answer are those of the package and its runtime.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto_runtime import runtimes
from mapsto_runtime.errors import MapstoError
from mapsto_runtime.manifest import Manifest
from mapsto_runtime.signed_package import Trust, verified

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto_runtime.runtimes import Run

__all__ = ["main", "measured", "samples_of"]

_MODULES = {"litert": "ai_edge_litert.interpreter", "executorch": "executorch.extension.pybindings.portable_lib"}
"""What a runtime's module is called, where not as the runtime."""
_FEWEST, _FEWEST_BATCHES, _MOST = 10, 3, 2000


def measured(folder: Path, *, threads: Sequence[int] = (1,), seconds: float = 1.0, batch: int = 16) -> dict[str, Any]:
    """The figures of a package, in this process, which should have done nothing before.

    Parameters
    ----------
    threads
        Numbers of threads of the runtime that are measured, in turn.
    seconds
        About how long answers of one sample are timed for each, and batches half as long; at least 10 calls of one, and 3 batches.
        With 0 only the cold start and memory are measured.
    batch
        Samples of a batch.

    Returns
    -------
    dict
        ``open_s`` and ``first_ms`` (the cold start, without Python's), ``memory_before`` and ``memory_peak`` in bytes, None where this
        system does not tell; and for each number of threads ``p50_ms``, ``p95_ms``, ``p99_ms``, ``mean_ms``, ``std_ms``, ``calls``,
        ``batch`` and ``samples_per_s``.
    """
    package = verified(folder, Trust.of())
    checked = package.manifest()
    importlib.import_module(_MODULES.get(checked.runtime, checked.runtime))
    one = samples_of(checked, 1)
    gc.collect()
    before = _peak_memory()
    start = time.perf_counter()
    run = _opened(checked, threads[0])
    opened = time.perf_counter()
    run(one)
    first = time.perf_counter()
    found: dict[str, Any] = {
        "runtime": checked.runtime,
        "open_s": opened - start,
        "first_ms": 1e3 * (first - opened),
        "memory_before": before,
        "memory_peak": _peak_memory(),
        "by_threads": [],
    }
    many = samples_of(checked, batch)
    for number, count in enumerate(threads if seconds > 0 else ()):
        run = run if number == 0 else _opened(checked, count)
        found["by_threads"].append({"threads": count, **_timed(run, one, many, seconds)})
    return found


def samples_of(checked: Manifest, count: int) -> NDArray[Any]:
    """So many made-up samples as the model takes them: standard normal, whole numbers all 0."""
    import numpy as np

    spec = checked.signature.inputs[0]
    shape = (count, *(1 if isinstance(size, str) else size for size in spec.shape[1:]))
    if "int" in spec.dtype:
        return np.zeros(shape, spec.dtype)
    return np.random.default_rng(0).standard_normal(shape).astype(spec.dtype)


def _opened(checked: Manifest, threads: int) -> Run:
    return runtimes.find(checked.runtime).load(checked.files, threads=threads, signature=checked.signature)


def _timed(run: Run, one: NDArray[Any], many: NDArray[Any], seconds: float) -> dict[str, Any]:
    import numpy as np

    times = 1e3 * _times(run, one, seconds, warm=3, fewest=_FEWEST)
    batches = _times(run, many, seconds / 2, warm=1, fewest=_FEWEST_BATCHES)
    p50, p95, p99 = np.percentile(times, [50, 95, 99]).tolist()
    return {
        "calls": len(times),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "mean_ms": float(times.mean()),
        "std_ms": float(times.std(ddof=1)),
        "batch": len(many),
        "samples_per_s": len(many) / float(np.median(batches)),
    }


def _times(run: Run, inputs: NDArray[Any], seconds: float, *, warm: int, fewest: int) -> NDArray[np.float64]:
    """Seconds of single calls, after `warm` that are not counted."""
    import numpy as np

    for _ in range(warm):
        run(inputs)
    found: list[float] = []
    end = time.perf_counter() + seconds
    gc.collect()
    gc.disable()
    try:
        while len(found) < fewest or (time.perf_counter() < end and len(found) < _MOST):
            start = time.perf_counter()
            run(inputs)
            found.append(time.perf_counter() - start)
    finally:
        gc.enable()
    return np.array(found)


def _peak_memory() -> int | None:
    """The most memory that this process held, in bytes. Linux's own figure: `getrusage` there counts what the parent held too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(
            (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:")), None
        )
        return int(line.split()[1]) * 1024 if line is not None else None
    try:
        resource: Any = importlib.import_module("resource")
    except ModuleNotFoundError:
        return None
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures of a package as JSON; an error goes to standard error, with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        sys.stderr.write("usage: python -m mapsto_runtime.measurement PACKAGE [THREADS,THREADS [SECONDS]]\n")
        return 2
    threads = [int(part) for part in given[1].split(",")] if len(given) > 1 else [1]
    seconds = float(given[2]) if len(given) > 2 else 1.0
    try:
        found = measured(Path(given[0]), threads=threads, seconds=seconds)
    except MapstoError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

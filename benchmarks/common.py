"""What every benchmark shares: the schema of a result file, spreads, and goals."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mapsto.report import environment

RESULTS = Path(__file__).parent / "results"


def target(what: str, goal: str, measured: float | None) -> dict[str, Any]:
    """One goal such as ``>= 2``; a figure that was not measured is neither met nor missed."""
    symbol, _, bound = goal.partition(" ")
    kept = None if measured is None else {">=": measured >= float(bound), "<=": measured <= float(bound)}[symbol]
    return {"what": what, "goal": goal, "measured": measured, "met": kept}


def result(
    name: str, *, conditions: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A result in the one schema."""
    import torch

    return {
        "schema": 1,
        "name": name,
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "environment": environment(torch.get_num_threads()),
        "conditions": dict(conditions),
        "rows": [dict(row) for row in rows],
        "targets": [dict(entry) for entry in targets],
    }


def save(tree: Mapping[str, Any]) -> Path:
    """Write a result file, whole."""
    path = RESULTS / f"{tree['name']}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    print(f"wrote {path}")
    return path


def side_by_side(callables: Mapping[str, Callable[[], Any]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each callable, round by round in turn, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in callables}
    for call in callables.values():
        call()
    for _ in range(rounds):
        for name, call in callables.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    return times


def ratio(times: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """How many times as long as the base: median over rounds, with the smallest and the largest."""
    ratios = [a / b for a, b in zip(times, base, strict=True)]
    return {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table."""
    from rich.console import Console
    from rich.table import Table

    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*columns)
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in (row.get(c, "") for c in columns)))
    Console(width=160).print(table)

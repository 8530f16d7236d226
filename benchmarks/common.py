"""What every benchmark shares: the schema of a result file, spreads, and goals."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mapsto.recipe.goals import goal_of
from mapsto.report.build import environment

RESULTS = Path(__file__).parent / "results"


def target(what: str, goal: str, measured: float | None) -> dict[str, Any]:
    """One goal such as ``>= 2``; a figure that was not measured is neither met nor missed."""
    meets, bound = goal_of(goal)
    return {
        "what": what,
        "goal": goal,
        "measured": measured,
        "met": None if measured is None else meets(measured, bound),
    }


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


def finished(tree: dict[str, Any], *, quick: bool) -> dict[str, Any]:
    """The result, printed, and kept unless its settings were quick."""
    show(tree["rows"])
    if tree["targets"]:
        show(tree["targets"])
    if not quick:
        save(tree)
    return tree


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


WIDTH = 140
"""Characters of a printed table."""


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table of the columns that tell them apart; the result file holds the others too."""
    from rich.console import Console
    from rich.table import Table

    columns, alike, left_out = columns_of(rows)
    table = Table(*columns)
    for row in rows:
        table.add_row(*(text_of(row.get(column)) for column in columns))
    console = Console(width=max(WIDTH, 40), highlight=False)
    console.print(table)
    if alike:
        console.print("alike in all rows: " + ", ".join(f"{name} {text_of(value)}" for name, value in alike.items()))
    if left_out:
        console.print("only in the result file: " + ", ".join(left_out))


def columns_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, Any], list[str]]:
    """The columns to print, those that say the same in every row, and those that are left out.

    Left out is what follows from the first column, long lists, then, until the rest fits, bounds of spreads and the emptiest columns.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = {name: [text_of(row.get(name)) for row in rows] for name in names}
    alike = {name: rows[0][name] for name in names if len(rows) > 1 and len(set(texts[name])) == 1 and texts[name][0]}
    kept = [name for name in names if name not in alike and any(texts[name])]
    first = texts[kept[0]] if kept else []
    groups = len(set(first))
    implied = [
        name for name in kept[1:] if groups < len(rows) and len(set(zip(first, texts[name], strict=True))) == groups
    ]
    kept = [name for name in kept if name not in implied]
    width = {name: 3 + max(len(name), *map(len, texts[name])) for name in kept}
    left_out = [name for name in kept[1:] if width[name] > WIDTH // 3]
    kept = [name for name in kept if name not in left_out]
    while len(kept) > 2 and sum(width[name] for name in kept) + 1 > WIDTH:
        last = list(reversed(kept[1:]))
        bounds = [name for name in last if name.endswith(("low", "high"))]
        gone = bounds[0] if bounds else min(last, key=lambda name: sum(map(bool, texts[name])))
        kept.remove(gone)
        left_out.append(gone)
    return kept, alike, implied + left_out


def text_of(value: Any) -> str:
    """A value as a table shows it; nothing for None."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

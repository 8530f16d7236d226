"""A figure's 95 % interval, as it is shown wherever there is one: in the terminal, tables, charts and comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["interval_ends", "interval_text"]


def interval_ends(cell: Mapping[str, Any], unit: str = "") -> tuple[float, float] | None:
    """Both ends of a metric's 95 % interval: its own, else the value ± its half-width, for a share in % no further than 0 and 100.

    `cell` holds ``value``, ``ci95`` and perhaps ``low`` and ``high``, as a `Metric` and a report's tables do; None without an interval.

    >>> interval_ends({"value": 99.5, "ci95": 1.25}, "%"), interval_ends({"value": 99.5, "ci95": 1.25}), interval_ends({"value": 1.0})
    ((98.25, 100.0), (98.25, 100.75), None)
    """
    value, half, low, high = (_finite(cell.get(name)) for name in ("value", "ci95", "low", "high"))
    if low is not None and high is not None:
        return low, high
    if value is None or half is None:
        return None
    low, high = value - half, value + half
    return (max(low, 0.0), min(high, 100.0)) if unit == "%" and 0 <= value <= 100 else (low, high)


def interval_text(cell: Mapping[str, Any], unit: str = "") -> str:
    """An interval as people read it, wherever a figure is shown: a half-width where it lies evenly around the value, else both ends.

    >>> interval_text({"value": 100.0, "ci95": 1.84, "low": 96.3, "high": 100.0}), interval_text({"value": 50.0, "ci95": 1.84}, "%")
    ('(96.3 to 100)', '± 1.8')
    >>> interval_text({"value": 99.5, "ci95": 1.25}, "%"), interval_text({"value": 1.0, "ci95": None})
    ('(98.2 to 100)', '')
    """
    ends, half = interval_ends(cell, unit), _finite(cell.get("ci95"))
    if ends is None:
        return ""
    even = half is not None and cell.get("low") is None and math.isclose(ends[1] - ends[0], 2 * half)
    return f"± {half:.2g}" if even else f"({ends[0]:.3g} to {ends[1]:.3g})"


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

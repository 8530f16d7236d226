"""A report as a value: typed metrics, tables and series, each with its unit and its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mapsto.intervals import interval_text

__all__ = ["Metric", "Report", "Series", "Table"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number with its unit and, where it was sampled, its 95 % confidence interval."""

    value: float
    unit: str = ""
    ci95: float | None = None
    """Half-width of the interval, in `unit`."""
    n: int | None = None
    """How many samples (episodes, rounds, images) it is the mean of."""
    measured: bool = False
    """Times, memory, rates: values that differ from run to run and stay outside a report's digest."""
    low: float | None = None
    """Lower end of the interval, in `unit`, where it does not lie evenly around the value, as of a share near 0 or 100 %."""
    high: float | None = None
    """Its upper end."""

    def __str__(self) -> str:
        text = f"{self.value:.4g}" if abs(self.value) < 1e4 or not math.isfinite(self.value) else f"{self.value:,.0f}"
        unit, interval = f" {self.unit}" if self.unit else "", interval_text(vars(self), self.unit)
        return f"{text}{unit} {interval}" if interval.startswith("(") else f"{text} {interval}".rstrip() + unit


@dataclass(frozen=True, kw_only=True)
class Table:
    """Named columns and rows of plain values."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    units: Mapping[str, str] = field(default_factory=dict[str, str])
    measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Series:
    """One or more curves over a common x."""

    x: tuple[float, ...]
    ys: Mapping[str, tuple[float, ...]]
    x_name: str = "step"
    y_name: str = ""
    measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured: typed metrics, tables, series and pictures (PNG)."""

    metrics: Mapping[str, Metric] = field(default_factory=dict[str, Metric])
    tables: Mapping[str, Table] = field(default_factory=dict[str, Table])
    series: Mapping[str, Series] = field(default_factory=dict[str, Series])
    pictures: Mapping[str, bytes] = field(default_factory=dict[str, bytes])

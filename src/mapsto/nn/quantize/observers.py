"""Which range of values a quantizer covers: histograms of what passes a place, and where they are clipped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from mapsto.errors import DataError
from mapsto.nn.network.call_sites import INPUT, Site, SiteMode, results
from mapsto.nn.quantize.entropy import entropy_range

__all__ = ["Observer", "Range", "clipped", "observe"]


Observer: TypeAlias = Literal["minmax", "percentile", "mse", "entropy"]
_BINS = 2048


@dataclass
class Range:
    """The extremes of the values seen at a place, and their histogram once the extremes are known."""

    low: float = 0.0
    high: float = 0.0
    counts: Tensor | None = None

    def widen(self, values: Tensor) -> None:
        """Take in the extremes of `values`; 0 is always within. Raises `ValueError` where one is NaN or infinite."""
        low, high = (float(extreme) for extreme in torch.aminmax(values))
        if not math.isfinite(high - low):
            raise ValueError(f"the values reach from {low} to {high}")
        self.low, self.high = min(self.low, low), max(self.high, high)

    def count(self, values: Tensor) -> None:
        """Add `values` to the histogram between the extremes."""
        if self.high > self.low:
            counts = torch.histc(values.float(), _BINS, self.low, self.high).double()
            self.counts = counts if self.counts is None else self.counts + counts


class _Watch(SiteMode):
    def __init__(self, root: nn.Module, ranges: dict[Site, Range], counting: bool) -> None:
        super().__init__(root)
        self.ranges, self.counting = ranges, counting

    def see(self, site: Site, values: Tensor) -> None:
        if site in self.ranges:
            try:
                (self.ranges[site].count if self.counting else self.ranges[site].widen)(values)
            except ValueError as error:
                hint = "check the calibration data and the weights"
                raise DataError(f"not all finite: {error}", where=str(site), hint=hint) from error

    def visit(self, site: Site, function: object, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        result = super().visit(site, function, args, kwargs)  # type: ignore[arg-type]
        for place, values in results(site, result):
            self.see(place, values)
        return result


def observe(
    module: nn.Module, batches: Sequence[Tensor], sites: Iterable[Site], *, histogram: bool
) -> dict[Site, Range]:
    """The ranges of the values at `sites` over batches of shape (N, ...), which are gone through once or, for histograms, twice.

    Raises `DataError` where a value is not finite.
    """
    ranges = {site: Range() for site in sites}
    with torch.no_grad():
        for counting in (False, True) if histogram else (False,):
            for batch in batches:
                watch = _Watch(module, ranges, counting)
                watch.see(INPUT, batch)
                with watch:
                    module(batch)
    return ranges


def clipped(seen: Range, observer: Observer, percentile: float, bits: int) -> tuple[float, float]:
    """The ends of the range that a quantizer covers: what `observer` makes of the values seen."""
    if observer == "minmax" or seen.counts is None:
        return seen.low, seen.high
    if observer == "entropy":
        return entropy_range(seen.counts.numpy(), seen.low, seen.high, bits)
    edges = torch.linspace(seen.low, seen.high, _BINS + 1, dtype=torch.float64)
    centres = (edges[1:] + edges[:-1]) / 2
    if observer == "percentile":
        share = seen.counts.cumsum(0) / seen.counts.sum()
        tail = (1 - percentile / 100) / 2
        low = edges[int((share <= tail).sum())] if seen.low < 0 else edges[0]
        high = edges[1 + int((share < 1 - (tail if seen.low < 0 else 2 * tail)).sum().clamp(max=_BINS - 1))]
        return min(float(low), 0.0), max(float(high), 0.0)
    ends = [(seen.low * part, seen.high * part) for part in torch.linspace(0.3, 1.0, 71).tolist()]
    return min(ends, key=lambda end: _squared_error(centres, seen.counts, end, bits))  # type: ignore[arg-type]


def _squared_error(values: Tensor, counts: Tensor, end: tuple[float, float], bits: int) -> float:
    low, high = end
    step = (high - low) / (2**bits - 1)
    inside = values.clamp(low, high)
    rounded = ((inside - low) / step).round() * step + low
    return float((counts * (rounded - values) ** 2).sum())

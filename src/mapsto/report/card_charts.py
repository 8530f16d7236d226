"""Charts of an evaluation card: how far probabilities can be trusted, answers against values, and how errors are spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mapsto.report import charts

__all__ = ["against", "histogram", "reliability"]

_SIZE = 360.0
"""Height of a chart whose axes have one scale."""


def reliability(bins: Sequence[Sequence[float]]) -> str:
    """How often answers of each confidence are right, as bars; the line is where they should end, the shade how many there are.

    `bins` holds from, to (0 to 1), samples, mean confidence and accuracy (%) of each.

    >>> svg = reliability([(0.8, 0.9, 30, 85.0, 70.0), (0.9, 1.0, 60, 97.0, 90.0)])
    >>> svg.count('class="bin'), svg.count('class="ideal')
    (2, 1)
    """
    x = charts._Axis(0.0, 100.0, charts.LEFT, charts.WIDTH - charts.LEFT - charts.RIGHT)
    y = charts._Axis(0.0, 100.0, _SIZE - charts.BOTTOM, -(_SIZE - charts.BOTTOM - charts.TOP))
    parts = charts._frame(x, y, "confidence, %", "right, %")
    most = max((row[2] for row in bins), default=1)
    for low, high, count, confidence, accuracy in bins:
        left, right, top = x.at(100 * low) + 1, x.at(100 * high) - 1, y.at(accuracy)
        shade = 0.25 + 0.65 * math.sqrt(count / most)
        said = f"{100 * low:.0f} to {100 * high:.0f} % sure: {accuracy:.1f} % of {count:,.0f} right, {confidence:.1f} % sure on average"
        parts.append(
            f'<g><title>{said}</title><rect class="bin s1" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
            f'height="{max(y.start - top, 1.5):.1f}" fill-opacity="{shade:.2f}"/>'
            f'<path class="gap" d="M{x.at(confidence):.1f} {top:.1f}V{y.at(confidence):.1f}"/></g>'
        )
    parts.append(f'<path class="ideal" d="M{x.at(0):.1f} {y.at(0):.1f}L{x.at(100):.1f} {y.at(100):.1f}"/>')
    return charts._svg(charts.WIDTH, _SIZE, "accuracy against confidence", parts)


def against(values: Sequence[float], answers: Sequence[float], *, name: str) -> str:
    """Answers against values, with the line on which they are the same.

    >>> against([1.0, 2.0], [1.1, 1.9], name="price").count("<circle")
    2
    """
    pairs = [(a, b) for a, b in zip(values, answers, strict=True) if charts._drawable(a) and charts._drawable(b)]
    if not pairs:
        return charts._empty("answer")
    every = [each for pair in pairs for each in pair]
    x = charts._axis(every, charts.LEFT, charts.WIDTH - charts.LEFT - charts.RIGHT, pad=0.04)
    y = charts._axis(every, _SIZE - charts.BOTTOM, -(_SIZE - charts.BOTTOM - charts.TOP), pad=0.04)
    parts = charts._frame(x, y, f"{name}", "answer")
    low, high = x.low, x.high
    parts.append(f'<path class="ideal" d="M{x.at(low):.1f} {y.at(low):.1f}L{x.at(high):.1f} {y.at(high):.1f}"/>')
    for a, b in pairs:
        title = f"<title>{a:.5g}: {b:.5g}</title>"
        parts.append(f'<circle class="dot s1" cx="{x.at(a):.1f}" cy="{y.at(b):.1f}" r="3">{title}</circle>')
    return charts._svg(charts.WIDTH, _SIZE, f"answers against {escape(name)}", parts)


def histogram(spread: Mapping[str, Any], *, x_name: str) -> str:
    """How often each size of error occurs; `spread` holds ``edges`` (bins + 1) and ``counts``.

    >>> histogram({"edges": [-1, 0, 1], "counts": [3, 5]}, x_name="answer − value").count('class="bin')
    2
    """
    edges: Sequence[float] = spread["edges"]
    counts: Sequence[int] = spread["counts"]
    if not all(map(charts._drawable, edges)) or not any(counts):
        return charts._empty("samples")
    x = charts._axis(edges, charts.LEFT, charts.WIDTH - charts.LEFT - charts.RIGHT, pad=0.02)
    y = charts._Axis(0.0, 1.08 * max(counts), _SIZE - charts.BOTTOM, -(_SIZE - charts.BOTTOM - charts.TOP))
    parts = charts._frame(x, y, x_name, "samples")
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        top = y.at(count)
        parts.append(
            f'<g><title>{low:.4g} to {high:.4g}: {count}</title><rect class="bin s1" fill-opacity="0.75" x="{x.at(low) + 0.5:.1f}" '
            f'y="{top:.1f}" width="{max(x.at(high) - x.at(low) - 1, 0.5):.1f}" height="{y.start - top:.1f}"/></g>'
        )
    if x.low < 0 < x.high:
        parts.append(f'<path class="ideal" d="M{x.at(0):.1f} {y.start:.1f}V{charts.TOP:.1f}"/>')
    return charts._svg(charts.WIDTH, _SIZE, f"samples by {x_name}", parts)

"""Charts over the events of a stream, as wide as the page: figures with marks where something happened, and shares that sum to one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from mapsto.report import charts

__all__ = ["Curve", "Mark", "shares", "timeline"]

_WIDTH, _HEIGHT = 1040.0, 330.0
_LEFT, _RIGHT, _BOTTOM = 68.0, 18.0, 44.0
_MOST_BANDS = 8
_MOST_NAMED = 14
"""Of more marks of a kind only lines are drawn; what they are is in their titles."""


class Curve(NamedTuple):
    """A figure over time; `quiet` ones are there to be compared with."""

    xs: Sequence[float]
    ys: Sequence[float]
    quiet: bool = False


class Mark(NamedTuple):
    """Something that happened at an event: a `drift`, what a learner did of itself (`reaction`), or a class that came first (`class`)."""

    x: float
    name: str
    kind: str


def timeline(
    curves: Mapping[str, Curve],
    marks: Sequence[Mark],
    *,
    x_name: str,
    y_name: str,
    from_zero: bool = False,
    height: float = _HEIGHT,
) -> str:
    """Figures over time, with a line where each mark is. Quiet curves are cut off where they are far above the others.

    >>> svg = timeline({"now": Curve([0, 1, 2], [1.0, 2.0, 3.0])}, [Mark(1, "adwin", "drift")], x_name="event", y_name="accuracy")
    >>> svg.count("<polyline"), svg.count("at-drift"), "adwin at 1" in svg  # one in the legend
    (1, 2, True)
    """
    drawn = {name: _points(curve) for name, curve in curves.items()}
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        return ""
    loud = [b for name, points in drawn.items() if not curves[name].quiet for _, b in points]
    most = 2 * max(loud) if loud and min(loud) >= 0 else math.inf
    said = {name: "" if any(b <= most for _, b in points) else " (above)" for name, points in drawn.items()}
    legend, top = _legend({name + said[name]: _style(index, curves[name]) for index, name in enumerate(drawn)}, marks)
    everything = [point for points in drawn.values() for point in points if point[1] <= most]
    last = max(a for points in drawn.values() for a, _ in points)
    x = charts._axis([0.0, last], _LEFT, _WIDTH - _LEFT - _RIGHT, pad=0.0)
    values = [b for _, b in everything] + ([0.0] if from_zero else [])
    y = charts._axis(values, height - _BOTTOM, -(height - _BOTTOM - top))
    parts = [*legend, *charts._frame(x, y, x_name, y_name)]
    there = {kind: [mark for mark in marks if mark.kind == kind] for kind in ("drift", "reaction", "class")}
    for place, (kind, these) in reversed([*enumerate((kind, each) for kind, each in there.items() if each)]):
        level = max(top - 4 - 14 * place, 24.0)
        parts += _marked([mark for mark in these if 0 <= mark.x <= last], kind, x, (level, height))
    for index, (name, points) in enumerate(drawn.items()):
        for below, stretch in itertools.groupby(points, lambda point: point[1] <= most):
            path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in stretch) if below else ""
            parts.append(f'<polyline class="line {_style(index, curves[name])}" points="{path}"/>' if path else "")
    return charts._svg(_WIDTH, height, f"{y_name} against {x_name}", parts, "chart timeline")


def shares(xs: Sequence[float], of: Mapping[str, Sequence[float]], *, x_name: str) -> str:
    """Shares that sum to 1 as bands, one above the other; of many members the largest, and the others together.

    >>> shares([0, 1], {"knn": [0.25, 0.5], "forests": [0.75, 0.5]}, x_name="event").count("<polygon")
    2
    """
    if len(xs) < 2 or not of:
        return ""
    order = sorted(of, key=lambda name: -sum(of[name]))
    bands: dict[str, Sequence[float]] = {name: of[name] for name in order[:_MOST_BANDS]}
    if len(order) > _MOST_BANDS:
        rest = [of[name] for name in order[_MOST_BANDS:]]
        bands[f"{len(rest)} others"] = [sum(each) for each in zip(*rest, strict=True)]
    tones = {name: _tone(index) for index, name in enumerate(bands)}
    legend, top = _legend({name: f"{tone} thick" for name, tone in tones.items()}, ())
    x = charts._axis([0.0, max(xs)], _LEFT, _WIDTH - _LEFT - _RIGHT, pad=0.0)
    height = 240.0
    y = charts._Axis(0.0, 1.0, height - _BOTTOM, -(height - _BOTTOM - top))
    parts = [*legend, *charts._frame(x, y, x_name, "share")]
    below = [0.0] * len(xs)
    for name, values in bands.items():
        above = [a + b for a, b in zip(below, values, strict=True)]
        upper = [f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in zip(xs, above, strict=True)]
        lower = [f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in zip(xs, below, strict=True)][::-1]
        title = f"<title>{escape(name)}: {values[-1]:.0%} at the end</title>"
        parts.append(f'<g>{title}<polygon class="band {tones[name]}" points="{" ".join((*upper, *lower))}"/></g>')
        below = above
    return charts._svg(_WIDTH, height, f"shares against {x_name}", parts, "chart timeline")


def _tone(place: int) -> str:
    """The colour of a band: pale once all are in use, grey for the others together."""
    if place == _MOST_BANDS:
        return "rest"
    return f"s{place % charts.SERIES + 1}" + (" pale" if place >= charts.SERIES else "")


def _points(curve: Curve) -> list[tuple[float, float]]:
    return [(a, b) for a, b in zip(curve.xs, curve.ys, strict=True) if charts._drawable(a) and charts._drawable(b)]


def _style(index: int, curve: Curve) -> str:
    return f"s{index % charts.SERIES + 1}" + (" quiet" if curve.quiet else "")


def _legend(styles: Mapping[str, str], marks: Sequence[Mark]) -> tuple[list[str], float]:
    """Names with a stroke of their line, and the height that they take with the names of marks."""
    kinds = {"drift": "drift", "reaction": "what the learner did", "class": "first label of a class"}
    there = [kind for kind in kinds if any(mark.kind == kind for mark in marks)]
    entries = [(name, f"line {style}") for name, style in styles.items()]
    entries += [(kinds[kind], f"at-{kind} sample") for kind in there]
    parts: list[str] = []
    x, y = _LEFT, 12.0
    for name, style in entries:
        text = charts._clip(name, 300)
        width = 44 + charts._width(text)
        if x + width > _WIDTH - _RIGHT and x > _LEFT:
            x, y = _LEFT, y + 17
        parts.append(f'<line class="{style}" x1="{x:.1f}" x2="{x + 20:.1f}" y1="{y - 4:.1f}" y2="{y - 4:.1f}"/>')
        parts.append(charts._text(x + 26, y, text, "legend"))
        x += width
    return parts, y + 10 + 14 * len(there)


def _marked(marks: Sequence[Mark], kind: str, x: charts._Axis, ends: tuple[float, float]) -> list[str]:
    """Lines from the axis up, with names where these are few and have room; `ends` are where names stand and the chart's height."""
    parts: list[str] = []
    taken = 0.0
    level = ends[0]
    for mark in marks:
        at = x.at(mark.x)
        parts.append(
            f"<g><title>{escape(mark.name)} at {mark.x:,.0f}</title>"
            f'<line class="at-{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{level + 3:.1f}" y2="{ends[1] - _BOTTOM:.1f}"/></g>'
        )
        name = charts._clip(mark.name, 130, 11)
        wide = charts._width(name, 11)
        left = min(max(_LEFT, at - wide / 2), _WIDTH - wide - 2)
        if len(marks) <= _MOST_NAMED and left > taken:
            parts.append(charts._text(left, level, name, f"of-{kind}"))
            taken = left + wide + 6
    return parts

"""Small charts as SVG text, for a page that must need nothing else: no script, no font, no plotting library.

Colours, fonts and dark mode come from the page's style sheet through class names: ``s1`` to ``s6`` are series, and
``axis``, ``grid``, ``muted`` and ``strong`` are what they say. Values that are not finite are left out. All text is
escaped.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple, TypeAlias

__all__ = ["Edge", "Node", "Point", "flow", "heat_map", "lines", "matrix", "scatter", "short"]

WIDTH, HEIGHT = 480.0, 310.0
LEFT, RIGHT, TOP, BOTTOM = 68.0, 16.0, 14.0, 44.0
FONT = 12.0
SERIES = 6

_SMALLEST = 1e-100
"""Beyond this and its inverse, differences of what is drawn would leave the range of a float."""

_Rect: TypeAlias = "tuple[float, float, float, float]"
"""Left, top, right, bottom."""


class Point(NamedTuple):
    """A labelled place in a scatter plot; `ends` are those of the interval of `y`."""

    label: str
    x: float
    y: float
    ends: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Node:
    """A box of a flow graph: name, fields, badge (its label in the recipe), what it gives, and what was observed."""

    id: str
    name: str
    detail: str = ""
    badge: str = ""
    kind: str = ""
    note: str = ""


class Edge(NamedTuple):
    """A value handed on, or (`reference`) one that is looked up from elsewhere in the recipe."""

    source: str
    target: str
    reference: bool = False


def short(value: float) -> str:
    """A number for an axis, with an SI prefix where it is long.

    >>> [short(v) for v in (0, 0.05, 12, 1500, 2_000_000, 1e-5)]
    ['0', '0.05', '12', '1.5k', '2M', '1e-05']
    """
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g}{prefix}"
    return f"{value:.4g}"


def _drawable(value: float, *, log: bool = False) -> bool:
    return abs(value) < 1 / _SMALLEST and (value > _SMALLEST or not log)


def _width(text: str, size: float = FONT) -> float:
    """About how wide a text is; there is no font to ask."""
    return sum(1.0 if ord(c) > 0x2E80 else 0.57 for c in text) * size


def _clip(text: str, width: float, size: float = FONT) -> str:
    while text and _width(text, size) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text


def _fitting(text: str, width: float) -> str:
    """As many whole parts of ``a=1, b=[2, 3]`` as fit, and how many more there are.

    >>> _fitting("measured: scripts, digits, omniglot, size", 170)
    'measured: scripts +3'
    """
    parts = re.split(r", (?=\w+(?:=|, |$))", text)
    for kept in range(len(parts), 0, -1):
        shown = ", ".join(parts[:kept]) + (f" +{len(parts) - kept}" if kept < len(parts) else "")
        if _width(shown) <= width:
            return shown
    return f"{len(parts)} fields" if "=" in text else _clip(text, width)


def _text(x: float, y: float, text: str, classes: str = "", anchor: str = "start", *, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def _svg(width: float, height: float, label: str, parts: Iterable[str], classes: str = "chart") -> str:
    body = "".join(parts)
    return (
        f'<svg class="{classes}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="img" aria-label="{escape(label)}">{body}</svg>'
    )


# ----------------------------------------------------------------------------------------------------------------- axes


@dataclass(frozen=True)
class _Axis:
    """A stretch of pixels and the values along it."""

    low: float
    high: float
    start: float
    length: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, given = (
            (math.log10(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + self.length * (given - low) / (high - low)

    def ticks(self) -> list[float]:
        if not self.log:
            return _round_numbers(self.low, self.high)
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for digits in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
            found = [d * 10.0**e for e in range(first, last + 1) for d in digits]
            inside = [v for v in found if self.low <= v <= self.high]
            if len(inside) >= 3:
                break
        else:
            inside = _round_numbers(self.low, self.high)
        return inside[:: math.ceil(len(inside) / 7)]


def _round_numbers(low: float, high: float, about: int = 5) -> list[float]:
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _axis(values: Sequence[float], start: float, length: float, *, log: bool = False, pad: float = 0.08) -> _Axis:
    low, high = min(values), max(values)
    if log:
        room = max((high / low) ** pad, 1.15)
        return _Axis(low / room, high * room, start, length, True)
    room = (high - low) * pad
    if room <= 1e-9 * abs(high) or room < _SMALLEST:
        room = abs(high) * 0.05 if abs(high) > _SMALLEST else 1.0
    return _Axis(low - room, high + room, start, length)


def _frame(x: _Axis, y: _Axis, x_name: str, y_name: str) -> list[str]:
    """Grid lines, tick labels and names; `y.length` is negative, since SVG counts downwards."""
    left, right, bottom = x.start, x.start + x.length, y.start
    parts: list[str] = []
    for value in y.ticks():
        at = y.at(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(left - 7, at + 4, short(value), "tick", "end"))
    for value in x.ticks():
        at = x.at(value)
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(_text(at, bottom + 18, short(value), "tick", "middle"))
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(_text((left + right) / 2, bottom + 37, x_name, "name", "middle"))
    middle = y.start + y.length / 2
    parts.append(_text(13, middle, y_name, "name", "middle", extra=f' transform="rotate(-90 13 {middle:.1f})"'))
    return parts


def _legend(names: Sequence[str]) -> tuple[list[str], float]:
    """Swatches with names above the plot, and the height they take."""
    if len(names) < 2:
        return [], 0.0
    parts: list[str] = []
    x, y = LEFT, 12.0
    for index, name in enumerate(names):
        text = _clip(name, WIDTH - LEFT - RIGHT - 20)
        width = 20 + _width(text) + 14
        if x + width > WIDTH - RIGHT and x > LEFT:
            x, y = LEFT, y + 17
        parts.append(_mark(index, x + 6, y - 4, 4.5))
        parts.append(_text(x + 16, y, text, "legend"))
        x += width
    return parts, y + 6


def _mark(index: int, x: float, y: float, r: float = 4.5) -> str:
    """A marker: series differ in shape as well as in colour."""
    classes = f"mark s{index % SERIES + 1}"
    shape = index % 4
    if shape == 0:
        return f'<circle class="{classes}" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
    corners = {
        1: ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        2: ((0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)),
        3: ((0, -1.2), (1.2, 1), (-1.2, 1)),
    }[shape]
    points = " ".join(f"{x + dx * r * 0.9:.1f},{y + dy * r * 0.9:.1f}" for dx, dy in corners)
    return f'<polygon class="{classes}" points="{points}"/>'


def _empty(y_name: str) -> str:
    return _svg(WIDTH, 60, f"{y_name}: no finite values", [_text(WIDTH / 2, 34, "no finite values", "muted", "middle")])


# ---------------------------------------------------------------------------------------------------------------- plots


def scatter(
    series: Mapping[str, Sequence[Point]], *, x_name: str, y_name: str, log_x: bool = False, joined: int | None = None
) -> str:
    """Labelled points joined in their order, with bars for their intervals; of several series the first `joined`, by default all.

    >>> svg = scatter({"digits": [Point("teacher", 1e6, 88.0, (87.6, 88.4)), Point("int8", 1e5, 87.5, (87.1, 87.9))]},
    ...               x_name="bytes", y_name="accuracy, %", log_x=True)
    >>> svg.count("<circle"), svg.count('class="bar')
    (2, 2)
    """
    kept = {
        name: [p for p in points if _drawable(p.x, log=log_x) and _drawable(p.y)] for name, points in series.items()
    }
    kept = {name: points for name, points in kept.items() if points}
    everything = [p for points in kept.values() for p in points]
    if not everything:
        return _empty(y_name)
    legend, taken = _legend(list(kept))
    top = TOP + taken
    x = _axis([p.x for p in everything], LEFT, WIDTH - LEFT - RIGHT, log=log_x, pad=0.14)
    ends = [end for p in everything for end in (p.y, *(p.ends or ()))]
    y = _axis(ends, HEIGHT - BOTTOM, -(HEIGHT - BOTTOM - top), pad=0.12)
    parts = [*legend, *_frame(x, y, x_name, y_name)]
    for index, points in enumerate(kept.values()):
        parts.extend(_trail(points, x, y, index, line=joined is None or index < joined))
    marks = [(x.at(p.x), y.at(p.y)) for p in everything]
    boxes: list[_Rect] = [(mx - 7, my - 7, mx + 7, my + 7) for mx, my in marks]
    boxes += [(x.at(p.x) - 4, y.at(p.ends[1]), x.at(p.x) + 4, y.at(p.ends[0])) for p in everything if p.ends]
    parts.extend(_placed(p.label, x.at(p.x), y.at(p.y), boxes, top) for p in next(iter(kept.values())))
    return _svg(WIDTH, HEIGHT, f"{y_name} against {x_name}", parts)


def _trail(points: Sequence[Point], x: _Axis, y: _Axis, index: int, *, line: bool = True) -> list[str]:
    tone = f"s{index % SERIES + 1}"
    path = " ".join(f"{x.at(p.x):.1f},{y.at(p.y):.1f}" for p in points)
    parts = [f'<polyline class="trail {tone}" points="{path}"/>'] if line else []
    for p in points:
        px, py = x.at(p.x), y.at(p.y)
        if p.ends:
            low, high = y.at(p.ends[0]), y.at(p.ends[1])
            d = f"M{px:.1f} {low:.1f}V{high:.1f}M{px - 4:.1f} {low:.1f}h8M{px - 4:.1f} {high:.1f}h8"
            parts.append(f'<path class="bar {tone}" d="{d}"/>')
        interval = f" ({p.ends[0]:.3g} to {p.ends[1]:.3g})" if p.ends else ""
        parts.append(f"<g><title>{escape(p.label)}: {p.y:.4g}{interval} at {escape(short(p.x))}</title>")
        parts.append(f"{_mark(index, px, py)}</g>")
    return parts


def _overlap(a: _Rect, b: _Rect) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _placed(text: str, x: float, y: float, boxes: list[_Rect], top: float) -> str:
    """A label beside its point, on the side where it covers the least; adds its box to `boxes`."""
    wide = 1.2 * _width(text)
    tries = [(x + 9, y + 4), (x - 9 - wide, y + 4)]
    tries += [(x - wide / 2, y + dy) for dy in (-12, 22, -24, 34)]
    tries += [(x + 8, y + dy) for dy in (-10, 18)] + [(x - 8 - wide, y + dy) for dy in (-10, 18)]

    def cost(place: tuple[float, float]) -> float:
        left, base = place
        box = (left, base - 10, left + wide, base + 3)
        covered = sum(_overlap(box, other) for other in boxes)
        outside = max(0.0, LEFT + 2 - box[0]) + max(0.0, box[2] - WIDTH + 2) + max(0.0, top - 6 - box[1])
        return covered + 40 * outside + 40 * max(0.0, box[3] - (HEIGHT - BOTTOM))

    left, base = min(tries, key=cost)
    boxes.append((left, base - 10, left + wide, base + 3))
    return _text(left, base, text, "label")


def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_name: str,
    y_name: str,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """Curves, each an (x, y) pair of sequences. A long, noisy one is drawn faint under its running mean.

    >>> lines({"train_loss": ([0, 1, 2], [1.0, 0.5, 0.4])}, x_name="epoch", y_name="loss").count("<polyline")
    1
    """
    kept: dict[str, list[tuple[float, float]]] = {}
    for name, (xs, ys) in curves.items():
        points = [(a, b) for a, b in zip(xs, ys, strict=True) if _drawable(a, log=log_x) and _drawable(b)]
        if points:
            kept[name] = points
    if not kept:
        return _empty(y_name)
    log_y = log_y and all(_drawable(b, log=True) for points in kept.values() for _, b in points)
    legend, taken = _legend(list(kept))
    top = TOP + taken
    drawn = {name: _strokes(points) for name, points in kept.items()}
    shown = [point for strokes in drawn.values() for stroke in strokes for point in stroke]
    x = _axis([a for a, _ in shown], LEFT, WIDTH - LEFT - RIGHT, log=log_x, pad=0.02)
    y = _axis([b for _, b in shown], HEIGHT - BOTTOM, -(HEIGHT - BOTTOM - top), log=log_y)
    parts = [*legend, *_frame(x, y, x_name, y_name)]
    for index, strokes in enumerate(drawn.values()):
        tone = f"s{index % SERIES + 1}"
        for k, stroke in enumerate(strokes):
            classes = f"line {tone}" if k == len(strokes) - 1 else f"line faint {tone}"
            path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in stroke)
            parts.append(f'<polyline class="{classes}" points="{path}"/>')
        if len(strokes[-1]) <= 30:
            parts.extend(_mark(index, x.at(a), y.at(b), 3) for a, b in strokes[-1])
    return _svg(WIDTH, HEIGHT, f"{y_name} against {x_name}", parts)


def _strokes(points: list[tuple[float, float]], most: int = 300) -> list[list[tuple[float, float]]]:
    """The curve itself, and over a long one its running mean; both thinned to what a screen can show."""
    size = math.ceil(len(points) / most)
    thin = [
        (sum(a for a, _ in part) / len(part), sum(b for _, b in part) / len(part))
        for part in (points[k : k + size] for k in range(0, len(points), size))
    ]
    if len(thin) < 80:
        return [thin]
    half = len(thin) // 40
    means = [
        (thin[k][0], sum(b for _, b in window) / len(window))
        for k in range(len(thin))
        if (window := thin[max(0, k - half) : k + half + 1])
    ]
    return [thin, means]


def heat_map(counts: Sequence[Sequence[float]], classes: Sequence[str]) -> str:
    """A confusion matrix: a row is a true class, a column what was predicted, the shade the share of its row.

    >>> heat_map([[9, 1], [0, 10]], ["cat", "dog"]).count("<rect")
    4
    """
    n = len(classes)
    cell = min(40.0, max(5.0, 420.0 / max(n, 1)))
    every = max(1, math.ceil(13 / cell))
    names = [_clip(name, 96) for name in classes]
    widest = max((_width(name) for name in names), default=0.0)
    left = 30 + widest
    upright = widest <= cell - 4
    head = 44.0 if upright else 34 + widest * 0.75
    parts = [
        _text(left + n * cell / 2, 13, "predicted", "name", "middle"),
        _text(
            13,
            head + n * cell / 2,
            "true",
            "name",
            "middle",
            extra=f' transform="rotate(-90 13 {head + n * cell / 2:.1f})"',
        ),
    ]
    for k in range(0, n, every):
        middle = left + (k + 0.5) * cell
        turn = "" if upright else f' transform="rotate(-45 {middle:.1f} {head - 8:.1f})"'
        parts.append(_text(middle, head - 8, names[k], "tick", "middle" if upright else "start", extra=turn))
        parts.append(_text(left - 7, head + (k + 0.5) * cell + 4, names[k], "tick", "end"))
    for r, row in enumerate(counts):
        total = sum(row) or 1.0
        for c, count in enumerate(row):
            x, y, share = left + c * cell, head + r * cell, count / total
            parts.append(
                f"<g><title>{escape(classes[r])} → {escape(classes[c])}: {count:g} ({share:.1%})</title>"
                f'<rect class="cell{" hit" if r == c else " miss"}" x="{x:.1f}" y="{y:.1f}" '
                f'width="{cell:.1f}" height="{cell:.1f}" fill-opacity="{0.9 * share**0.6 if count else 0:.3f}"/>'
            )
            if cell >= 22 and count:
                tone = "count on" if share > 0.4 else "count"
                parts.append(_text(x + cell / 2, y + cell / 2 + 4, short(count), tone, "middle"))
            parts.append("</g>")
    parts.append(
        f'<path class="axis" fill="none" d="M{left:.1f} {head:.1f}h{n * cell:.1f}v{n * cell:.1f}h{-n * cell:.1f}z"/>'
    )
    slant = 0.0 if upright else widest * 0.75
    return _svg(left + n * cell + max(8.0, slant), head + n * cell + 6, "confusion matrix", parts, "chart matrix")


def matrix(
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    row_name: str = "",
    column_name: str = "",
) -> str:
    """Values from 0 to 1 of all rows against all columns as shades, such as how alike the layers of two networks are.

    >>> matrix([[0.5, 0.2, 1.0]], ["a"], ["x", "y", "z"]).count("<rect")
    3
    """
    cell = min(40.0, max(12.0, 420.0 / max(len(rows), len(columns), 1)))
    downs, acrosses = ([_clip(name, 130) for name in names] for names in (rows, columns))
    left = 30 + max((_width(name) for name in downs), default=0.0)
    slant = max((_width(name) for name in acrosses), default=0.0) * 0.75
    head = 34 + slant
    wide, high = len(columns) * cell, len(rows) * cell
    turn = f' transform="rotate(-90 13 {head + high / 2:.1f})"'
    parts = [
        _text(left + wide / 2, 13, column_name, "name", "middle"),
        _text(13, head + high / 2, row_name, "name", "middle", extra=turn),
    ]
    for k, name in enumerate(acrosses):
        middle = left + (k + 0.5) * cell
        turn = f' transform="rotate(-45 {middle:.1f} {head - 8:.1f})"'
        parts.append(_text(middle, head - 8, name, "tick", "start", extra=turn))
    for k, name in enumerate(downs):
        parts.append(_text(left - 7, head + (k + 0.5) * cell + 4, name, "tick", "end"))
    for r, row in enumerate(values):
        for c, value in enumerate(row):
            x, y, shade = left + c * cell, head + r * cell, min(1.0, max(0.0, value))
            parts.append(
                f"<g><title>{escape(rows[r])}, {escape(columns[c])}: {value:.3g}</title>"
                f'<rect class="cell" x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}" '
                f'fill-opacity="{0.9 * shade:.3f}"/>'
            )
            if cell >= 26:
                tone = "count on" if shade > 0.5 else "count"
                parts.append(_text(x + cell / 2, y + cell / 2 + 4, f"{value:.2f}", tone, "middle"))
            parts.append("</g>")
    parts.append(f'<path class="axis" fill="none" d="M{left:.1f} {head:.1f}h{wide:.1f}v{high:.1f}h{-wide:.1f}z"/>')
    label = f"{row_name} against {column_name}" if row_name and column_name else "matrix"
    return _svg(left + wide + max(8.0, slant), head + high + 6, label, parts, "chart matrix")


# ----------------------------------------------------------------------------------------------------------- flow graph

BOX_WIDTH, BOX_HEIGHT, NOTE_HEIGHT, GAP_X, GAP_Y, LANE = 250.0, 54.0, 18.0, 18.0, 30.0, 14.0


def flow(nodes: Sequence[Node], edges: Sequence[Edge]) -> str:
    """A recipe as a picture: values flow downwards; references leave on the right and run dashed along their own lane.

    >>> svg = flow([Node(id="a", name="networks.vgg"), Node(id="b", name="prune.taylor")], [Edge("a", "b")])
    >>> "prune.taylor" in svg
    True
    """
    if not nodes:
        return ""
    known = {node.id for node in nodes}
    edges = [e for e in edges if e.source in known and e.target in known]
    rows = _rows(nodes, edges)
    tall = BOX_HEIGHT + (NOTE_HEIGHT if any(node.note for node in nodes) else 0)
    places = _places(rows, edges)
    spots = {
        name: (8 + column * (BOX_WIDTH + GAP_X), 8 + row * (tall + GAP_Y)) for name, (row, column) in places.items()
    }
    wide = max(len(members) for members in rows)
    last = {row: max(column for other, column in places.values() if other == row) for row, _ in places.values()}
    outer = {name for name, (row, column) in places.items() if column == last[row]}
    right = 8 + wide * BOX_WIDTH + (wide - 1) * GAP_X
    sources = [node.id for node in nodes if any(e.reference and e.source == node.id for e in edges)]
    parts = [
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>'
    ]
    parts.extend(_wire(spots[e.source], spots[e.target], tall) for e in edges if not e.reference)
    entered: defaultdict[str, int] = defaultdict(int)
    for lane, source in enumerate(sources):
        at = right + 16 + lane * LANE
        ways: list[_Way] = []
        for edge in (e for e in edges if e.reference and e.source == source):
            (x, y), count = spots[edge.target], entered[edge.target] % 3
            if edge.target in outer:
                ways.append(_Way([(at, y + 25 + 9 * count), (x + BOX_WIDTH, y + 25 + 9 * count)]))
            else:  # over what stands to its right, and in from above
                inward = x + BOX_WIDTH - 18 - 14 * count
                ways.append(_Way([(at, y - 9 - 3 * count), (inward, y - 9 - 3 * count), (inward, y)]))
            entered[edge.target] += 1
        x, y = spots[source]
        under = y + tall + 8
        start = [(x + BOX_WIDTH, y + 13), (at, y + 13)]
        start = start if source in outer else [(x + BOX_WIDTH - 18, y + tall), (x + BOX_WIDTH - 18, under), (at, under)]
        parts.append(_bus(start, ways, f"s{lane % SERIES + 1}"))
    parts.extend(_box(node, *spots[node.id], tall) for node in nodes)
    height = 8 + len(rows) * (tall + GAP_Y) - GAP_Y + 14
    kind = "chart flow broad" if wide > 2 else "chart flow"
    return _svg(right + 24 + len(sources) * LANE, height, "the recipe as a graph", parts, kind)


def _rows(nodes: Sequence[Node], edges: Sequence[Edge]) -> list[list[Node]]:
    """Nodes by their longest way from a beginning; what only gets referred to (data) comes first, two in a row."""
    values = [e for e in edges if not e.reference]
    joined = {end for e in values for end in (e.source, e.target)}
    depth = {node.id: 0 for node in nodes if node.id in joined}
    for _ in depth:
        before = dict(depth)
        for edge in values:
            depth[edge.target] = max(depth[edge.target], depth[edge.source] + 1)
        if before == depth:
            break
    apart = [node for node in nodes if node.id not in joined]
    rows = [list(apart[k : k + 2]) for k in range(0, len(apart), 2)]
    levels: defaultdict[int, list[Node]] = defaultdict(list)
    for node in nodes:
        if node.id in depth:
            levels[depth[node.id]].append(node)
    return rows + [levels[level] for level in sorted(levels)]


def _places(rows: Sequence[Sequence[Node]], edges: Sequence[Edge]) -> dict[str, tuple[int, int]]:
    """Row and column of each node: below what it comes from, as far as there is room, so that few lines cross."""
    wide = max(len(members) for members in rows)
    places: dict[str, tuple[int, int]] = {}
    for row, members in enumerate(rows):
        above = {
            node.id: [
                places[e.source][1] for e in edges if e.target == node.id and not e.reference and e.source in places
            ]
            for node in members
        }
        wanted = {
            node.id: sum(above[node.id]) / len(above[node.id]) if above[node.id] else float(k)
            for k, node in enumerate(members)
        }
        column = -1
        for k, node in enumerate(sorted(members, key=lambda node: wanted[node.id])):
            column = max(column + 1, min(round(wanted[node.id]), wide - len(members) + k))
            places[node.id] = (row, column)
    return places


def _wire(source: tuple[float, float], target: tuple[float, float], tall: float) -> str:
    x1, y1 = source[0] + BOX_WIDTH / 2, source[1] + tall
    x2, y2 = target[0] + BOX_WIDTH / 2, target[1] - 1
    bend = (y2 - y1) / 2
    path = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
    return f'<path class="wire" d="{path}" marker-end="url(#tip)"/>'


class _Way(NamedTuple):
    """The corners of a line from a lane into a node."""

    corners: list[tuple[float, float]]


def _bus(start: Sequence[tuple[float, float]], ways: Sequence[_Way], tone: str) -> str:
    """One dashed line out of a node to its lane, along it, and into each node that refers to it."""
    lane = start[-1][0]
    levels = [start[-1][1], *(way.corners[0][1] for way in ways)]
    lines = [start, [(lane, min(levels)), (lane, max(levels))], *(way.corners for way in ways)]
    path = "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line) for line in lines)
    tips = "".join(_tip(way.corners[-2], way.corners[-1], tone) for way in ways)
    return f'<path class="bus {tone}" d="{path}"/>{tips}'


def _tip(before: tuple[float, float], end: tuple[float, float], tone: str) -> str:
    """The head of an arrow that comes from the right, or from above."""
    shape = "l-3.5 -8h7z" if before[0] == end[0] else "l8 -3.5v7z"
    return f'<path class="head {tone}" d="M{end[0]:.1f} {end[1]:.1f}{shape}"/>'


def _box(node: Node, x: float, y: float, tall: float) -> str:
    badge = ""
    room = BOX_WIDTH - 24
    if node.badge:
        text = _clip(node.badge, 90, 11)
        wide = _width(text, 11) + 14
        left = x + BOX_WIDTH - wide - 8
        badge = f'<rect class="badge" x="{left:.1f}" y="{y + 8:.1f}" width="{wide:.1f}" height="18" rx="9"/>'
        badge += _text(left + wide / 2, y + 21, text, "badge-text", "middle")
        room -= wide + 6
    kind = _text(x + BOX_WIDTH - 11, y + 42, node.kind, "muted", "end") if node.kind else ""
    note = _text(x + 12, y + 61, _fitting(node.note, BOX_WIDTH - 24), "muted note") if node.note else ""
    detail_room = BOX_WIDTH - 30 - _width(node.kind)
    return (
        f"<g><title>{escape(' · '.join(t for t in (node.name, node.detail, node.note) if t))}</title>"
        f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{BOX_WIDTH}" height="{tall}" rx="8"/>'
        f"{_text(x + 12, y + 22, _clip(node.name, room / 1.08, 13.5), 'strong')}{badge}"
        f"{_text(x + 12, y + 42, _fitting(node.detail, detail_room), 'muted')}{kind}{note}</g>"
    )

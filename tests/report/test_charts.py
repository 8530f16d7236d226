"""The charts: what is given is drawn, in its place, and nothing breaks them."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from mapsto.report.charts import Edge, Node, Point, flow, heat_map, lines, scatter

NUMBERS = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])


def _marks(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle class="mark[^>]*cx="([\d.]+)" cy="([\d.]+)"', svg)]


def test_a_log_axis_puts_equal_ratios_at_equal_distances() -> None:
    svg = scatter({"a": [Point("", 10.0**k, 1.0) for k in (3, 4, 5)]}, x_name="bytes", y_name="", log_x=True)
    (a, _), (b, _), (c, _) = _marks(svg)
    assert math.isclose(b - a, c - b, abs_tol=0.2)


def test_greater_is_higher() -> None:
    (_, low), (_, high) = _marks(scatter({"a": [Point("p", 1, 10.0), Point("q", 2, 20.0)]}, x_name="", y_name=""))
    assert high < low


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=30), st.booleans())
def test_any_numbers_give_well_formed_finite_svg(points: list[tuple[float, float]], log: bool) -> None:
    drawn = [
        scatter(
            {"<a>": [Point("&", x, y, (y - 0.5, y + 0.5)) for x, y in points]}, x_name="<x>", y_name="y", log_x=log
        ),
        lines({"<a>": ([x for x, _ in points], [y for _, y in points])}, x_name="<x>", y_name="y", log_y=log),
    ]
    for svg in drawn:
        ElementTree.fromstring(svg)
        assert not re.search(r'="[^"]*\b(nan|inf)\b', svg)


def test_a_long_curve_is_thinned_under_its_mean() -> None:
    svg = lines({"loss": (list(range(10_000)), [1 / (k + 1) for k in range(10_000)])}, x_name="step", y_name="loss")
    strokes = re.findall(r'points="([^"]*)"', svg)
    assert len(strokes) == 2
    assert all(len(stroke.split()) <= 300 for stroke in strokes)


def test_heat_map_shades_by_the_share_of_the_row() -> None:
    svg = heat_map([[1, 0], [500, 500]], ["rare", "common"])
    shades = [float(s) for s in re.findall(r'fill-opacity="([\d.]+)"', svg)]
    assert shades[0] > shades[2] == shades[3] > shades[1] == 0


def test_flow_keeps_order_and_survives_a_cycle() -> None:
    nodes = [Node(id=name, name=name) for name in "abc"]
    svg = flow(nodes, [Edge("a", "b"), Edge("b", "c"), Edge("a", "c", reference=True), Edge("a", "gone")])
    tops = [float(y) for y in re.findall(r'<rect class="box" x="[\d.]+" y="([\d.]+)"', svg)]
    assert tops == sorted(tops)
    assert len(set(tops)) == 3
    assert svg.count('class="bus') == 1
    assert flow(nodes, [Edge("a", "b"), Edge("b", "a")]).startswith("<svg")


def test_branches_stand_side_by_side() -> None:
    nodes = [Node(id=name, name=name) for name in "abcd"]
    svg = flow(nodes, [Edge("a", "b"), Edge("a", "c"), Edge("b", "d"), Edge("c", "d")])
    tops = [float(y) for y in re.findall(r'<rect class="box" x="[\d.]+" y="([\d.]+)"', svg)]
    assert tops[1] == tops[2]


def test_no_line_of_a_recipe_runs_through_a_box() -> None:
    """A fork whose branch refers to its end: both branches keep their column, and lines go around what lies between."""
    names = ("net", "teacher", "big", "pruned", "chosen", "taught", "last")
    edges = [
        ("net", "teacher"),
        ("teacher", "big"),
        ("teacher", "pruned"),
        ("big", "chosen"),
        ("pruned", "taught"),
        ("taught", "last"),
    ]
    references = [("teacher", "taught"), ("last", "chosen"), ("big", "last")]
    svg = flow(
        [Node(id=n, name=n) for n in names],
        [*(Edge(a, b) for a, b in edges), *(Edge(a, b, True) for a, b in references)],
    )
    boxes = [
        tuple(map(float, found))
        for found in re.findall(r'class="box" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', svg)
    ]
    height = float(re.findall(r'viewBox="0 0 [\d.]+ ([\d.]+)"', svg)[0])
    segments = []
    for path in re.findall(r'class="(?:bus|wire)[^"]*" d="([^"]+)"', svg):
        for line in path.split("M")[1:]:
            corners = [tuple(map(float, pair.split()[:2])) for pair in re.split("[LC]", line)]
            segments += [(a, b) for a, b in itertools.pairwise(corners)] if "C" not in line else []
    assert len(boxes) == len(names)
    assert len(segments) > 6
    for (x1, y1), (x2, y2) in segments:
        assert max(y1, y2) < height - 1, "nothing is cut off below"
        for x, y, wide, tall in boxes:
            across = min(max(x1, x2), x + wide - 1) - max(min(x1, x2), x + 1)
            along = min(max(y1, y2), y + tall - 1) - max(min(y1, y2), y + 1)
            assert min(across, along) < 0, "through a box"

"""`report.html` from `report.json`: one page that needs nothing else, neither a network nor a library.

`render` takes the report as it was read from JSON. What a run did not make (a confusion matrix, losses, targets) is
left out. A cell of the summary is a number, a text, null, or ``{"value": …, "ci95": …}``; a column ``"<name> ci95"``
serves as well.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

from mapsto.errors import SpecError
from mapsto.intervals import interval_ends, interval_text
from mapsto.report import charts
from mapsto.report.gaps import gap_of, gap_table
from mapsto.report.messages import together
from mapsto.report.steps_taken import steps_taken
from mapsto.report.streams import stream_part
from mapsto.report.template_environment import TEMPLATES, environment
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["SCHEMA", "content", "render", "script_hash"]

SCHEMA = 1
"""The version of report.json that this page is made from."""

Doc: TypeAlias = "dict[str, Any]"
Role: TypeAlias = Literal["parameters", "macs", "bytes", "latency", "accuracy", "drop", "ci95", "other"]

_TIMES = {"s", "ms", "µs", "us", "ns"}
_NOTHING = "–"
_PNG = "data:image/png;base64,"
_MOST_CLASSES = 120
_MOST_ROWS = 400
"""Rows of a table that are shown."""
_MOST_IN_BRANCHES = 8
"""Steps in the branches of forks that are each drawn; of more, a branch is one box."""
_OF_CLASSES = ("class", "label \\ predicted")
"""Columns of tables that hold names of classes, which may be as long as a user likes."""


class Cell(NamedTuple):
    """One place of a table as shown, with its interval; `share` in 0 to 1 draws a bar behind it."""

    text: str
    title: str = ""
    share: float | None = None
    interval: str = ""


@dataclass(frozen=True)
class View:
    """A table as shown: column names with units, which of them are numbers, and the cells."""

    columns: list[str]
    numeric: list[bool]
    rows: list[list[Cell]]

    @property
    def wide(self) -> bool:
        """Whether it needs the page's whole width, and intervals below their figures."""
        return len(self.columns) > 7


class Tile(NamedTuple):
    """A headline number, what it is, and where it comes from."""

    value: str
    what: str
    note: str


class Figure(NamedTuple):
    """A chart and its caption."""

    svg: str
    caption: str


class Picture(NamedTuple):
    """An image, what it shows, whether it is an example got right or wrong, and how many pixels wide to draw it."""

    uri: str
    caption: str
    right: bool | None
    width: int


@dataclass
class Section:
    """What one step has to show."""

    id: str
    title: str
    subtitle: str
    digest: str
    figures: list[Figure] = field(default_factory=list[Figure])
    tables: list[tuple[str, View]] = field(default_factory=list["tuple[str, View]"])
    plots: list[Figure] = field(default_factory=list[Figure])
    pictures: list[Picture] = field(default_factory=list[Picture])
    metrics: View | None = None

    def __bool__(self) -> bool:
        return bool(self.figures or self.tables or self.plots or self.pictures)


def render(report: Doc) -> str:
    """The page as text.

    Raises
    ------
    SpecError
        The report is of another schema.

    >>> "<title>a first run" in render({"schema": 1, "name": "demo", "title": "a first run"})
    True
    """
    return _template().render(
        **content(report),
        schema=SCHEMA,
        script=_script(),
        script_hash=script_hash(),
    )


def content(report: Doc) -> Doc:
    """What the page shows, by the names that its template has for it. Raises `SpecError` for a report of another schema."""
    if report.get("schema") != SCHEMA:
        raise SpecError(
            f"this report is of schema {report.get('schema')!r}, this version of mapsto reads {SCHEMA}",
            where="report.json",
            hint="make the report again, or install the version of mapsto that made it",
        )
    steps: list[Doc] = report.get("steps") or []
    titles: dict[str, str] = {}
    for step in steps:
        own = str(step.get("label") or _unlabelled(step))
        watched = titles.get(str(step.get("of")))
        titles[str(step["id"])] = f"{watched} · {own}" if watched else own
    summary: Doc = report.get("summary") or {}
    recipe: Doc = report.get("recipe") or {}
    environment: Doc = dict(report.get("environment") or {})
    packages: Doc = environment.pop("packages", None) or {}
    targets: list[Doc] = report.get("targets") or []
    numbered = _numbered(steps)
    apart = [step for step in steps if _outer(step) in numbered]
    others = [step for step in steps if _outer(step) not in numbered]
    return {
        "report": report,
        "title": report.get("title") or report.get("name") or "A run of mapsto",
        "facts": _facts(report),
        "status": _status(report),
        "tiles": []
        if any(target.get("measured") is not None for target in targets)
        else _tiles(_rows_taken(summary, steps)),
        "targets": [_target(target) for target in targets],
        "met": _verdicts(targets),
        "warnings": together((said["path"], said["text"]) for said in report.get("warnings") or []),
        "notes": report.get("notes") or [],
        "summary": _view(summary) if summary.get("rows") else None,
        "stages": _stage_figures(summary),
        "flow": _flow(_gathered(recipe.get("graph") or {}, steps, numbered), steps),
        "gathered": _is_large(recipe.get("graph") or {}, steps),
        "yaml": recipe.get("yaml") or "",
        "streams": [stream for step in steps if (stream := _stream(step, titles))],
        "learning": [section for step in others if not _streams(step) and (section := _learning(step, steps, titles))],
        "learning_apart": [
            section for step in apart if not _streams(step) and (section := _learning(step, steps, titles))
        ],
        "together": _together(steps, titles),
        "evidence": [section for step in steps if (section := _evidence(step, titles, _alike(steps)))],
        "metrics": [section for step in steps if (section := _metrics(step, titles)).metrics],
        "steps": _steps(others, titles),
        "steps_apart": _steps(apart, titles),
        "apart": _span(numbered),
        "seeds": _seeds(report.get("seeds")),
        "skipped": sorted((report.get("skipped") or {}).items()),
        "environment": [(name.replace("_", " "), _plain(value)) for name, value in _flat(environment)],
        "packages": sorted(packages.items()),
    }


def script_hash() -> str:
    """The SHA-256 of the page's script in base64, by which a Content-Security-Policy allows it."""
    return base64.b64encode(sha256(_script().encode()).digest()).decode()


@cache
def _template() -> Template:
    return environment().get_template("report.html.j2")


@cache
def _script() -> str:
    return (TEMPLATES / "report.js").read_text(encoding="utf-8")


# -------------------------------------------------------------------------------------------------------------- numbers


def _number(value: Any) -> float | None:
    """The number that a cell holds, where it holds a finite one."""
    if isinstance(value, dict):
        value = cast("Doc", value).get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _shown_interval(value: Any, unit: str) -> str:
    text = interval_text(cast("Doc", value), unit) if isinstance(value, dict) else ""
    return f" {text}" if text else ""


def _plain(value: Any) -> str:
    """A value that stands alone.

    >>> [_plain(v) for v in (None, 12345, 0.123456, "≥ 12", [1, 2])]
    ['–', '12,345', '0.1235', '≥ 12', '[1, 2]']
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bytes(value: float) -> str:
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f} B"


def _duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> _duration(0.0123), _duration(7.25), _duration(251)
    ('12 ms', '7.2 s', '4 min 11 s')
    """
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _role(name: str, unit: str) -> Role:
    """What a column of the summary is about."""
    low = name.lower()
    if low.endswith("ci95"):
        return "ci95"
    if unit in {"×", "x"}:
        return "other"
    if "drop" in low.split():
        return "drop"
    if unit.lower() in {"b", "byte", "bytes"} or low == "bytes":
        return "bytes"
    if unit in _TIMES or "latency" in low:
        return "latency"
    if "param" in low:
        return "parameters"
    if "macs" in low:
        return "macs"
    return "accuracy" if unit == "%" or "accuracy" in low else "other"


# --------------------------------------------------------------------------------------------------------------- tables


def _view(table: Mapping[str, Any]) -> View:
    """A table with each column written in one format; a column of intervals is merged into the one it belongs to."""
    names = [str(c) for c in table["columns"]]
    names = [
        f"{before} ci95" if name == "ci95" and before else name
        for before, name in zip(["", *names], names, strict=False)
    ]
    units: Doc = table.get("units") or {}
    given: list[Sequence[Any]] = table["rows"]
    rows = [dict(zip(names, row, strict=False)) for row in given]
    kept = [name for name in names if not (name.endswith(" ci95") and name.removesuffix(" ci95") in names)]
    columns: list[str] = []
    numeric: list[bool] = []
    cells: list[list[Cell]] = [[] for _ in rows]
    for name in kept:
        unit = str(units.get(name, ""))
        values = [_with_interval(row, name) for row in rows]
        texts = _column(name, unit, values)
        numeric.append(any(_number(v) is not None for v in values) and not any(isinstance(v, str) for v in values))
        title = short(name)
        columns.append(f"{title}, {unit}" if unit and _role(name, unit) not in {"bytes", "macs"} else title)
        for row, text in zip(cells, texts, strict=True):
            row.append(text)
    return View(columns, numeric, cells)


def _with_interval(row: Mapping[str, Any], name: str) -> Any:
    value, interval = row.get(name), _number(row.get(f"{name} ci95"))
    return {"value": value, "ci95": interval} if interval is not None else value


def _column(name: str, unit: str, values: Sequence[Any]) -> list[Cell]:
    role = _role(name, unit)
    finite = [abs(number) for value in values if (number := _number(value)) is not None]
    whole = all(number == int(number) for number in finite)
    largest = math.floor(math.log10(max(finite, default=0.0) or 1.0))
    decimals = 1 if largest > 2 else min(4, max(2, 2 - largest))
    tiny = any(0 < number < 10.0**-decimals for number in finite)
    bars = name.lower() in {"precision", "recall", "f1", "accuracy", "share"}

    def text(number: float) -> str:
        if role == "bytes":
            return _bytes(number)
        if role in {"parameters", "macs"} and abs(number) >= 1e6:
            return charts.short(float(f"{number:.4g}"))
        if whole:
            return f"{number:,.0f}"
        return f"{number:.3g}" if tiny else f"{number:,.{decimals}f}"

    cells: list[Cell] = []
    for value in values:
        number = _number(value)
        if number is None:
            said = _plain(cast("Doc", value).get("value") if isinstance(value, dict) else value)
            title = short(said) if name in _OF_CLASSES else said
            cells.append(Cell(title, said if title != said else ""))
            continue
        share = number / (100 if unit == "%" else 1) if bars and number >= 0 else None
        share = share if share is not None and share <= 1 else None
        cells.append(Cell(text(number), f"{number:,.10g}", share, _shown_interval(value, unit).strip()))
    return cells


# ---------------------------------------------------------------------------------------------------------- the outcome


def _facts(report: Doc) -> list[str]:
    """The line under the title: when, how long, with which seed."""
    facts: list[str] = []
    if created := report.get("created"):
        try:
            facts.append(f"{datetime.fromisoformat(str(created)):%d %B %Y, %H:%M}".lstrip("0"))
        except ValueError:
            facts.append(str(created))
    if (wall := _number(report.get("wall_s"))) is not None:
        facts.append(_duration(wall))
    if report.get("seed") is not None:
        facts.append(f"seed {report['seed']}")
    steps: list[Doc] = [s for s in report.get("steps") or [] if s.get("kind") != "observe"]
    if steps:
        facts.append(f"{len(steps)} steps, {sum(bool(s.get('hit')) for s in steps)} from the store")
    return facts


def _status(report: Doc) -> tuple[str, str] | None:
    """What came of the run, and how it is coloured: green only where no target is unmet and every one was judged.

    >>> _status({"status": "finished", "targets": [{"met": True}, {"met": False}]})
    ('finished, 1 of 2 targets unmet', 'bad')
    """
    if report.get("status") is None:
        return None
    verdicts = [target.get("met") for target in report.get("targets") or []]
    text, unmet, unknown = str(report["status"]), verdicts.count(False), verdicts.count(None)
    if text != "finished":
        return text, "bad"
    if unmet:
        return f"{text}, {unmet} of {len(verdicts)} targets unmet", "bad"
    if unknown:
        return f"{text}, {unknown} of {len(verdicts)} targets not measured", "none"
    return (f"{text}, every target met" if verdicts else text), "none" if report.get("warnings") else "ok"


def _target(target: Doc) -> Doc:
    goal, unit = _plain(target.get("goal")), str(target.get("unit") or "")
    if unit == "B":
        return {**target, "goal": _limit(_bytes_in(goal)), "measured": _bytes_in(target.get("measured"))}
    goal = _limit(goal)
    interval = _together_in_a_line(_shown_interval({**target, "value": target.get("measured")}, unit).strip())
    measured = f"{_plain(target.get('measured'))} {interval}".strip()
    return {
        "what": target.get("what", ""),
        "goal": f"{goal}\u00a0{unit}".strip(),
        "measured": measured if measured == _NOTHING else f"{measured}\u00a0{unit}".strip(),
        "met": target.get("met"),
    }


def _limit(goal: str) -> str:
    return _together_in_a_line(goal.replace(">=", "≥").replace("<=", "≤"))


def _bytes_in(value: Any) -> str:
    r"""A number of bytes, or a goal that ends in one, in the unit that the tables have.

    >>> [_bytes_in(value).replace("\u00a0", " ") for value in ("<= 30000", 4200, None)]
    ['<= 30 kB', '4.2 kB', '–']
    """
    sign, _, number = str(value).rpartition(" ")
    try:
        return _together_in_a_line(f"{sign} {_bytes(float(number))}".strip())
    except ValueError:
        return _plain(value)


def _together_in_a_line(text: str) -> str:
    return text.replace(" ", "\u00a0")


def _verdicts(targets: Sequence[Doc]) -> str:
    """How many targets came out how.

    >>> _verdicts([{"met": True}, {"met": None}, {"met": True}])
    '2 met, 1 not run'
    """
    verdicts = ["not run" if t.get("met") is None else "met" if t["met"] else "unmet" for t in targets]
    return ", ".join(f"{n} {verdict}" for verdict in ("met", "unmet", "not run") if (n := verdicts.count(verdict)))


def _flat(tree: Doc) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(cast("Doc", value))
        else:
            yield name, value


def _columns(summary: Doc) -> list[tuple[str, str, Role, list[Any]]]:
    """Each column of the summary: name, unit, role, and its values with their intervals."""
    names = [str(c) for c in summary.get("columns") or []]
    units: Doc = summary.get("units") or {}
    rows = [dict(zip(names, row, strict=False)) for row in summary.get("rows") or []]
    return [
        (name, unit, _role(name, unit), [_with_interval(row, name) for row in rows])
        for name in names[1:]
        for unit in [str(units.get(name, ""))]
    ]


_TOLD = 1.02
"""How many times smaller or larger something has to be to stand at the head of the page."""


def _rows_taken(summary: Doc, steps: Sequence[Doc]) -> Doc:
    """The rows of stages that lead to the run's result, one for each network: one that is judged twice has what either tells."""
    names = {str(step.get("path") or step.get("label") or step["name"]): step for step in steps}
    taken = [step["id"] for step in steps_taken(steps)]
    kept: dict[str, list[Any]] = {}
    rows: list[list[Any]] = summary.get("rows") or []
    for row in rows:
        step = names.get(str(row[0]))
        if step is not None and step["id"] not in taken:
            continue
        same = str((step or {}).get("digest") or row[0])
        before: list[Any] = kept.get(same, row)
        kept[same] = [value if value is not None else again for value, again in zip(before, row, strict=True)]
    return {**summary, "rows": list(kept.values())}


def _tiles(summary: Doc) -> list[Tile]:
    """How many times smaller and faster the last stage is than the first, and how much worse."""
    found: list[tuple[int, Tile]] = []
    columns = _columns(summary)
    paired = {name.removesuffix("drop").strip() for name, _, role, _ in columns if role == "drop"}
    order: list[Role] = ["parameters", "macs", "bytes", "latency", "drop", "accuracy"]
    for name, unit, role, values in columns:
        known = [value for value in values if _number(value) is not None]
        if role not in order or not known:
            continue
        place, first, last = order.index(role), _number(known[0]) or 0.0, _number(known[-1]) or 0.0
        if role == "drop":
            found.append((place, _drop_tile(name, unit, last, known[-1])))
        elif len(known) > 1 and role == "accuracy" and name.removesuffix("accuracy").strip() not in paired:
            scale = 1.0 if unit == "%" or max(first, last) > 1 else 100.0
            note = f"{first * scale:.1f} → {last * scale:.1f} %"
            found.append((place, Tile(_signed((last - first) * scale), f"points, {name}", note)))
        elif role not in {"accuracy", "drop"} and min(first, last) > 0 and max(first / last, last / first) >= _TOLD:
            found.append((place, _ratio_tile(name, unit, role, first, last)))
    return [tile for _, tile in sorted(found, key=lambda pair: pair[0])]


def _signed(value: float) -> str:
    sign = "+" if value > 0.05 else "−" if value < -0.05 else "±"
    return f"{sign}{abs(value):.1f}"


def _drop_tile(name: str, unit: str, drop: float, cell: Any) -> Tile:
    """A paired drop: how far the last stage lies below the first, over the same episodes."""
    note = f"{_shown_interval(cell, unit)}, paired".strip(" ,")
    return Tile(_signed(-drop), f"{unit or 'points'}, {name.removesuffix('drop').strip() or name}", note)


def _ratio_tile(name: str, unit: str, role: Role, first: float, last: float) -> Tile:
    down, up = {"latency": ("faster", "slower"), "bytes": ("smaller", "larger")}.get(role, ("fewer", "more"))
    ratio = max(first / last, last / first)

    def show(value: float) -> str:
        if role == "bytes":
            return _bytes(value)
        return f"{value:.3g} {unit}" if role == "latency" else charts.short(float(f"{value:.3g}"))

    text = f"{ratio:.3g}×" if ratio < 1000 else f"{ratio:,.0f}×"
    return Tile(text, f"{down if first >= last else up}, {name}", f"{show(first)} → {show(last)}")


def _stage_figures(summary: Doc) -> list[Figure]:
    """Accuracy after each stage against size and against each latency."""
    columns = _columns(summary)
    stages = [str(row[0]) for row in summary.get("rows") or []]
    accuracies = [c for c in columns if c[2] == "accuracy" and any(_number(v) is not None for v in c[3])]
    sizes = [c for role in ("bytes", "parameters", "macs") for c in columns if c[2] == role]
    chosen = sizes[:1] + [c for c in columns if c[2] == "latency"]
    if not accuracies:
        return []
    figures: list[Figure] = []
    for name, unit, role, xs in chosen:
        series: dict[str, list[charts.Point]] = {}
        for accuracy, of_accuracy, _, ys in accuracies:
            points = [
                charts.Point(stage, x, y, interval_ends(given, of_accuracy) if isinstance(given, dict) else None)
                for stage, at, given in zip(stages, xs, ys, strict=True)
                if (x := _number(at)) is not None and x > 0 and (y := _number(given)) is not None
            ]
            if points:
                series[accuracy] = points
        if any(len(points) > 1 for points in series.values()):
            x_name = f"{name}, {unit}" if unit and role == "latency" else name
            y_name = f"accuracy, {accuracies[0][1]}" if accuracies[0][1] else "accuracy"
            svg = charts.scatter(series, x_name=f"{x_name} (log)", y_name=y_name, log_x=True)
            figures.append(Figure(svg, f"Accuracy against {name}, after each stage; bars are 95 % intervals"))
    return figures


# ----------------------------------------------------------------------------------------------------------- the recipe


def _field(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and len(cast("Doc", value)) == 1:
        return str(next(iter(cast("Doc", value))))
    return json.dumps(value, ensure_ascii=False)


def _flow(graph: Doc, steps: Sequence[Doc]) -> str:
    watched: dict[str, list[str]] = {}
    for step in steps:
        if step.get("of") is not None:
            watched.setdefault(str(step["of"]), []).append(str(step.get("label") or step["name"]))
    nodes: list[charts.Node] = []
    for node in graph.get("nodes") or []:
        if node.get("observe"):
            continue
        fields: Doc = node.get("fields") or {}
        observed = watched.get(str(node.get("step")), [])
        nodes.append(
            charts.Node(
                id=str(node["id"]),
                name=str(node.get("name") or node["id"]),
                detail=node.get("detail") or ", ".join(f"{key}={_field(value)}" for key, value in fields.items()),
                badge=str(node.get("label") or ""),
                kind=str(node.get("kind_out") or ""),
                note=f"measured: {', '.join(observed)}" if observed else "",
            )
        )
    edges = [charts.Edge(str(a), str(b), kind == "ref") for a, b, kind in graph.get("edges") or []]
    return charts.flow(nodes, edges)


def _unlabelled(step: Doc) -> str:
    """What a step without a label is called: by its mapping, and the branch that it is in."""
    branch: Sequence[str] = step.get("branch") or ()
    name = str(step.get("name") or step["id"])
    return f"{name} of {branch[-1]}" if branch and step.get("of") is None else name


def _outer(step: Doc) -> str | None:
    """The outermost branch that a step is in."""
    branch: Sequence[str] = step.get("branch") or ()
    return branch[0] if branch else None


def _numbered(steps: Iterable[Doc]) -> list[str]:
    """The outermost branches that are numbered from 0 on, as a search has one for each fold of the data.

    >>> _numbered({"branch": [label]} for label in ("cut_0_5", "cut_0_5_fold_0", "cut_0_5_fold_1", "cut_1"))
    ['cut_0_5_fold_0', 'cut_0_5_fold_1']
    """
    labels = dict.fromkeys(label for step in steps if (label := _outer(step)) is not None)
    families: dict[str, dict[int, str]] = {}
    for label in labels:
        if (found := re.fullmatch(r"(.+_)(\d+)", label)) is not None:
            families.setdefault(found[1], {})[int(found[2])] = label
    whole = [family for family in families.values() if len(family) > 1 and {*family} == {*range(len(family))}]
    chosen = {label for family in whole for label in family.values()}
    return [label for label in labels if label in chosen]


def _span(labels: Sequence[str]) -> str:
    """How many branches, from the first to the last."""
    return f"{len(labels)} branches, {labels[0]} to {labels[-1]}" if labels else ""


def _branches_of(graph: Doc, steps: Sequence[Doc]) -> dict[str, str]:
    """Node → the outermost branch it is in; what only observes is left out."""
    outer = {str(step["id"]): branch for step in steps if (branch := _outer(step)) is not None}
    nodes: list[Doc] = graph.get("nodes") or []
    return {
        str(node["id"]): outer[str(node.get("step"))]
        for node in nodes
        if not node.get("observe") and str(node.get("step")) in outer
    }


def _is_large(graph: Doc, steps: Sequence[Doc]) -> bool:
    """Whether branches are too many steps to draw each."""
    return len(_branches_of(graph, steps)) > _MOST_IN_BRANCHES


def _gathered(graph: Doc, steps: Sequence[Doc], numbered: Sequence[str]) -> Doc:
    """The graph of a large search with one node for each branch, and one for all `numbered` ones together."""
    if not _is_large(graph, steps):
        return graph
    branches = _branches_of(graph, steps)
    group = {node: _span(numbered) if branch in numbered else branch for node, branch in branches.items()}
    without = {_outer(step) for step in steps if step.get("failed") and len(step["branch"]) == 1}
    nodes: dict[str, Doc] = {}
    for node in graph["nodes"]:
        name = group.get(str(node["id"]))
        if name is None:
            nodes[str(node["id"])] = node
            continue
        first = {"id": name, "name": name, "label": "", "fields": {}, "kind_out": node["kind_out"], "families": {}}
        made = nodes.setdefault(name, first)
        made["families"][str(node["name"]).partition(".")[0]] = None
        made["count"] = made.get("count", 0) + 1
    for made in nodes.values():
        if "families" in made:
            made["detail"] = ", ".join(made.pop("families"))
            if made["id"] == _span(numbered):
                made["name"], made["detail"] = made["id"].split(", ", 1)
            made["label"] = f"{made['count']} steps" if made["count"] > 1 else ""
            if made["id"] in without:
                made["label"] = "left out"
    ends = [(group.get(str(a), str(a)), group.get(str(b), str(b)), kind) for a, b, kind in graph.get("edges") or []]
    edges = list(dict.fromkeys(edge for edge in ends if edge[0] != edge[1]))
    values = {(a, b) for a, b, kind in edges if kind == "value"}
    return {
        "nodes": list(nodes.values()),
        "edges": [edge for edge in edges if edge[2] != "ref" or edge[:2] not in values],
    }


# ------------------------------------------------------------------------------------------------------------ the steps


def _section(step: Doc, titles: Mapping[str, str]) -> Section:
    title, name = titles[str(step["id"])], str(step.get("name") or "")
    named = title.endswith(name) or title == _unlabelled(step)
    return Section(str(step["id"]), title, "" if named else name, str(step.get("digest") or ""))


def _streams(step: Doc) -> bool:
    """Whether it learnt from a stream, which has a part of the page to itself."""
    return "figures" in (step.get("account") or {})


def _learning(step: Doc, steps: Sequence[Doc], titles: Mapping[str, str]) -> Section:
    """The gap to held-out data, losses and whatever else was logged, by item and by epoch, and what was tried beforehand."""
    section = _section(step, titles)
    if (gap := gap_of(step, steps)) is not None:
        section.tables.append(("Training and held-out data", _view(gap_table(gap))))
    curves: Doc = step.get("curves") or {}
    epochs: Doc = step.get("epochs") or {}
    by_epoch = {"epoch", "epoch_train_loss", *(name for name in curves.get("columns") or [] if name.startswith("val_"))}
    section.figures += _curve_figures(curves, leave_out=by_epoch if epochs.get("rows") else {"epoch"})
    section.figures += _curve_figures(epochs, leave_out=set(curves.get("columns") or []) - by_epoch - {"train_loss"})
    if epochs.get("rows"):
        section.tables.append(("By epoch", _view(epochs)))
    for chart in (step.get("account") or {}).get("charts") or []:
        svg = charts.lines(chart["curves"], x_name=chart["x_name"], y_name=chart["y_name"], log_x=chart["log_x"])
        section.figures.append(Figure(svg, chart["title"]))
    return section


class StreamSection(NamedTuple):
    """What a learner over a stream has to show."""

    section: Section
    alarms: list[str]
    tiles: list[Tile]
    wide: list[Figure]
    tables: list[tuple[str, View]]
    stretches: list[tuple[str, View]]


def _stream(step: Doc, titles: Mapping[str, str]) -> StreamSection | None:
    part = stream_part(step)
    if part is None:
        return None
    return StreamSection(
        section=_section(step, titles),
        alarms=part.alarms,
        tiles=[Tile(*tile) for tile in part.tiles],
        wide=[Figure(*chart) for chart in part.charts],
        tables=[(title, _view(table)) for title, table in part.tables],
        stretches=[(title, _view(table)) for title, table in part.stretches],
    )


def _curve_figures(table: Doc, *, leave_out: set[str]) -> list[Figure]:
    """One chart for the columns that share an axis, over the first column."""
    columns = [str(c) for c in table.get("columns") or []]
    rows: list[Sequence[Any]] = table.get("rows") or []
    if len(rows) < 2:
        return []
    numbers = {name: [_nan(row[k]) for row in rows] for k, name in enumerate(columns)}
    figures: list[Figure] = []
    for y_name, members in _grouped(name for name in columns[1:] if name not in leave_out).items():
        curves = {name: (numbers[columns[0]], numbers[name]) for name in members}
        svg = charts.lines(curves, x_name=columns[0], y_name=y_name)
        figures.append(Figure(svg, f"{', '.join(members)} by {columns[0]}"))
    return figures


def _nan(value: Any) -> float:
    number = _number(value)
    return math.nan if number is None else number


def _grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Columns that share an axis: losses, accuracies, each other one alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        key = "loss" if "loss" in name else "accuracy" if "acc" in name else name
        if key not in {"seconds", "time"}:
            groups.setdefault(key, []).append(name)
    return groups


_Form: TypeAlias = "tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]"
"""Name, columns and units of a table."""


def _form(name: str, table: Doc) -> _Form:
    units = sorted((str(key), str(unit)) for key, unit in (table.get("units") or {}).items())
    return name, tuple(str(column) for column in table["columns"]), tuple(units)


def _tables(step: Doc) -> Iterator[tuple[str, Doc]]:
    yield from ((step.get("report") or {}).get("tables") or {}).items()


def _alike(steps: Sequence[Doc]) -> set[_Form]:
    """Forms in which several steps have a table of one row: these stand in one table."""
    forms = [_form(name, table) for step in steps for name, table in _tables(step) if len(table["rows"]) == 1]
    return {form for form in forms if forms.count(form) > 1}


def _together(steps: Sequence[Doc], titles: Mapping[str, str]) -> list[tuple[str, View]]:
    """One table for all of one form, with a row for each step."""
    found: list[tuple[str, View]] = []
    for form in sorted(_alike(steps)):
        name, columns, units = form
        rows = [
            [titles[str(step["id"])], *table["rows"][0]]
            for step in steps
            for own, table in _tables(step)
            if len(table["rows"]) == 1 and _form(own, table) == form
        ]
        nameless = 1 if all(row[1] == "value" for row in rows) else 0
        merged = {
            "columns": ["step", *columns[nameless:]],
            "rows": [[row[0], *row[1 + nameless :]] for row in rows],
            "units": dict(units),
        }
        found.append((_words(name), _view(merged)))
    return found


def _evidence(step: Doc, titles: Mapping[str, str], alike: set[_Form]) -> Section:
    """Confusion matrices, heat maps, tables, series and pictures of a step's report; not the tables that stand together."""
    section = _section(step, titles)
    report: Doc = step.get("report") or {}
    for name, table in _tables(step):
        if len(table["rows"]) == 1 and _form(name, table) in alike:
            continue
        square = _square(table) if "confusion" in name else None
        if square:
            svg = charts.heat_map(square[1], square[0])
            section.figures.append(Figure(svg, f"{_words(name)}: a row is a true class, shaded by its share"))
        elif shades := _shades(table):
            caption = f"{_words(name)}: all of the {shades[0]}'s against all of the {shades[1]}'s"
            svg = charts.matrix(*shades[2:], row_name=shades[0], column_name=shades[1])
            section.figures.append(Figure(svg, caption))
        elif table.get("rows"):
            section.tables.append(_of_many(_words(name), table))
    for name, series in (report.get("series") or {}).items():
        xs = [_nan(x) for x in series["x"]]
        curves = {key: (xs, [_nan(y) for y in ys]) for key, ys in series["ys"].items()}
        y_name = series.get("y_name") or _words(name)
        section.plots.append(
            Figure(charts.lines(curves, x_name=series.get("x_name") or "", y_name=y_name), _words(name))
        )
    section.pictures = [
        _picture(name, str(uri))
        for name, uri in (report.get("pictures") or {}).items()
        if str(uri).startswith(_PNG) and re.fullmatch(r"[A-Za-z0-9+/=]*", str(uri).removeprefix(_PNG))
    ]
    return section


def _of_many(caption: str, table: Doc) -> tuple[str, View]:
    """A table with its caption; of a very long one the beginning, since a page with thousands of rows takes seconds to open."""
    count = len(table["rows"])
    if count <= _MOST_ROWS:
        return caption, _view(table)
    said = f"{caption} (the first {_MOST_ROWS} of {count:,} rows; all are in report.json)"
    return said, _view({**table, "rows": table["rows"][:_MOST_ROWS]})


def _picture(name: str, uri: str) -> Picture:
    """A picture as drawn: a small one enlarged by a whole factor; ``wrong_1_cat_as_dog`` becomes "cat → dog"."""
    header = base64.b64decode(uri.removeprefix(_PNG)[:32])
    width = int.from_bytes(header[16:20], "big") or 1
    shown = width * max(1, 84 // width)
    example = re.fullmatch(r"(right|wrong)_\d+_(.+)", name)
    if example is None:
        return Picture(uri, _words(name), None, shown)
    return Picture(uri, example[2].replace("_as_", " → ").replace("_", " "), example[1] == "right", shown)


def _words(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def _square(table: Doc) -> tuple[list[str], list[list[float]]] | None:
    """Classes and counts of a confusion matrix, with or without a first column of names."""
    columns: list[Any] = table["columns"]
    rows: list[Sequence[Any]] = table["rows"]
    named = len(columns) == len(rows) + 1
    if not rows or len(rows) > _MOST_CLASSES or not (named or len(columns) == len(rows)):
        return None
    classes = [str(c) for c in (columns[1:] if named else columns)]
    return classes, [[_number(value) or 0.0 for value in (row[1:] if named else row)] for row in rows]


def _shades(table: Doc) -> tuple[str, str, list[list[float]], list[str], list[str]] | None:
    """Of a table of numbers from 0 to 1, whose first column names both sides: their names, the values, rows and columns."""
    columns: list[Any] = table["columns"]
    rows: list[Sequence[Any]] = table["rows"]
    below, divider, across = str(columns[0]).partition(" \\ ") if columns else ("", "", "")
    if not divider or not rows or max(len(rows), len(columns)) > _MOST_CLASSES:
        return None
    values = [[_number(value) for value in row[1:]] for row in rows]
    if any(len(row) != len(columns) - 1 for row in values):
        return None
    if any(value is None or not -0.5 <= value <= 1.001 for row in values for value in row):
        return None
    found = [[value or 0.0 for value in row] for row in values]
    return below, across, found, [str(row[0]) for row in rows], [str(column) for column in columns[1:]]


def _metrics(step: Doc, titles: Mapping[str, str]) -> Section:
    section = _section(step, titles)
    metrics: Doc = (step.get("report") or {}).get("metrics") or {}
    rows = [
        [
            Cell(name),
            Cell(_plain(m.get("value")), repr(m.get("value"))),
            Cell(interval_text(m, str(m.get("unit") or ""))),
            Cell(str(m.get("unit") or "")),
            Cell(_plain(m["n"]) if m.get("n") is not None else ""),
            Cell("measured" if m.get("measured") else ""),
        ]
        for name, m in metrics.items()
    ]
    if rows:
        columns = ["metric", "value", "95 % interval", "unit", "n", ""]
        section.metrics = View(columns, [False, True, True, False, True, False], rows)
    return section


def _steps(steps: Sequence[Doc], titles: Mapping[str, str]) -> list[Doc]:
    return [
        {
            "section": _section(step, titles),
            "observe": step.get("kind") == "observe",
            "kind": step.get("kind_out") or "",
            "hit": bool(step.get("hit")),
            "failed": bool(step.get("failed")),
            "seconds": _duration(seconds) if (seconds := _number(step.get("seconds"))) is not None else _NOTHING,
            "key": str(step.get("key") or _NOTHING),
            "warnings": step.get("warnings") or [],
            "notes": step.get("notes") or [],
        }
        for step in steps
    ]


def _seeds(seeds: Doc | None) -> View | None:
    """Mean and interval over seeds: a table as it is, or name → metric."""
    if not seeds:
        return None
    if "columns" in seeds and "rows" in seeds:
        return _view(seeds)
    rows = [
        [name, _bounded(m, str(m.get("unit") or "")), m.get("unit") or "", _values(m.get("values"))]
        for name, m in (seeds.get("metrics") or {}).items()
    ]
    if not rows:
        return None
    given = ", ".join(str(seed) for seed in seeds.get("seeds") or [])
    return _view({"columns": ["metric", "mean", "unit", f"seeds {given}".strip()], "rows": rows})


def _bounded(metric: Doc, unit: str) -> Doc:
    """A metric for a column of several units: its ends are put in where its own unit bounds them."""
    cell = {name: metric.get(name) for name in ("value", "ci95", "low", "high")}
    ends = interval_ends(cell, unit)
    return cell | {"low": ends[0], "high": ends[1]} if ends and ends != interval_ends(cell) else cell


def _values(values: Sequence[Any] | None) -> str:
    return ", ".join(_plain(value) for value in values or [])

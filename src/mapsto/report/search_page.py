"""What a search came to as one page: the frontier as a picture and a table, which steps earned what, and every trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mapsto.report import charts, page
from mapsto.report.template_environment import environment

__all__ = ["content", "render"]

_MOST_ROWS = 500
"""Trials that are listed, the first ones; ``frontier.json`` has all."""
_MARKS = {
    "complete": "",
    "failed": "failed",
    "stopped": "stopped early",
    "lost": "its worker died",
    "running": "running",
}


def render(outcome: Mapping[str, Any]) -> str:
    """The page, which needs no other file and no network; `outcome` is what ``frontier.json`` holds.

    >>> "<h1>a search" in render({"name": "a search", "objectives": [], "limits": [], "frontier": [], "trials": [], "ablation": [],
    ...                           "importance": {}, "saved": {"steps": 0, "hits": 0, "seconds": 0}, "nearest": None, "warnings": [],
    ...                           "best": None, "holes": []})
    True
    """
    return environment().get_template("search.html.j2").render(**content(outcome))


def content(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows, by the names that its template has for it."""
    saved = outcome["saved"]
    facts = [
        f"{len(outcome['trials'])} trials",
        f"{saved['hits']} of {saved['steps']} steps came from the store, about {saved['seconds']:.0f} s saved",
        *(f"limit: {each['metric']} {each['goal']}" for each in outcome["limits"]),
    ]
    return {
        "name": outcome["name"],
        "facts": facts,
        "warnings": outcome["warnings"],
        "nearest": outcome["nearest"],
        "picture": _picture(outcome),
        "points": _points(outcome) if outcome["frontier"] else None,
        "commands": [
            {"trial": each["trial"], "command": each["command"], "recipe": each["recipe"]}
            for each in outcome["frontier"]
        ],
        "best": outcome["best"],
        "ablation": _ablation(outcome) if outcome["ablation"] else None,
        "importance": _importance(outcome) if outcome["importance"] else None,
        "trials": _trials(outcome),
        "failed": [each for each in outcome["trials"] if each["state"] == "failed"][:20],
    }


def _names(outcome: Mapping[str, Any]) -> list[str]:
    return [str(each["metric"]) for each in outcome["objectives"]]


def _picture(outcome: Mapping[str, Any]) -> page.Figure | None:
    """The frontier among all trials: the first two objectives against each other, or one over the trials."""
    names = _names(outcome)
    done = [each for each in outcome["trials"] if each["state"] == "complete"]
    if not done:
        return None
    on = {each["trial"] for each in outcome["frontier"]}
    if len(names) == 1:
        best = [charts.Point(f"trial {each['number']}", each["number"], each["values"][0]) for each in done]
        return page.Figure(
            charts.scatter({names[0]: best}, x_name="trial", y_name=names[0]), f"{names[0]} of each trial, as they came"
        )
    ends = {
        each["trial"]: _ends(each["metrics"].get(each["resolved"].get(names[0], ""), {}))
        for each in outcome["frontier"]
    }
    front = [_point(each, ends.get(each["number"])) for each in done if each["number"] in on]
    front.sort(key=lambda point: point.x)
    covered = {
        (point.x, point.y) for point in front
    }  # of trials that came to the same only the one of the frontier is drawn
    rest = (_point(each, None) for each in done if each["number"] not in on)
    others = [point for point in rest if (point.x, point.y) not in covered]
    xs = [point.x for point in (*front, *others)]
    log = min(xs) > 0 and max(xs) > 20 * min(xs)
    series = {"frontier": front} if front else {}
    more = {"other trials": others} if others else {}
    svg = charts.scatter({**series, **more}, x_name=names[1], y_name=names[0], log_x=log, joined=1)
    return page.Figure(svg, f"{names[0]} against {names[1]}; bars are 95 % intervals")


def _point(row: Mapping[str, Any], ends: tuple[float, float] | None) -> charts.Point:
    return charts.Point(f"trial {row['number']}", float(row["values"][1]), float(row["values"][0]), ends)


def _ends(metric: Mapping[str, Any]) -> tuple[float, float] | None:
    return (metric["low"], metric["high"]) if "low" in metric and "high" in metric else None


def _points(outcome: Mapping[str, Any]) -> page.View:
    """The points of the frontier: objectives with their intervals, limits' metrics, and holes."""
    names = list(dict.fromkeys([*_names(outcome), *(str(each["metric"]) for each in outcome["limits"])]))
    holes = [
        each["name"]
        for each in outcome["holes"]
        if any(each["name"] in point["holes"] for point in outcome["frontier"])
    ]
    rows: list[list[Any]] = []
    for point in outcome["frontier"]:
        metrics = [point["metrics"].get(point["resolved"].get(name, ""), {}) for name in names]
        rows.append(
            [f"trial {point['trial']}", *map(_metric, metrics), *(_hole(point["holes"].get(name)) for name in holes)]
        )
    return page._view({"columns": ["point", *names, *holes], "rows": rows})


def _metric(metric: Mapping[str, Any]) -> Any:
    if "value" not in metric:
        return None
    ends = {name: metric[name] for name in ("low", "high") if name in metric}
    return {"value": metric["value"], "ci95": None, **ends} if ends else metric["value"]


def _hole(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _ablation(outcome: Mapping[str, Any]) -> page.View:
    names = _names(outcome)
    rows = [
        [each["what"], *(_cells(each["values"], each["differences"], len(names))), f"trial {each['trial']}"]
        for each in outcome["ablation"]
    ]
    columns = [part for name in names for part in (name, f"change of {name}")]
    return page._view({"columns": ["change", *columns, "as"], "rows": rows})


def _cells(values: Sequence[float], differences: Sequence[float], count: int) -> list[Any]:
    if not values:
        return [None, "failed"] * count
    return [part for value, change in zip(values, differences, strict=True) for part in (value, f"{change:+.4g}")]


def _importance(outcome: Mapping[str, Any]) -> page.View:
    rows = [[name, share] for name, share in outcome["importance"].items()]
    return page._view({"columns": ["hole", "share"], "rows": rows})


def _trials(outcome: Mapping[str, Any]) -> page.View:
    names = _names(outcome)
    rows: list[list[Any]] = []
    for each in outcome["trials"][:_MOST_ROWS]:
        values = each["values"] or [None] * len(names)
        holes = ", ".join(f"{name} {_hole(value)}" for name, value in each["holes"].items())
        state = _MARKS[each["state"]] or each["role"]
        rows.append([str(each["number"]), *values, each["seconds"], f"{each['hits']} of {each['steps']}", state, holes])
    return page._view({"columns": ["trial", *names, "seconds", "from the store", "state", "holes"], "rows": rows})

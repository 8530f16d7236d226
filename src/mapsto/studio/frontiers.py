"""The frontier of a search as a page takes it: axes to choose, points to pick, and what each point is worth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from mapsto.errors import DataError
from mapsto.report import build, charts, page, search_page
from mapsto.studio.errors import NotThere
from mapsto.studio.results import Result

__all__ = ["Frontier", "Picked", "frontier_of"]

_AGAIN = "give the --out folder of a search; the same search writes the file again"
_LATENCIES = ("p50", "latency", "mean_ms")


class Picked(NamedTuple):
    """A point of the frontier."""

    trial: int
    holes: list[tuple[str, str]]
    metrics: list[tuple[str, str, str]]
    """Name, value, interval."""
    command: str
    recipe: str
    """Its file, relative to the folder of the search."""
    best: bool


class Frontier:
    """What a search's ``frontier.json`` holds."""

    def __init__(self, outcome: Mapping[str, Any]) -> None:
        self.outcome = outcome
        self.content = search_page.content(outcome)
        self.objectives = [str(each["metric"]) for each in outcome["objectives"]]
        self.points: list[Mapping[str, Any]] = list(outcome["frontier"])
        self.axes = self._axes()

    def chosen_axes(self, x: str, y: str) -> tuple[str, str]:
        """The axes asked for; in place of those that there are not, the objectives. The first is the one across."""
        usual_y = self.objectives[0] if self.objectives else ""
        usual_x = (
            self.objectives[1]
            if len(self.objectives) > 1
            else next((each for each in self.axes if each != usual_y), "")
        )
        return x if x in self.axes else usual_x, y if y in self.axes else usual_y

    def svg(self, x: str, y: str, picked: int | None) -> str:
        """The points of the frontier by two figures, the picked one apart, with the other trials where these were measured of them."""
        front = sorted(
            (point for each in self.points if (point := self._point(each, x, y)) is not None), key=lambda point: point.x
        )
        own = [point for point in front if point.label == f"trial {picked}"]
        series = {"frontier": front, **({"picked": own} if own else {}), "other trials": self._others(x, y)}
        xs = [point.x for points in series.values() for point in points]
        log = bool(xs) and min(xs) > 0 and max(xs) > 20 * min(xs)
        names = {"x_name": f"{x} (log)" if log else x, "y_name": y}
        return charts.scatter({name: kept for name, kept in series.items() if kept}, **names, log_x=log, joined=1)

    def table(self, x: str, y: str) -> tuple[list[str], list[tuple[int, list[page.Cell]]]]:
        """The frontier's points by the axes and the objectives: names of columns, and a row for each trial."""
        names = [*dict.fromkeys([y, x, *self.objectives])]
        rows = [[f"trial {each['trial']}", *(self._cell(each, name) for name in names)] for each in self.points]
        view = page._view(
            {"columns": ["point", *names], "rows": rows, "units": {name: self._unit(name) for name in names}}
        )
        return view.columns[1:], [
            (int(each["trial"]), row[1:]) for each, row in zip(self.points, view.rows, strict=True)
        ]

    def picked(self, trial: int | None) -> Picked | None:
        """A point: the one asked for, else the best. Raises `NotThere` where it is none of the frontier."""
        if trial is None:
            trial = self.outcome["best"] if self.outcome["best"] is not None else None
            if trial is None:
                return None
        for each in self.points:
            if each["trial"] == trial:
                return self._picked(each)
        known = ", ".join(str(each["trial"]) for each in self.points) or "none"
        raise NotThere(f"trial {trial} is no point of the frontier", hint=f"its points are the trials {known}")

    # -- private

    def _axes(self) -> list[str]:
        """Figures by which points can be drawn, measured of all of them: objectives and limits first, then accuracies, latencies, sizes."""
        names = [*self.objectives, *(str(each["metric"]) for each in self.outcome["limits"])]
        counts: dict[str, int] = {}
        for point in self.points:
            stages = _stages(point)
            own = {each for each in point["metrics"] if page._number(point["metrics"][each]) is not None}
            taken = {
                f"{stage}.{each.partition('.')[2]}"
                for stage, real in stages.items()
                for each in own
                if each.startswith(f"{real}.")
            }
            for each in own | taken:
                counts[each] = counts.get(each, 0) + 1
        measured = sorted(name for name, count in counts.items() if count == len(self.points))

        def rank(name: str) -> int:
            last = name.rpartition(".")[2]
            wanted = (("accuracy",), _LATENCIES, ("bytes",), ("macs", "parameters"))
            return next((place for place, these in enumerate(wanted) if last in these), len(wanted))

        judged = {name.partition(".")[0] for name in names}
        measured.sort(key=lambda name: (name.partition(".")[0] not in judged, rank(name)))
        return [*dict.fromkeys([*names, *measured])]

    def _metric(self, point: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        stage, _, rest = name.partition(".")
        real = point["resolved"].get(name) or f"{_stages(point).get(stage, stage)}.{rest}"
        return point["metrics"].get(real) or point["metrics"].get(name) or {}

    def _unit(self, name: str) -> str:
        return next((str(unit) for each in self.points if (unit := self._metric(each, name).get("unit"))), "")

    def _cell(self, point: Mapping[str, Any], name: str) -> Any:
        metric = self._metric(point, name)
        return {"value": metric["value"], "ci95": metric.get("ci95"), **_ends(metric)} if "value" in metric else None

    def _point(self, point: Mapping[str, Any], x: str, y: str) -> charts.Point | None:
        across, up = (page._number(self._metric(point, name)) for name in (x, y))
        if across is None or up is None:
            return None
        ends = _ends(self._metric(point, y))
        return charts.Point(
            f"trial {point['trial']}", across, up, (ends["low"], ends["high"]) if len(ends) == 2 else None
        )

    def _others(self, x: str, y: str) -> list[charts.Point]:
        if x not in self.objectives or y not in self.objectives:
            return []
        at = self.objectives.index(x), self.objectives.index(y)
        on = {each["trial"] for each in self.points}
        done = [each for each in self.outcome["trials"] if each["state"] == "complete" and each["number"] not in on]
        return [
            charts.Point(f"trial {each['number']}", float(each["values"][at[0]]), float(each["values"][at[1]]))
            for each in done
        ]

    def _picked(self, point: Mapping[str, Any]) -> Picked:
        names = [*self.objectives, *point["metrics"]]
        shown = dict.fromkeys(point["resolved"].get(name, name) for name in names)
        metrics: list[tuple[str, str, str]] = []
        for name in shown:
            metric = point["metrics"].get(name, {})
            if page._number(metric) is not None:
                (cell,) = page._column(name, str(metric.get("unit") or ""), [self._cell(point, name)])
                unit = str(metric.get("unit") or "")
                metrics.append((name, cell.text if unit in ("", "B") else f"{cell.text} {unit}", cell.interval))
        return Picked(
            int(point["trial"]),
            [(str(name), search_page._hole(value)) for name, value in point["holes"].items()],
            metrics,
            str(point["command"]),
            str(point["recipe"]),
            point["trial"] == self.outcome["best"],
        )


def frontier_of(result: Result) -> Frontier:
    """The frontier of a search's folder. Raises `DataError` where its file is broken."""
    path = result.folder / "frontier.json"
    found = path.stat()
    return _loaded(path, (found.st_mtime_ns, found.st_size))


@lru_cache(16)
def _loaded(path: Path, version: tuple[int, int]) -> Frontier:
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"not the outcome of a search: {error}", where=str(path), hint=_AGAIN) from error
    schema = cast("Mapping[str, Any]", tree).get("schema") if isinstance(tree, dict) else None
    if schema != 1:
        what = (
            f"schema {schema} was written by a later mapsto"
            if isinstance(schema, int) and schema > 1
            else "not the outcome of a search"
        )
        raise DataError(what, where=str(path), hint=_AGAIN)
    with build.reading(path):
        return Frontier(tree)


def _stages(point: Mapping[str, Any]) -> dict[str, str]:
    """Labels of a recipe's end → the step that stands there in a point, as a step that was left out hands its label on."""
    pairs = ((str(name).partition("."), str(real).partition(".")) for name, real in point["resolved"].items())
    return {name[0]: real[0] for name, real in pairs if name[2] == real[2]}


def _ends(metric: Mapping[str, Any]) -> dict[str, float]:
    return {name: metric[name] for name in ("low", "high") if metric.get(name) is not None}

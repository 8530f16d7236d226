"""Reports of runs as pages take them: read once for as long as the file stays the same."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from mapsto.errors import MapstoError
from mapsto.report import build, page
from mapsto.report.streams import stream_tiles
from mapsto.studio.curves import Chart, charts_of
from mapsto.studio.results import Result

__all__ = ["Headline", "headline", "report_of", "shown", "step_charts", "step_rows"]

_MOST_TILES = 4


class Headline(NamedTuple):
    """A run in a list."""

    result: Result
    title: str
    facts: list[str]
    status: tuple[str, str] | None
    tiles: list[page.Tile]
    stream: bool = False
    """Whether a step of it learnt from a stream."""
    recipe: str = ""
    """The recipe that was named on the command line."""
    error: str = ""
    """Why its report cannot be shown."""


def report_of(result: Result) -> dict[str, Any]:
    """The report of a run. Raises `DataError` where it is broken."""
    path = result.folder / "report.json"
    return _loaded(path, _version(path))


def shown(result: Result) -> dict[str, Any]:
    """What the page of a run shows, by the names of `mapsto.report.page.content`. Raises `DataError` where the report is broken."""
    path = result.folder / "report.json"
    return _content(path, _version(path))


def headline(result: Result) -> Headline:
    """A run's title, facts and a few figures; of a report that is broken, why."""
    path = result.folder / "report.json"
    try:
        return _headline(result, path, _version(path))
    except MapstoError as error:
        return Headline(result, result.folder.name, [], ("cannot be shown", "bad"), [], error=str(error))


def step_charts(report: Mapping[str, Any]) -> list[Chart]:
    """The curves of each step, by item and by epoch."""
    found: list[Chart] = []
    for step in report["steps"]:
        of = name_of(step)
        epochs: Mapping[str, Any] = step.get("epochs") or {}
        columns = [str(name) for name in (step.get("curves") or {}).get("columns") or []]
        by_epoch = {"epoch", "epoch_train_loss", *(name for name in columns if name.startswith("val_"))}
        apart = (
            {name for name in columns if name.startswith("share_")} if page._streams(step) else set[str]()
        )  # drawn together
        left_out = frozenset((by_epoch if epochs.get("rows") else {"epoch"}) | apart)
        found += charts_of(step.get("curves"), prefix=f"step{step['id']}", of=of, leave_out=left_out)
        besides = frozenset(set(columns) - by_epoch - {"train_loss"})
        found += charts_of(epochs or None, prefix=f"epochs{step['id']}", of=of, leave_out=besides)
    return found


def step_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each step with its kind, keys, whether it was a hit, and the steps that it came from."""
    names = {step["id"]: name_of(step) for step in report["steps"]}
    return [
        {
            "id": step["id"],
            "name": names[step["id"]],
            "mapping": str(step.get("name") or ""),
            "observes": names.get(step["of"], "") if step.get("of") is not None else "",
            "kind": str(step.get("kind_out") or ""),
            "hit": bool(step.get("hit")),
            "failed": bool(step.get("failed")),
            "seconds": page._duration(seconds) if (seconds := page._number(step.get("seconds"))) is not None else "–",
            "key": str(step.get("key") or ""),
            "digest": str(step.get("digest") or ""),
            "inputs": [(each, names[each]) for each in dict.fromkeys(step.get("inputs") or ()) if each in names],
            "said": [*(step.get("warnings") or ()), *(step.get("notes") or ())],
        }
        for step in report["steps"]
    ]


def name_of(step: Mapping[str, Any]) -> str:
    """How pages call a step."""
    return str(step.get("path") or step.get("label") or step.get("name") or step["id"])


def _version(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0  # loading it says what is wrong
    return found.st_mtime_ns, found.st_size


@lru_cache(32)
def _loaded(path: Path, version: tuple[int, int]) -> dict[str, Any]:
    return build.load(path)


@lru_cache(16)
def _content(path: Path, version: tuple[int, int]) -> dict[str, Any]:
    report = _loaded(path, version)
    with build.reading(path):
        return page.content(report)


@lru_cache(2000)
def _headline(result: Result, path: Path, version: tuple[int, int]) -> Headline:
    report = build.load(path)
    with build.reading(path):
        tiles = page._tiles(page._rows_taken(report["summary"], report["steps"]))
        streams = [step["account"] for step in report["steps"] if page._streams(step)]
        tiles += [page.Tile(*tile) for account in streams for tile in stream_tiles(account)]
        return Headline(
            result,
            str(report["title"] or report["name"]),
            page._facts(report),
            page._status(report),
            (tiles or _last_row(report["summary"]))[:_MOST_TILES],
            bool(streams),
            str((report.get("command") or {}).get("recipe") or ""),
        )


def _last_row(summary: Mapping[str, Any]) -> list[page.Tile]:
    """Of a run with one stage, what was measured of it."""
    view = page._view(summary) if summary.get("rows") else None
    if view is None:
        return []
    cells = zip(view.columns[1:], view.rows[-1][1:], strict=True)
    return [page.Tile(cell.text, name, cell.interval) for name, cell in cells if cell.text != "–"]

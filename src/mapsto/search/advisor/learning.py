"""From finished runs to the list that advice stands on: of each the task's features, the recipe's holes and what it came to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from mapsto.errors import DataError, MapstoError
from mapsto.recipe.reader import parse_recipe
from mapsto.recipe.yaml_text import read_yaml
from mapsto.report.build import load as load_report
from mapsto.search.advisor import space
from mapsto.search.advisor.advice import Asked, described
from mapsto.search.advisor.features import EVENTS
from mapsto.search.advisor.runs import Outcome, Task
from mapsto.store import Store

__all__ = ["learnt", "outcome_of", "recognised"]


def learnt(folder: Path, *, store: Store | None = None, name: str = "") -> tuple[Task, str, Outcome]:
    """The task, the recipe as one line and the outcome of a run's folder.

    Raises `DataError` where the folder is of no run, or its recipe is none that advice is on: one that was written by ``mapsto advise``,
    and not changed since.
    """
    report = load_report(folder)
    file = folder / "recipe.yaml"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"it holds no recipe.yaml ({error})", where=str(folder), hint="give the --out folder of a run"
        ) from error
    question, holes = recognised(text, where=str(file))
    task, _ = described(question, store=store, name=name)
    return task, space.key_of(holes), outcome_of(report, question.kind, where=str(folder))


def recognised(text: str, *, where: str) -> tuple[Asked, dict[str, str]]:
    """The data and the holes of an advised recipe, by its steps."""
    tree = read_yaml(text, where=where)[1]
    data = cast("dict[str, Any]", tree.get("data") or {}) if isinstance(tree, dict) else {}
    kind, _, line = str(tree.get("title", "")).partition(": ") if isinstance(tree, dict) else ("", "", "")
    known = {space.key_of(holes): holes for holes in (space.recipes(kind) if kind in space.KINDS else [])}
    if line not in known:
        raise _unknown("it is no advised recipe", where)
    question = Asked(kind=cast("space.Kind", kind), data=data)
    try:
        export = kind != "stream" and any("export.onnx" in step for step in tree["steps"])
        again = space.recipe(question.kind, known[line], data, export=export)
        alike = parse_recipe(again, where=where).steps == parse_recipe(text, where=where).steps
    except MapstoError as error:
        raise _unknown(f"it cannot be read: {error}", where) from error
    if not alike:
        raise _unknown("its steps have been changed, so that it is another recipe than its title says", where)
    return question, known[line]


def _unknown(what: str, where: str) -> DataError:
    return DataError(what, where=where, hint="only runs of advised recipes, as they were written, are comparable")


def outcome_of(report: Mapping[str, Any], kind: str, *, where: str) -> Outcome:
    """What a run's report says of its model."""
    found: dict[str, dict[str, Any]] = {}
    for step in report.get("steps", []):
        if step["kind"] == "observe" and step["path"].startswith("model."):
            found[step["label"]] = (step.get("report") or {}).get("metrics", {})
    if kind == "stream":
        step = next((step for step in report["steps"] if step["name"].startswith("online.")), {})
        parts = prequential(step.get("curves") or {}) or _whole(step.get("account") or {})
    else:
        parts = {}
        for part in ("validation", "test"):
            if "accuracy" in found.get(part, {}):
                metric = found[part]["accuracy"]
                parts |= {part: float(metric["value"]), f"{part}_n": int(metric["n"] or 0)}
    if "bytes" not in found.get("size", {}) or not parts:
        raise DataError(
            "the report does not say how often the model is right, or how large it is",
            where=where,
            hint="run the recipe as it was written",
        )
    return Outcome(**parts, bytes=int(found["size"]["bytes"]["value"]))


def _whole(account: Mapping[str, Any]) -> dict[str, Any]:
    """Percent right of a stream that ended before the first row of its record: of all its labels, as ``validation``."""
    accuracy, labels = (account.get("figures") or {}).get("accuracy"), int(account.get("labels") or 0)
    if accuracy is None or not 0 < labels <= EVENTS:
        return {}
    return {"validation": round(float(accuracy), 3), "validation_n": labels}


def prequential(curves: Mapping[str, Any], first: int = EVENTS) -> dict[str, Any]:
    """Percent right of the first events of a stream, ``validation``, and of those after them, ``test``, by a record's rows."""
    rows = curves.get("rows") or []
    if not rows or "accuracy" not in curves.get("columns", []):
        return {}
    step, accuracy = (curves["columns"].index(name) for name in ("step", "accuracy"))
    right, count = {"validation": 0.0, "test": 0.0}, {"validation": 0, "test": 0}
    before = 0
    for row in rows:
        part = "validation" if row[step] <= first else "test"
        right[part] += row[accuracy] * (row[step] - before)
        count[part] += int(row[step] - before)
        before = row[step]
    found: dict[str, Any] = {}
    for part, events in count.items():
        if events:
            found |= {part: round(right[part] / events, 3), f"{part}_n": events}
    return found

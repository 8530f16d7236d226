"""What a run leaves for people and machines: ``report.json``, ``report.html``, ``recipe.yaml`` and the package."""

from __future__ import annotations

import base64
import dataclasses
import math
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from mapsto.atomic import new_folder
from mapsto.errors import DataError
from mapsto.kinds import Package, Report
from mapsto.kinds.canonical import dumps
from mapsto.recipe.goals import goal_of
from mapsto.recipe.writer import dump
from mapsto.report.gaps import gap_metrics
from mapsto.report.streams import stream_metrics
from mapsto.run.result import RunResult, StepResult, path_of
from mapsto.store import disk_error, write_atomically
from mapsto_runtime import __version__
from mapsto_runtime.regular_files import read_file

__all__ = ["build", "combine", "environment", "load", "metrics_of", "options_again", "reading", "save", "t95"]

PACKAGES = (
    *("mapsto", "torch", "lightning-fabric", "numpy", "onnx", "onnxruntime", "scikit-learn", "pydantic"),
    *("openvino", "executorch", "ai-edge-litert", "litert-torch", "nncf", "torchao"),
)


def environment(threads: int | None = None) -> dict[str, Any]:
    """What this machine is: processor, cores, memory, Python and the versions that decide a figure."""
    import psutil

    packages: dict[str, str] = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    packages["mapsto"] = __version__
    torch = sys.modules.get("torch")
    gpu = {"gpu": torch.cuda.get_device_name()} if torch is not None and torch.cuda.is_available() else {}
    return gpu | {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": threads,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
    }


def _processor() -> str:
    """Its name; on a virtual machine that may be a maker's alone, so that family, model and clock stand beside it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        known = dict(re.findall(r"^([a-z A-Z]+?)\s*:\s*(.+)$", info.read_text(encoding="utf-8"), re.MULTILINE))
        if "model name" in known:
            clock = f", {float(known['cpu MHz']) / 1000:.1f} GHz" if "cpu MHz" in known else ""
            kind = f" (family {known['cpu family']}, model {known['model']}{clock})" if "cpu family" in known else ""
            return known["model name"].strip() + kind
    return platform.processor() or platform.machine()


def build(run: RunResult) -> dict[str, Any]:
    """``report.json`` of a run: every metric of every step, unit, CI95, environment, recipe, keys and digests."""
    steps = [_step(run, step) for step in run.steps]
    metrics = metrics_of(steps)
    if not any(step.hit for step in run.steps):
        metrics["run.seconds"] = {"value": round(run.seconds, 2), "unit": "s", "measured": True}
    return {
        "schema": 1,
        "id": run.id,
        "name": run.recipe.name,
        "title": run.recipe.title,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.started)),
        "seed": run.seed,
        "wall_s": round(run.seconds, 3),
        "status": "finished",
        "environment": environment(run.numerics.threads) | {"numerics": dataclasses.asdict(run.numerics)},
        "recipe": {"yaml": dump(run.recipe), "graph": _graph(run.steps)},
        "steps": steps,
        "summary": summary(steps),
        "targets": [_target(target, metrics) for target in run.recipe.targets],
        "warnings": [{"path": path, "text": text} for path, text in run.warnings],
        "notes": [{"path": path, "text": text} for path, text in run.notes],
        "skipped": dict(run.recipe.skipped),
        "seeds": None,
    }


def _step(run: RunResult, step: StepResult) -> dict[str, Any]:
    report: dict[str, Any] | None = None
    if step.kind_out == "Report":
        report = _report(run.store.load(step.digest, measured=step.measured))
    elif step.kind_out == "Package" and step.measured:
        tables = {name: {**table, "measured": True} for name, table in step.measured["tables"].items()}
        report = {"metrics": {}, "tables": tables, "series": {}, "pictures": {}}
    return {
        "id": step.id,
        "name": step.name,
        "label": step.label,
        "path": path_of(run.steps, step),
        "kind": step.kind,
        "of": step.of,
        "inputs": list(step.inputs),
        "branch": list(step.branch),
        "failed": step.status == "failed",
        "fields": step.fields,
        "key": step.key,
        "digest": step.digest,
        "hit": step.hit,
        "seconds": round(step.seconds, 3),
        "kind_out": step.kind_out,
        "report": _with_attached(run, step, report),
        "warnings": list(step.warnings),
        "notes": list(step.notes),
        "comparison": step.comparison,
        "account": step.account,
        "curves": _thinned(step.curves),
        "epochs": _epochs(step.curves),
    }


def _report(value: Report) -> dict[str, Any]:
    return {
        "metrics": {name: dataclasses.asdict(metric) for name, metric in value.metrics.items()},
        "tables": {name: dataclasses.asdict(table) for name, table in value.tables.items()},
        "series": {name: dataclasses.asdict(series) for name, series in value.series.items()},
        "pictures": {
            name: f"data:image/png;base64,{base64.b64encode(data).decode()}" for name, data in value.pictures.items()
        },
    }


def _with_attached(run: RunResult, step: StepResult, report: dict[str, Any] | None) -> dict[str, Any] | None:
    """A step's report, and what the step shows besides its result."""
    if not step.attached:
        return report
    attached = _report(run.store.load(step.attached))
    return {part: {**(report or {}).get(part, {}), **shown} for part, shown in attached.items()}


def _thinned(curves: Mapping[str, Any] | None, at_most: int = 400) -> dict[str, Any] | None:
    """Curves with few enough points to draw; the logs hold them all."""
    if curves is None:
        return None
    rows = curves["rows"]
    stride = max(1, math.ceil(len(rows) / at_most))
    kept = [row for i, row in enumerate(rows) if i % stride == 0 or i == len(rows) - 1]
    return {"columns": curves["columns"], "rows": kept}


def _epochs(curves: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """One row an epoch, of the items that closed one: epoch, train_loss, val_loss and what else was measured then."""
    if curves is None or "epoch" not in curves["columns"]:
        return None
    columns: list[str] = curves["columns"]
    at = {name: i for i, name in enumerate(columns)}
    renamed = {"epoch_train_loss": "train_loss"}
    wanted = [name for name in columns if name in ("epoch", "epoch_train_loss", "lr") or name.startswith("val_")]
    wanted.sort(
        key=lambda name: (
            ("epoch", "epoch_train_loss", "val_loss").index(name)
            if name in ("epoch", "epoch_train_loss", "val_loss")
            else 9
        )
    )
    rows = [[row[at[name]] for name in wanted] for row in curves["rows"] if row[at["epoch"]] is not None]
    return {"columns": [renamed.get(name, name) for name in wanted], "rows": rows}


def _graph(steps: Sequence[StepResult]) -> dict[str, Any]:
    nodes = [
        {
            "id": step.id,
            "label": step.label,
            "name": step.name,
            "kind_out": step.kind_out,
            "fields": step.fields,
            "step": step.id,
            "observe": step.of is not None,
        }
        for step in steps
    ]
    edges: list[list[Any]] = []
    for step in steps:
        if step.of is not None:
            edges.append([step.of, step.id, "observe"])
        for i, source in enumerate(step.inputs):
            if source != step.of:
                edges.append([source, step.id, "value" if i < step.values and step.of is None else "ref"])
    return {"nodes": nodes, "edges": edges}


def metrics_of(steps: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every metric by ``stage.report.metric``; of a learner over a stream, and of a training's gap, by ``stage.figure``."""
    return {
        f"{step['path']}.{name}": metric
        for step in steps
        for name, metric in (
            (step["report"] or {}).get("metrics", {})
            | stream_metrics(step.get("account") or {})
            | gap_metrics(step, steps)
        ).items()
    }


_ORDER = ("parameters", "macs", "bytes", "p50", "accuracy", "worst", "corrupted", "drop")
_SPOILT = frozenset({"worst", "corrupted"})
"""Accuracies on inputs that were moved or spoilt: a report that has one is asked for it, not for the accuracy on clean inputs beside it."""


def summary(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row a stage that has reports, one column a headline metric: the table that people look at first."""
    columns: dict[str, str] = {}
    rows: dict[str, dict[str, Any]] = {}
    for step in steps:
        if step["of"] is None or step["report"] is None:
            continue
        stage, _, report = str(step["path"]).rpartition(".")
        metrics = step["report"]["metrics"]
        for name, metric in metrics.items():
            if (name not in _ORDER and name != report) or (name == "accuracy" and not _SPOILT.isdisjoint(metrics)):
                continue
            column = name if name in ("parameters", "macs", "bytes", report) else f"{report} {name}"
            columns.setdefault(column, metric["unit"])
            rows.setdefault(stage, {})[column] = {"value": metric["value"], **_interval(metric)}
            for candidate, own in _judged(step["report"]) if name == "accuracy" else ():
                rows.setdefault(candidate, {}).setdefault(column, own)
    places = {name: place for place, name in enumerate(_ORDER)}
    order = sorted(columns, key=lambda column: places.get(column.rpartition(" ")[2], len(_ORDER)))
    return {
        "columns": ["stage", *order],
        "rows": [[stage, *(cells.get(column) for column in order)] for stage, cells in rows.items()],
        "units": columns,
    }


def _judged(report: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The accuracy of each candidate that `evaluate.cross_validated` judged, by the candidate's name."""
    table = report["tables"].get("candidates")
    if table is None or tuple(table["columns"]) != ("candidate", "accuracy", "low", "high"):
        return
    for name, value, low, high in table["rows"]:
        yield str(name), {"value": value, "ci95": (high - low) / 2, "low": low, "high": high}


def _target(target: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One line of the targets table; a metric that was not measured in this run is neither met nor missed."""
    meets, bound = goal_of(target["goal"])
    metric = metrics.get(str(target["metric"]))
    value = None if metric is None else float(metric["value"])
    return {
        "what": target["what"],
        "metric": target["metric"],
        "goal": target["goal"],
        "measured": value,
        "unit": "" if metric is None else metric.get("unit", ""),
        **_interval(metric or {}),
        "met": None if value is None else meets(value, bound),
    }


def _interval(metric: Mapping[str, Any]) -> dict[str, Any]:
    """The half-width of a metric's interval, and its ends where they are known."""
    ends = {name: metric[name] for name in ("low", "high") if metric.get(name) is not None}
    return {"ci95": metric.get("ci95"), **ends}


def t95(values: Sequence[float]) -> float | None:
    """Half-width of the 95 % interval of the mean of a few values (Student's t); None for one.

    >>> round(t95([1.0, 2.0, 3.0]), 2)
    2.48
    """
    if len(values) < 2:
        return None
    table = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    factor = table[len(values) - 2] if len(values) - 2 < len(table) else 1.96 + 2.5 / (len(values) - 1)
    return factor * statistics.stdev(values) / math.sqrt(len(values))


def combine(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report of several seeds: the first one's, with every metric's mean and CI95 over seeds, and targets judged on means."""
    first = dict(reports[0])
    pooled: dict[str, dict[str, Any]] = {}
    of_all = [metrics_of(report["steps"]) for report in reports]
    for path, metric in of_all[0].items():
        if any(path not in each for each in of_all):
            continue  # as κ of a stream that one seed answered by chance alone
        values = [each[path]["value"] for each in of_all]
        pooled[path] = {
            "value": statistics.fmean(values),
            "mean": statistics.fmean(values),
            "ci95": t95(values),
            "values": values,
            "unit": metric["unit"],
        }
    first["seeds"] = {"seeds": [report["seed"] for report in reports], "metrics": pooled}
    first["wall_s"] = sum(float(report["wall_s"]) for report in reports)
    first["targets"] = [_target(target, pooled) for target in first["targets"]]
    for part in ("warnings", "notes"):
        first[part] = [
            {**said, "path": f"seed {report['seed']}, {said['path']}"}
            for report in reports
            for said in report.get(part) or []
        ]
    return first


def save(
    report: Mapping[str, Any], out: Path, *, recipe_yaml: str | None = None, package: Package | None = None
) -> None:
    """Write a report's folder; each file appears whole or not at all, and a package replaces the one before at once."""
    from mapsto.report import page

    # names of files may be no UTF-8: a backslash and its code is right in JSON and can be read elsewhere
    texts = {"report.json": f"{dumps(dict(report))}\n", "report.html": page.render(dict(report))}
    for name, text in (texts if recipe_yaml is None else texts | {"recipe.yaml": recipe_yaml}).items():
        write_atomically(out / name, text.encode("utf-8", "backslashreplace"))
    if package is not None:
        save_package(package, out / "package")


def save_package(package: Package, folder: Path) -> None:
    """Copy a package's files into `folder`, which is swapped in whole."""
    try:
        with new_folder(folder) as fresh:
            for name, source in package.files.items():
                write_atomically(fresh / name, Path(source).read_bytes())
            if package.measured:
                tables = {name: dataclasses.asdict(table) for name, table in package.measured.items()}
                write_atomically(fresh / "measured.json", (dumps(tables) + "\n").encode())
    except OSError as error:
        raise disk_error(error, folder) from error


def load(place: Path) -> dict[str, Any]:
    """A ``report.json``, given itself or the folder of a run. Raises `DataError` where there is none, or it is broken."""
    import json

    path = place / "report.json" if place.is_dir() else place
    try:
        tree = json.loads(read_file(path))
    except FileNotFoundError:
        raise DataError("there is no report here", where=str(path), hint="give the --out folder of a run") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"not a report: {error}", where=str(path), hint=_AGAIN) from error
    if not isinstance(tree, dict):
        raise DataError(f"not a report: it holds a {type(tree).__name__}", where=str(path), hint=_AGAIN)
    report = cast("dict[str, Any]", tree)
    schema = report.get("schema")
    if type(schema) is int and schema > 1:
        raise DataError(f"report schema {schema} was written by a later mapsto", where=str(path), hint="upgrade mapsto")
    wrong = [name for name, kind in _PARTS.items() if not isinstance(report.get(name), kind)]
    if schema != 1 or wrong:
        lacking = f"it lacks {', '.join(wrong)}" if wrong else f"its schema is {schema!r}"
        raise DataError(f"not a whole report: {lacking}", where=str(path), hint=_AGAIN)
    return report


@contextmanager
def reading(*places: Path) -> Generator[None]:
    """Within the block what a report lacks is the fault of its file, which somebody has changed. Raises `DataError`."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
        what = f"not a whole report ({type(error).__name__}: {error})"
        raise DataError(what, where=" or ".join(map(str, places)), hint=_AGAIN) from error


_AGAIN = "give the --out folder of a run; running its recipe again writes the report again"
_PARTS: dict[str, Any] = {
    "name": str,
    "title": str,
    "wall_s": (int, float),
    "steps": list,
    "summary": dict,
    "targets": list,
}


def options_again(options: Sequence[str]) -> list[str]:
    """Of a run's options, as its report has them, those that its recipe is run with again: its settings are in the recipe by now.

    >>> options_again(["--quick", "--set", "a.steps=1", "--out", "here", "--store", "kept", "--trust", "mine"])
    ['--store', 'kept', '--trust', 'mine']
    """
    words = iter(options)
    pairs = [(name, next(words, "")) for name in words if name != "--quick"]
    return [word for pair in pairs if pair[0] not in ("--set", "--out") for word in pair]


def compare(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Two reports side by side: one row a metric that either has, with the difference."""
    a, b = metrics_of(left["steps"]), metrics_of(right["steps"])
    rows: list[dict[str, Any]] = []
    for path in dict.fromkeys([*a, *b]):
        first, second = a.get(path), b.get(path)
        left_value, right_value = (None if m is None else float(m["value"]) for m in (first, second))
        difference = None if left_value is None or right_value is None else right_value - left_value
        rows.append(
            {
                "metric": path,
                "a": left_value,
                "b": right_value,
                **{
                    f"{name}_{side}": (metric or {}).get(name)
                    for name in ("ci95", "low", "high")
                    for side, metric in (("a", first), ("b", second))
                },
                "unit": (first or second or {}).get("unit", ""),
                "difference": difference,
            }
        )
    return rows

"""Fills the table of runs that `advisor` stands on: every recipe of a task's kind on every task, each run kept as soon as it is done.

python benchmarks/search/_advisor_table.py
python benchmarks/search/_advisor_table.py --only omniglot --again

The same command goes on where it was stopped; ``--again`` runs what failed once more. Runs of a task share a store, so that what recipes
have in common is computed once; it is removed when the task is done. One process, one thread. What a run took is CPU time without what
was shared.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import common
from _advisor_tasks import Task, data_of, tasks, written

from mapsto import discovery
from mapsto.context import Numerics
from mapsto.data.io.download import cache_folder
from mapsto.errors import MapstoError
from mapsto.recipe.reader import load_recipe
from mapsto.run.executor import execute
from mapsto.run.result import RunResult
from mapsto.search.advisor import features, space
from mapsto.search.advisor.learning import prequential
from mapsto.store import Store

TABLE = common.RESULTS / "trials" / "advisor"


def rows_of(task: Task, folder: Path = TABLE) -> list[dict[str, Any]]:
    """What is there of a task: the last outcome of each recipe of this version of the space."""
    path = folder / f"{task.name}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    found = {space.key_of(row["holes"]): row for row in rows if row["space"] == space.VERSION}
    return list(found.values())


def fill(chosen: Iterable[Task], folder: Path = TABLE, *, again: bool = False, most: int | None = None) -> None:
    """Run what is missing; at most `most` runs of a task."""
    work = cache_folder() / "advisor"
    folder.mkdir(parents=True, exist_ok=True)
    for task in chosen:
        there = {space.key_of(row["holes"]) for row in rows_of(task, folder) if not (again and "error" in row)}
        missing = [holes for holes in space.recipes(task.kind) if space.key_of(holes) not in there][:most]
        if not missing:
            continue
        place = written(task, work / "tasks")
        store = work / "stores" / task.name
        try:
            for holes in missing:
                row = run_of(task, place, holes, store)
                with (folder / f"{task.name}.jsonl").open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row, separators=(",", ":")) + "\n")
                said = row.get("error", f"{row.get('test')} in {row['cpu_s']} s")
                print(f"{time.strftime('%H:%M:%S')} {task.name}: {space.key_of(holes)}: {said}"[:200], flush=True)
        finally:
            shutil.rmtree(store, ignore_errors=True)


def run_of(task: Task, place: Path, holes: dict[str, str], store: Path) -> dict[str, Any]:
    """One run: its outcome, or its error."""
    file = store.parent / f"{task.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(space.recipe(task.kind, holes, data_of(task, place)), encoding="utf-8")
    row: dict[str, Any] = {"space": space.VERSION, "holes": holes}
    began = time.process_time()
    try:
        run = execute(load_recipe(file), store=store, numerics=Numerics(threads=1))
        row |= stream_outcome(run) if task.kind == "stream" else outcome(run)
    except (MapstoError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        row["error"] = f"{type(error).__name__}: {error}".replace(str(place), task.name)[:300]
    row["cpu_s"] = round(time.process_time() - began, 2)
    return row


def features_of(task: Task, folder: Path = TABLE) -> dict[str, Any] | None:
    """The features that are kept of a task; None where they have not been computed yet."""
    path = folder / "features.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    known = [row for row in rows if row["task"] == task.name and row["version"] == features.VERSION]
    return known[-1] if known else None


def fill_features(chosen: Iterable[Task], folder: Path = TABLE) -> None:
    """Compute the features that are missing, of what is learnt from alone."""
    work = cache_folder() / "advisor"
    folder.mkdir(parents=True, exist_ok=True)
    for task in chosen:
        if features_of(task, folder) is not None:
            continue
        node = data_of(task, written(task, work / "tasks"))
        began = time.process_time()
        ((name, fields),) = node["events" if task.kind == "stream" else "examples"].items()
        if task.kind == "stream":
            source = discovery.find("streams", name)(**fields)
            found = features.of_stream(source)
        else:
            source = discovery.find("data", name)(**fields)
            found = features.of_dataset(source, task.kind, store=Store(work / "stores" / "features"), train=True)
        row = {
            "task": task.name,
            "version": features.VERSION,
            "id": features.task_id(source.fingerprint()),
            "values": {key: float(f"{value:.6g}") for key, value in found.values.items()},
            "missing": dict(found.missing),
            "cpu_s": round(time.process_time() - began, 2),
        }
        with (folder / "features.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, separators=(",", ":")) + "\n")
        print(f"{time.strftime('%H:%M:%S')} {task.name}: {len(found.values)} features in {row['cpu_s']} s", flush=True)


def outcome(run: RunResult) -> dict[str, Any]:
    """Percent right of the validation and of the test examples, how many these are, and what the model takes."""
    found: dict[str, Any] = {}
    for part in ("validation", "test"):
        metric = run.report(f"model.{part}").metrics["accuracy"]
        found |= {part: round(metric.value, 3), f"{part}_n": metric.n}
    return found | size_of(run)


def stream_outcome(run: RunResult) -> dict[str, Any]:
    """Percent right of the first events and of those after them, each answered before it was learnt."""
    curves = next(step.curves for step in run.steps if step.name.startswith("online.")) or {}
    return prequential(curves) | size_of(run)


def size_of(run: RunResult) -> dict[str, Any]:
    metrics = run.report("model.size").metrics
    return {name: int(metrics[name].value) for name in ("bytes", "parameters", "macs") if name in metrics}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="tasks whose name holds this")
    parser.add_argument("--again", action="store_true", help="run once more what failed")
    parser.add_argument("--most", type=int, default=None, help="runs of a task at most")
    parser.add_argument("--features", action="store_true", help="only the features of the tasks")
    given = parser.parse_args()
    if given.features:
        fill_features([task for task in tasks() if given.only in task.name])
        return
    fill([task for task in tasks() if given.only in task.name], again=given.again, most=given.most)


if __name__ == "__main__":
    main()

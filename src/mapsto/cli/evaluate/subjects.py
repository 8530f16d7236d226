"""What is evaluated: packages, given themselves or by the run that made them, with what the run's record tells of their making."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mapsto.cli.evaluate.exported import package_of_run
from mapsto.errors import DataError, SpecError
from mapsto.report.steps_taken import steps_taken
from mapsto_runtime.answer_rows import package_folder
from mapsto_runtime.predictor import Predictor

__all__ = [
    "TRAINING",
    "Subject",
    "fingerprint_of",
    "found",
    "require_one_kind",
    "same_recipe",
    "size_of",
    "training_of",
]

Doc = dict[str, Any]

TRAINING = ("train", "meta", "adapt", "distill", "prune", "quantize", "semi", "online")
"""Families of mappings whose steps are what a network's making costs."""


@dataclass(kw_only=True)
class Subject:
    """A package that is evaluated."""

    name: str
    folder: Path
    """Of the package."""
    run: Path
    """The folder that its card goes to: the run's, or the one that the package is in."""
    predictor: Predictor
    report: Doc | None
    """The run's ``report.json``."""
    notes: list[str] = field(default_factory=list[str])


def found(places: Sequence[Path], store: str | None = None) -> list[Subject]:
    """The packages behind paths, each with a name of its own; of a run without one what it made last, from its store.

    Raises
    ------
    DataError
        There is no package, nor a run that made one.
    StoreError, TrustError
        A package is damaged, or is not what was exported.
    """
    subjects: list[Subject] = []
    for place in places:
        folder, notes = package_folder(place), list[str]()
        run = place if folder != place else place.parent
        if not (folder / "manifest.json").is_file():
            folder, said = package_of_run(place, store)
            run, notes = place, [said]
        title = place.parent.name if place.name == "package" and place.parent.name else place.name or str(place)
        names = [subject.name for subject in subjects]
        number = next(n for n in range(1, len(places) + 2) if (f"{title} {n}" if n > 1 else title) not in names)
        subjects.append(
            Subject(
                name=f"{title} {number}" if number > 1 else title,
                folder=folder,
                run=run,
                predictor=Predictor(folder),
                report=_report_of(run, folder, notes),
                notes=notes,
            )
        )
    return subjects


def _report_of(run: Path, folder: Path, notes: list[str]) -> Doc | None:
    """The report of the run that a package lies in; None where there is none, or it is broken, which is noted."""
    from mapsto.report import build as reports

    if folder.name != "package" or not (run / "report.json").is_file():
        return None
    try:
        return reports.load(run)
    except DataError as error:
        notes.append(f"what the run tells of its training is passed over: {error}")
        return None


def same_recipe(subjects: Sequence[Subject]) -> list[int] | None:
    """The seeds of several runs of one recipe, all different; None where they are not that."""
    reports = [subject.report for subject in subjects]
    if len(subjects) < 2 or any(report is None for report in reports):
        return None
    recipes = {_without_seed(str(report["recipe"]["yaml"])) for report in reports if report is not None}
    seeds = [int(report["seed"]) for report in reports if report is not None]
    return seeds if len(recipes) == 1 and len(set(seeds)) == len(seeds) else None


def _without_seed(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("seed:"))


def size_of(subject: Subject) -> Doc:
    """Bytes of the package, of the file that answers, and what its manifest says of its parameters and multiply-accumulates."""
    checked, tree = subject.predictor.checked, subject.predictor.manifest
    bytes_of = {name: path.stat().st_size for name, path in checked.files.items()}
    bytes_of["manifest.json"] = (subject.folder / "manifest.json").stat().st_size
    model = Path(checked.model)
    same = {name for name in bytes_of if Path(name).parent == model.parent and Path(name).stem == model.stem}
    found: Doc = {
        "package_bytes": sum(bytes_of.values()),
        "model_bytes": sum(bytes_of[name] for name in same),
        "files": dict(sorted(bytes_of.items(), key=lambda item: -item[1])[:12]),
    }
    for name in ("parameters", "macs"):
        if isinstance(tree.get(name), int):
            found[name] = tree[name]
    return found


def training_of(subject: Subject) -> Doc | None:
    """What making it cost and came to, by the run's own record; None without one."""
    report = subject.report
    if report is None:
        return None
    steps: list[Doc] = [step for step in report["steps"] if str(step["name"]).partition(".")[0] in TRAINING]
    ran = [step for step in steps if not step["hit"]]
    taken = [step for step in steps_taken(report["steps"]) if step in steps]
    losses = _losses(taken)
    environment: Doc = report.get("environment") or {}
    return {
        "wall_s": report["wall_s"],
        "seed": report["seed"],
        "recipe": report["name"],
        "steps": [
            {"step": step["path"], "mapping": step["name"], "seconds": step["seconds"], "from_store": step["hit"]}
            for step in steps
        ],
        "seconds": round(sum(float(step["seconds"]) for step in ran), 3),
        "from_store": len(steps) - len(ran),
        "threads": environment.get("threads"),
        "cpu": environment.get("cpu"),
        "gap": _gap(taken, report["steps"], losses),
        "losses": losses,
        "peak_memory": _peak_memory(report),
        "seeds": _seeds(report),
    }


def _gap(steps: Sequence[Mapping[str, Any]], every: Sequence[Doc], losses: Doc | None) -> Doc | None:
    """How much better the last step that tells of it is on its own examples than on others; else by its last losses."""
    from mapsto.report.gaps import Gap, gap_of

    for step in reversed(steps):
        gap = gap_of(step, every)
        if gap is not None:
            return {
                "step": step["path"],
                **dataclasses.asdict(gap),
                "size": gap.size,
                "unit": gap.unit,
                "text": str(gap),
            }
    if losses is None:
        return None
    last = Gap("loss", losses["train_loss"][-1], losses["val_loss"][-1], None, "the validation data")
    return {"step": losses["step"], **dataclasses.asdict(last), "size": last.size, "unit": "", "text": str(last)}


def _losses(steps: Sequence[Mapping[str, Any]]) -> Doc | None:
    """Loss on training and validation samples by epoch, of the last step that has both."""
    wanted = ("epoch", "train_loss", "val_loss")
    for step in reversed(steps):
        epochs: Doc = step.get("epochs") or {}
        columns: list[str] = epochs.get("columns") or []
        if not set(wanted) <= set(columns):
            continue
        rows = [dict(zip(columns, row, strict=True)) for row in epochs["rows"]]
        rows = [row for row in rows if row["train_loss"] is not None and row["val_loss"] is not None]
        if rows:
            return {"step": step["path"], **{name: [row[name] for row in rows] for name in wanted}}
    return None


def _peak_memory(report: Doc) -> float | None:
    """The most that a step measured while it trained, in bytes."""
    found = [
        float(metric["value"])
        for step in report["steps"]
        if step.get("report") and str(step["name"]).startswith("train")
        for name, metric in step["report"]["metrics"].items()
        if name == "peak_memory"
    ]
    return max(found, default=None)


def _seeds(report: Doc) -> Doc | None:
    """The spread over seeds of a run of several."""
    seeds: Doc | None = report.get("seeds")
    if not seeds:
        return None
    metrics = {name: each for name, each in seeds["metrics"].items() if each.get("unit") == "%" or "accuracy" in name}
    return {"seeds": seeds["seeds"], "metrics": metrics}


def fingerprint_of(subject: Subject) -> str:
    """One digest of all of the package's files, by the hashes in its manifest."""
    import hashlib

    files = subject.predictor.manifest["files"]
    return hashlib.sha256(json.dumps({name: files[name]["sha256"] for name in sorted(files)}).encode()).hexdigest()


def require_one_kind(subjects: Sequence[Subject]) -> None:
    """Raises `SpecError` where packages answer with different things, whose figures cannot stand in one table."""
    kinds = {subject.name: subject.predictor.signature.answers for subject in subjects}
    kinds = {
        name: kind if subject.predictor.signature.classes is not None else "embeddings"
        for (name, kind), subject in zip(kinds.items(), subjects, strict=True)
    }
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
        raise SpecError(
            f"the packages answer with different things ({told})",
            where="mapsto evaluate",
            hint="evaluate them one by one",
        )

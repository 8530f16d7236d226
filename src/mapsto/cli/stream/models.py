"""The model that ``mapsto stream --from`` names: of a run's folder, of a run in the store, or by its digest, now or at an earlier event."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapsto.cli.stream.names import slug
from mapsto.errors import DataError, SpecError, StoreError, command, nearest
from mapsto.kinds import Model
from mapsto.report import build as reports
from mapsto.store import Store
from mapsto_runtime.answer_rows import package_folder
from mapsto_runtime.signed_package import Trust, verified

__all__ = ["Snapshot", "model_of", "snapshots"]


@dataclass(frozen=True)
class Snapshot:
    """What a learner had come to."""

    events: int
    digest: str
    time: float
    """Seconds of the epoch; 0 where it is not known."""
    is_end: bool
    """Whether it is what the run came to, and not one on its way."""


def model_of(text: str, store: Store) -> tuple[Model, str]:
    """The model and its digest. ``RUN@EVENTS`` is the last that was kept at or before that event; a package's folder is its model.

    Raises
    ------
    SpecError, DataError, StoreError
        There is none of that name, or it is no model.
    """
    packaged = _of_package(Path(text))
    if packaged is not None:
        return packaged
    name, sign, events = text.rpartition("@")
    if sign and events.replace("_", "").isdigit() and not Path(text).exists():
        found = [each for each in snapshots(name, store) if each.events <= int(events)]
        if not found:
            kept = ", ".join(f"{each.events}" for each in snapshots(name, store)[:10])
            raise SpecError(f"no snapshot was kept up to event {events}", where=name, hint=f"kept: {kept or 'none'}")
        digest = found[-1].digest
    elif re.fullmatch(r"[0-9a-f]{8,64}", text) and not Path(text).exists():
        digest = _whole(text, store)
    else:
        digest = snapshots(text, store)[-1].digest
    value = store.load(digest)
    if not isinstance(value, Model):
        raise DataError(
            f"this is a {type(value).__name__}, not what an online learner has learnt",
            where=text,
            hint="give the --out folder of a stream's run",
        )
    return value, digest


def _of_package(place: Path) -> tuple[Model, str] | None:
    """The model of a package for hosts with mapsto, or of the run that made one; None where there is no package."""
    folder = package_folder(place)
    if not (folder / "manifest.json").is_file():
        return None
    package = verified(folder, Trust.of())
    manifest = package.manifest()
    if manifest.runtime != "mapsto":
        raise DataError(
            f"this package is for {manifest.runtime} and holds no model of mapsto",
            where=str(folder),
            hint=f"answer with `{command('mapsto predict {folder} FILE', folder=folder)}`, or export the model with export.mapsto",
        )
    from mapsto.nn.online.model_files import loaded

    return loaded(manifest.files), str(manifest.tree["files"][manifest.model]["sha256"])


def snapshots(name: str, store: Store) -> list[Snapshot]:
    """What a run, a folder or a name in the store, has kept, the earliest first; runs that went on from one another are one."""
    key, runs = _runs(name, store)
    found: dict[int, Snapshot] = {}
    for run in runs:
        step = next(step for step in run["steps"] if step["key"] == key)
        for each in run.get("published", ()):
            found[int(each["n"])] = Snapshot(int(each["n"]), each["digest"], float(each["time"]), False)
        if step["digest"]:
            try:
                value = store.load(step["digest"])
            except StoreError:  # that artifact went with its record; the snapshots may be there
                continue
            if isinstance(value, Model):
                ended = float(run["started"]) + float(run["seconds"])
                found[value.events] = Snapshot(value.events, step["digest"], ended, True)
    if not found:
        raise DataError(
            "no model was kept of this run",
            where=name,
            hint="let it come to its end, stop it with Ctrl-C, or keep some on the way with --publish-every",
        )
    return [found[events] for events in sorted(found)]


def _runs(name: str, store: Store) -> tuple[str, list[dict[str, Any]]]:
    """The key of the learner's step, and the runs that worked on it, oldest first."""
    key, title = "", slug(Path(name).name)
    if (Path(name) / "report.json").is_file():
        report = reports.load(Path(name))
        with reports.reading(Path(name)):
            key, title = str(report["steps"][-1]["key"]), str(report["name"])
    runs = list(store.runs())
    if not key:
        key = next((str(_last(run)) for run in reversed(runs) if run["name"] == title and _last(run)), "")
    chosen = [run for run in runs if any(step["key"] == key for step in run["steps"])]
    if not key or not chosen:
        names = dict.fromkeys(str(run["name"]) for run in runs)
        if Path(name).exists():
            raise DataError(
                f"the store {store.root} knows no run of it", where=name, hint="give the --store of its run"
            )
        raise DataError("there is no such run, folder or model", where=name, hint=nearest(title, names, most=10))
    return key, chosen


def _last(run: dict[str, Any]) -> str | None:
    """The key of a run's last step, of what an online learner did; None where it did something else."""
    steps = [step for step in run["steps"] if step["kind"] == "step"]
    return steps[-1]["key"] if steps and str(steps[-1]["name"]).startswith("online.") else None


def _whole(prefix: str, store: Store) -> str:
    """The digest of an artifact by its first letters."""
    known = {digest for digest in _digests(store) if digest.startswith(prefix)}
    if len(known) != 1:
        what = "there is no artifact of that digest" if not known else f"{len(known)} artifacts begin with it"
        raise DataError(what, where=prefix, hint=f"`{command('mapsto store ls')}` lists them; give more of its letters")
    return known.pop()


def _digests(store: Store) -> Iterator[str]:
    for run in store.runs():
        yield from (step["digest"] for step in run["steps"] if step["digest"])
        yield from (each["digest"] for each in run.get("published", ()))
    yield from (record.digest for record in store.records())

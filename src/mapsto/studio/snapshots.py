"""What a learner over a stream had come to on its way: the versions that its run kept in the store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mapsto.errors import StoreError
from mapsto.store import Store

__all__ = ["Kept", "kept"]


class Kept(NamedTuple):
    """A version of a learner."""

    events: int
    time: float | None
    """Seconds of the epoch; None where it is not known."""
    digest: str
    name: str
    """By which ``mapsto stream --from`` takes it."""


def kept(report: Mapping[str, Any], folder: Path, store: str | None) -> tuple[list[Kept], str]:
    """The versions of the learner of a report, the earliest first; and why there are no others, or nothing."""
    step = next((each for each in reversed(report["steps"]) if "figures" in (each.get("account") or {})), None)
    if step is None:
        return [], ""
    found: dict[int, Kept] = {}
    said = ""
    try:
        place = Store(store)
        runs = [run for run in place.runs() if any(each["key"] == step["key"] for each in run.get("steps", ()))]
        for run in runs:
            for each in run.get("published", ()):
                events = int(each["n"])
                found[events] = Kept(events, float(each["time"]), str(each["digest"]), f"{folder}@{events}")
        if not runs:
            said = (
                f"the store {place.url or place.root} knows no run of it; the studio, started with the --store of that run, "
                "shows what it kept on the way"
            )
    except StoreError as error:
        said = str(error)
    end = int(step["account"]["events"])
    found[end] = Kept(end, found[end].time if end in found else None, str(step["digest"]), str(folder))
    return [found[events] for events in sorted(found)], said

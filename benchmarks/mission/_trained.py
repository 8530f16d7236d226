"""The recipe `whole` in a process of its own, on a store of its own: its report, minutes of the clock and of the CPU."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from _recording import Recording

__all__ = ["MAPSTO", "environment", "trained"]

MAPSTO = [sys.executable, "-m", "mapsto"]


def environment(place: Path) -> dict[str, str]:
    """That of a user who has set nothing, but for where steps are stored."""
    left_out = ("OMP_NUM_THREADS", "MAPSTO_THREADS")
    return {name: value for name, value in os.environ.items() if name not in left_out} | {
        "MAPSTO_STORE": str(place / "store")
    }


def trained(place: Path, recording: Recording, *, quick: bool) -> dict[str, Any]:
    """Figures of each labelled step, and what the run took; from the file of an earlier call where there is one."""
    kept = place / "trained.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    for folder in ("store", "run"):
        shutil.rmtree(place / folder, ignore_errors=True)
    options = ["--quick"] if quick else []
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    recording.command(
        " ".join(["mapsto run whole", *options, "--out run"]),
        [*MAPSTO, "run", "whole", *options, "--out", "run"], folder=place, environment=environment(place),
    )  # fmt: skip
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads((place / "run" / "report.json").read_text(encoding="utf-8"))
    figures = {
        step["path"]: {name: metric["value"] for name, metric in step["report"]["metrics"].items()}
        for step in report["steps"]
        if step["report"]
    }
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {"seconds": seconds, "CPU seconds": spent, "figures": figures}
    kept.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found

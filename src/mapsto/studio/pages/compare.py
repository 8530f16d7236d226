"""Two runs side by side: the lines of their recipes that differ, and their figures with the differences."""

from __future__ import annotations

import difflib
from typing import Any

from fastapi import APIRouter, Request, Response

from mapsto.report import build
from mapsto.studio.pages.runs import folders_of
from mapsto.studio.reports import headline, report_of
from mapsto.studio.results import Result
from mapsto.studio.site import Page, render

__all__ = ["PAGE"]

router = APIRouter()
PAGE = Page(router=router, title="Compare", path="/compare")


@router.get("/compare")
def compared(request: Request, a: str = "", b: str = "") -> Response:
    """Two runs, chosen by a form."""
    folders = folders_of(request)
    runs = [each for each in folders.find() if each.kind == "run"]
    chosen = [folders.get(place, "run") for place in (a, b) if place]
    both = _both(*chosen) if len(chosen) == 2 else None
    names = [f"{each.place}" for each in runs]
    return render(
        request, "compare.html.j2", title="Two runs side by side", places=names, a=a, b=b, both=both,
    )  # fmt: skip


def _both(left: Result, right: Result) -> dict[str, Any]:
    reports = [report_of(left), report_of(right)]
    with build.reading(left.folder, right.folder):
        rows = build.compare(*reports)
        texts = [str((report.get("recipe") or {}).get("yaml") or "") for report in reports]
        versions = [
            str(((report.get("environment") or {}).get("packages") or {}).get("mapsto", "")) for report in reports
        ]
        numerics = [(report.get("environment") or {}).get("numerics") for report in reports]
    notes: list[str] = []
    if versions[0] != versions[1]:
        notes.append(f"made by different versions of mapsto: {versions[0] or 'unknown'} and {versions[1] or 'unknown'}")
    if reports[0].get("seed") != reports[1].get("seed"):
        notes.append(f"of different seeds: {reports[0].get('seed')} and {reports[1].get('seed')}")
    if numerics[0] != numerics[1]:
        notes.append("computed with different numerics (device, precision or threads)")
    if not any(row["a"] is not None and row["b"] is not None for row in rows):
        notes.append("no figure was measured in both")
    return {
        "heads": [headline(left), headline(right)],
        "notes": notes,
        "lines": _lines(*texts),
        "rows": [row for row in rows if not _same(row)],
        "same": [row for row in rows if _same(row)],
    }


def _same(row: dict[str, Any]) -> bool:
    return row["difference"] == 0


def _lines(left: str, right: str) -> list[tuple[str, str]]:
    """The lines that differ, with what stands around them: `-` of the first alone, `+` of the second, `@` a gap."""
    found: list[tuple[str, str]] = []
    for line in difflib.unified_diff(left.splitlines(), right.splitlines(), lineterm="", n=2):
        if line.startswith(("---", "+++")) and len(found) < 2 and line[3:].strip() == "":
            continue
        found.append(("@", "") if line.startswith("@@") else (line[:1], line[1:]))
    return found[1:] if found and found[0][0] == "@" else found

"""The runs of the folders, newest first, and a page for each: its recipe, steps, curves and figures, also while it is running."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from mapsto.report import build, page
from mapsto.studio.errors import NotThere
from mapsto.studio.reports import headline, report_of, shown, step_charts, step_rows
from mapsto.studio.results import Result
from mapsto.studio.site import Page, render, studio_of
from mapsto.studio.snapshots import kept
from mapsto.studio.unfinished import progress
from mapsto_runtime.shown import short

__all__ = ["PAGE", "folders_of"]

router = APIRouter()
PAGE = Page(router=router, title="Runs", path="/")

_MOST_LISTED = 200
_FILES = {"report.html": "text/html", "report.json": "application/json", "recipe.yaml": "application/yaml"}


def folders_of(request: Request) -> Any:
    """The folders of a studio that has some."""
    return studio_of(request).folders


@router.get("/")
def listed(request: Request) -> Response:
    """Every run, and the searches below them."""
    results = folders_of(request).find()
    runs = [each for each in results if each.kind != "search"]
    return render(
        request,
        "runs.html.j2",
        title="Runs",
        running=[(each, progress(each)) for each in runs if each.kind == "unfinished"],
        runs=[headline(each) for each in runs if each.kind == "run"][:_MOST_LISTED],
        more=max(0, sum(each.kind == "run" for each in runs) - _MOST_LISTED),
        searches=[each for each in results if each.kind == "search"],
        folders=folders_of(request).roots,
    )


@router.get("/run/{place:path}")
def one(request: Request, place: str) -> Response:
    """A run; of one that has not come to its end, what its logs hold."""
    result = folders_of(request).get(place, "unfinished", "run")
    if result.kind == "unfinished":
        return render(
            request, "running.html.j2", title=result.folder.name, result=result, progress=progress(result),
            finished=(result.folder / "report.json").is_file(),
        )  # fmt: skip
    content = shown(result)
    report = report_of(result)
    with build.reading(result.folder):
        own: dict[str, Any] = {
            "charts": step_charts(report),
            "steps": step_rows(report),
            "kept": kept(report, result.folder, studio_of(request).store),
        }
    return render(
        request,
        "run.html.j2",
        **(content | own),
        result=result,
        files=[name for name in _FILES if (result.folder / name).is_file()],
        package=_package(result),
        seeds_below=sorted(each.name for each in result.folder.glob("seed-*") if (each / "report.json").is_file()),
        frontier=(result.folder / "frontier.json").is_file(),
    )


@router.get("/curves/{place:path}")
def numbers(request: Request, place: str) -> dict[str, Any]:
    """The curves of a run as JSON, for the script that makes its charts interactive and follows a run."""
    result = folders_of(request).get(place, "unfinished", "run")
    if result.kind == "run":
        with build.reading(result.folder):
            charts = [each.plain() for each in step_charts(report_of(result))]
        return {"state": "finished", "said": "", "steps": [], "charts": charts}
    now = progress(result)
    return {"state": now.state, "said": now.said, "steps": now.steps, "charts": [each.plain() for each in now.charts]}


@router.get("/file/{name}/{place:path}")
def file(request: Request, name: str, place: str) -> Response:
    """The report's page, its JSON, or the recipe of a run."""
    result = folders_of(request).get(place, "run")
    path = folders_of(request).path(f"{place}/{name}")
    if name not in _FILES or not path.is_file():
        raise NotThere(
            f"this run has no file '{short(name)}'", where=short(place, 80), hint=f"there may be {', '.join(_FILES)}"
        )
    headers = {"content-security-policy": _OF_REPORTS}
    if name != "report.html":
        headers["content-disposition"] = f'attachment; filename="{name}"'
    return FileResponse(result.folder / name, media_type=_FILES[name], headers=headers)


_OF_REPORTS = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{page.script_hash()}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""A report may be somebody else's: it is shown as of another origin, runs no script but that of mapsto's reports, and loads nothing."""


@router.get("/package/{place:path}")
def package(request: Request, place: str) -> Response:
    """The package of a run, as a ZIP archive."""
    result = folders_of(request).get(place, "run", "search")
    if _package(result) is None:
        raise NotThere(
            "this run made no package", where=short(place, 80), hint="a recipe that ends in export.onnx makes one"
        )
    made = Path(tempfile.mkdtemp(prefix="mapsto-studio-"))
    archive = shutil.make_archive(str(made / "package"), "zip", result.folder / "package")
    return FileResponse(
        archive,
        media_type="application/zip",
        filename=f"{result.folder.name}.zip",
        background=BackgroundTask(shutil.rmtree, made),
    )


def _package(result: Result) -> dict[str, Any] | None:
    """How many files a run's package has, and how many bytes; None where there is none."""
    folder = result.folder / "package"
    if not (folder / "manifest.json").is_file():
        return None
    files = [each for each in folder.rglob("*") if each.is_file()]
    return {"files": len(files), "bytes": sum(each.stat().st_size for each in files)}

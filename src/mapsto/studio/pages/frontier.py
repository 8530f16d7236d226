"""Searches, and a page for the frontier of each: axes to choose, a point to pick, its recipe, its command and its package."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from mapsto.errors import MapstoError
from mapsto.studio.errors import NotThere
from mapsto.studio.frontiers import Picked, frontier_of
from mapsto.studio.pages.runs import folders_of
from mapsto.studio.reports import headline
from mapsto.studio.results import Folders, Result
from mapsto.studio.site import Page, render

__all__ = ["PAGE"]

router = APIRouter()
PAGE = Page(router=router, title="Frontiers", path="/frontiers")


@router.get("/frontiers")
def listed(request: Request) -> Response:
    """Every search."""
    rows: list[dict[str, Any]] = []
    for each in (each for each in folders_of(request).find() if each.kind == "search"):
        try:
            found = frontier_of(each)
            rows.append({"result": each, "name": found.outcome["name"], "facts": found.content["facts"], "error": "",
                         "points": len(found.points), "objectives": found.objectives})  # fmt: skip
        except MapstoError as error:
            rows.append(
                {
                    "result": each,
                    "name": each.folder.name,
                    "facts": [],
                    "error": str(error),
                    "points": 0,
                    "objectives": [],
                }
            )
    return render(request, "frontiers.html.j2", title="Frontiers", searches=rows)


@router.get("/frontier/{place:path}")
def one(request: Request, place: str, x: str = "", y: str = "", point: int | None = None) -> Response:
    """The frontier of a search."""
    folders = folders_of(request)
    result = folders.get(place, "search")
    found = frontier_of(result)
    across, up = found.chosen_axes(x, y)
    picked = found.picked(point)
    columns, rows = found.table(across, up)
    return render(
        request,
        "frontier.html.j2",
        title=found.outcome["name"],
        result=result,
        frontier=found,
        content=found.content,
        x=across,
        y=up,
        svg=found.svg(across, up, None if picked is None else picked.trial),
        columns=columns,
        rows=rows,
        picked=picked,
        made=None if picked is None else _made_by(folders, result, picked),
        package=(result.folder / "package" / "manifest.json").is_file(),
    )


@router.get("/recipe/{place:path}")
def recipe(request: Request, place: str, point: int) -> Response:
    """The recipe of a point, as a file."""
    folders = folders_of(request)
    picked = frontier_of(folders.get(place, "search")).picked(point)
    name = PurePosixPath(picked.recipe if picked else "")
    path = folders.path(f"{place}/{name}")
    if re.fullmatch(r"recipes/[\w.-]+\.yaml", str(name)) is None or not path.is_file():
        raise NotThere("the file of this recipe is gone", where=str(name), hint="the same search writes it again")
    return FileResponse(path, media_type="application/yaml", filename=path.name)


def _made_by(folders: Folders, search: Result, picked: Picked) -> Result | None:
    """The run of a point's recipe, where it was run: then its figures are there, and its package."""
    tail = (search.folder.name, *PurePosixPath(picked.recipe).parts)
    for each in folders.find():
        if each.kind == "run" and Path(headline(each).recipe).parts[-len(tail) :] == tail:
            return each
    return None

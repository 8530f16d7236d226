"""Learners over streams: a list of the runs that have one; each is shown on the run's own page."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from mapsto.studio.pages.runs import folders_of
from mapsto.studio.reports import headline
from mapsto.studio.site import Page, render

__all__ = ["PAGE"]

router = APIRouter()
PAGE = Page(router=router, title="Streams", path="/streams")


@router.get("/streams")
def listed(request: Request) -> Response:
    """Every run that learnt from a stream."""
    heads = [headline(each) for each in folders_of(request).find() if each.kind == "run"]
    return render(request, "streams.html.j2", title="Streams", runs=[each for each in heads if each.stream])

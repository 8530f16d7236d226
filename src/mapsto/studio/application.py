"""The studio as an application: its pages, its files, what browsers are told to refuse, and errors as pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

import mapsto.report
from mapsto.errors import MapstoError
from mapsto.service.client import ServiceError
from mapsto.service.hosts import Hosts
from mapsto.studio.errors import SignedOut, status_of
from mapsto.studio.pages import advisor, compare, frontier, runs, service, sign_in, streams
from mapsto.studio.site import STATIC, Page, Studio, address, render

__all__ = ["PAGES", "POLICY", "application"]

PAGES: tuple[Page, ...] = (
    runs.PAGE,
    frontier.PAGE,
    streams.PAGE,
    compare.PAGE,
    advisor.PAGE,
    service.PAGE,
    sign_in.PAGE,
)
"""Every page, in the order of the navigation. A further one is a module in ``pages`` with a `Page`, listed here."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of every page: nothing from elsewhere, nothing written into a page. Pictures of a report are data URLs."""

_REPORT_STYLE = Path(mapsto.report.__file__).parent / "templates" / "report.css"
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


def application(studio: Studio, *, hosts: Hosts | None = None) -> FastAPI:
    """The studio's application.

    Parameters
    ----------
    studio
        What it shows; of the pages those that fit are taken.
    hosts
        The names that it answers to, so that no page elsewhere reaches it by a name of its own; None: whoever mounts it sees to that.
    """
    there = {
        "folders": studio.folders is not None,
        "service": studio.services is not None,
        "sign-in": studio.services is not None and studio.services.who is not None,
    }
    pages = [page for page in PAGES if there[page.needs]]
    app = FastAPI(title="studio", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.studio = replace(studio, pages=pages)
    for page in pages:
        app.include_router(page.router)

    @app.get("/static/report.css")
    async def report_style() -> Response:
        return FileResponse(_REPORT_STYLE, media_type="text/css")

    if studio.folders is None and pages:

        @app.get("/")
        async def first(request: Request) -> Response:
            return RedirectResponse(address(request, pages[0].path), 303)

    app.mount("/static", StaticFiles(directory=STATIC))

    @app.middleware("http")
    async def guarded(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if hosts is not None and not hosts.allow(request.scope["headers"]):
            return Response("this studio does not answer to that name\n", 421, media_type="text/plain")
        response = await answer(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def failed(request: Request, error: Exception) -> Response:
        if isinstance(error, SignedOut) or (
            there["sign-in"] and isinstance(error, ServiceError) and error.status == 401
        ):
            return RedirectResponse(address(request, "/sign-in"), 303)
        return _error(request, error) if isinstance(error, MapstoError) else _error_of_http(request, error)

    for kind in (MapstoError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, failed)
    return app


def _error(request: Request, error: MapstoError) -> Response:
    status = status_of(error)
    return render(
        request, "error.html.j2", code=status, title=_NAMES.get(status, "This cannot be shown"), what=error.what,
        where=error.where or "", hint=error.hint or "",
    )  # fmt: skip


_NAMES = {403: "Not allowed", 404: "Not there", 401: "Who are you?", 502: "The service does not answer"}


def _error_of_http(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        status = error.status_code
        what = "there is no such page" if status == 404 else str(error.detail)
    else:
        status = 400
        what = str(error)
        if isinstance(error, RequestValidationError):
            first = error.errors()[0]
            what = f"{first['loc'][-1]}: {first['msg']}"
    return render(
        request, "error.html.j2", code=status, title=_NAMES.get(status, "This cannot be shown"), what=what, where="",
        hint="go on from the navigation above",
    )  # fmt: skip

"""What every page stands on: templates, navigation, addresses, and forms that only a page of the studio can send."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from mapsto.errors import DataError
from mapsto.report.template_environment import environment
from mapsto.studio.errors import Forbidden
from mapsto.studio.sessions import is_signed_in
from mapsto_runtime import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

    from mapsto.studio.results import Folders
    from mapsto.studio.services import Services

__all__ = ["STATIC", "Page", "Studio", "address", "form", "render", "studio_of"]

STATIC = Path(__file__).parent / "static"
_TEMPLATES = Path(__file__).parent / "templates"
_COOKIE = "mapsto_studio_form"
_LARGEST_FORM = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page, or several that belong together, with their routes."""

    router: APIRouter
    title: str = ""
    """In the navigation; empty: it is not there."""
    path: str = ""
    """Where the navigation leads."""
    needs: Literal["folders", "service", "sign-in"] = "folders"
    """It is there where the studio was given folders, where it has a service, or where people sign in."""


@dataclass(frozen=True, kw_only=True)
class Studio:
    """What the pages show."""

    folders: Folders | None
    """Folders with results; None: no page reads files."""
    services: Services | None = None
    """A service that runs; None: there is none to look at."""
    store: str | None = None
    """Where finished steps are kept, for the advisor; None: the usual place."""
    data: Path | None = None
    """Data that the advisor is asked on."""
    target: str | None = None
    """The column of those data that is predicted."""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    """Signs forms."""
    pages: Sequence[Page] = ()


def studio_of(request: Request) -> Studio:
    """What the studio of a request shows."""
    return request.app.state.studio


def address(request: Request, path: str, /, **query: str) -> str:
    """The address of a page, where the studio may be mounted below another path; values of None are left out.

    `path` is quoted; a place of a result may stand in it.
    """
    given = {name: value for name, value in query.items() if value}
    return f"{request.scope.get('root_path', '')}{quote(path)}{'?' if given else ''}{urlencode(given)}"


def render(request: Request, template: str, *, code: int = 200, title: str, **context: Any) -> Response:
    """A page by its template, which extends ``base.html.j2``."""
    studio = studio_of(request)
    cookie = request.cookies.get(_COOKIE) or secrets.token_urlsafe(24)
    text = (
        _templates()
        .get_template(template)
        .render(
            title=title,
            version=__version__,
            url=partial(address, request),
            pages=[page for page in studio.pages if page.title],
            here=_here(request),
            form_token=_token(studio, cookie),
            signed_in=studio.services is not None and studio.services.who is not None and is_signed_in(request),
            **context,
        )
    )
    response = HTMLResponse(text, code)
    if "form_token" in text and _COOKIE not in request.cookies:
        response.set_cookie(_COOKIE, cookie, httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return response


async def form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises `Forbidden` where no page of the studio sent it, `DataError` where it is none."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Forbidden("this form was sent by a page of somebody else", hint="go to the page in the studio")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise DataError(f"the form has more than {_LARGEST_FORM} bytes", hint="send less")
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=100))
    except ValueError as error:
        raise DataError(f"this is no form ({error})", hint="send the form of a page") from error
    cookie = request.cookies.get(_COOKIE, "")
    given = fields.pop("form_token", "")
    if not cookie or not hmac.compare_digest(given.encode(), _token(studio_of(request), cookie).encode()):
        raise Forbidden(
            "the form is no longer valid", hint="load the page again, then send it; cookies must be allowed"
        )
    return fields


def _token(studio: Studio, cookie: str) -> str:
    return hmac.new(studio.secret, cookie.encode(), sha256).hexdigest()


def _here(request: Request) -> str:
    """The page of the navigation that a request is for."""
    path = request.url.path.removeprefix(request.scope.get("root_path", "")).strip("/").partition("/")[0]
    return {"run": "", "frontier": "frontiers", "stream": "streams"}.get(path, path)


@cache
def _templates() -> Environment:
    made = environment(_TEMPLATES)
    made.filters["moment"] = moment
    made.filters["size"] = size
    return made


def moment(seconds: float) -> str:
    """A time as people write it, in UTC.

    >>> moment(0)
    '1970-01-01 00:00 UTC'
    """
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def size(count: float) -> str:
    """Bytes as people say them.

    >>> size(27_900)
    '27.9 kB'
    """
    from mapsto.report import page

    return page._bytes(count)

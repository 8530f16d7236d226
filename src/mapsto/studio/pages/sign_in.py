"""Signing in with an API key, where the studio is part of a service."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from mapsto.service.refusal import Refusal
from mapsto.studio.errors import NotThere
from mapsto.studio.sessions import sign_in, sign_out
from mapsto.studio.site import Page, address, form, render, studio_of

__all__ = ["PAGE"]

router = APIRouter()
PAGE = Page(router=router, needs="sign-in")


@router.get("/sign-in")
def asking(request: Request) -> Response:
    """The form."""
    return render(request, "sign_in.html.j2", title="Sign in", error="")


@router.post("/sign-in")
async def signed_in(request: Request) -> Response:
    """Remember a key that the service knows."""
    services = studio_of(request).services
    if services is None or services.who is None:
        raise NotThere("nobody signs in here", hint="go on from the navigation above")
    key = (await form(request)).get("key", "").strip()
    response = RedirectResponse(address(request, "/service"), 303)
    try:
        await services.who(f"Bearer {key}".encode() if key else None)
    except Refusal as refusal:
        return render(request, "sign_in.html.j2", code=refusal.status, title="Sign in", error=refusal.text)
    if not sign_in(request, response, key):
        return render(request, "sign_in.html.j2", code=400, title="Sign in", error="the token is too long for a cookie")
    return response


@router.post("/sign-out")
async def signed_out(request: Request) -> Response:
    """Forget the key."""
    await form(request)
    response = RedirectResponse(address(request, "/sign-in"), 303)
    sign_out(request, response)
    return response

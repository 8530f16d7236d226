"""Who is signed in: the API key, in a cookie that no script can read and no other site sends."""

from __future__ import annotations

import re

from fastapi import Request, Response

__all__ = ["is_signed_in", "key_of", "sign_in", "sign_out"]

_COOKIE = "mapsto_studio_key"
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{1,3800}")


def key_of(request: Request) -> str:
    """The key or token of who is signed in; empty where nobody is."""
    found = request.cookies.get(_COOKIE, "")
    return found if _KEY.fullmatch(found) else ""


def is_signed_in(request: Request) -> bool:
    """Whether somebody said who he is; whether the key is still valid is seen when it is used."""
    return bool(key_of(request))


def sign_in(request: Request, response: Response, key: str) -> bool:
    """Remember a key until the browser ends; False for what cannot be one."""
    if not _KEY.fullmatch(key):
        return False
    response.set_cookie(
        _COOKIE, key, path=_path(request), httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return True


def sign_out(request: Request, response: Response) -> None:
    """Forget the key."""
    response.delete_cookie(_COOKIE, path=_path(request), httponly=True, samesite="strict")


def _path(request: Request) -> str:
    """Below which the cookie is sent: the studio's own, so that no other route of a service takes it for a key."""
    return request.scope.get("root_path", "") or "/"

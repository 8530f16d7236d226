"""Applications of other packages below a path of the service, such as the studio: the service knows them by name alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from mapsto.service.request_handler import Who

__all__ = ["Mounted", "mount"]


@dataclass(frozen=True, kw_only=True)
class Mounted:
    """An application that answers below a path, in each worker. It says itself who may call what of it."""

    path: str
    """Such as ``/studio``."""
    factory: str
    """``module:function``, which makes it of the service's routes, of what tells callers, and of the settings."""
    settings: Mapping[str, Any]
    """JSON."""


def mount(routes: FastAPI, who: Who, mounted: Mounted) -> None:
    """Let it answer below its path."""
    module, _, function = mounted.factory.partition(":")
    application = getattr(import_module(module), function)(routes, who, mounted.settings)

    @routes.get(mounted.path, include_in_schema=False)
    async def beginning() -> RedirectResponse:
        return RedirectResponse(f"{mounted.path}/", 307)

    routes.mount(mounted.path, application)

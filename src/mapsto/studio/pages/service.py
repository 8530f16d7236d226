"""A running service: its health, load, alerts and versions, of which one can be let answer, or taken back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from mapsto.errors import command, nearest
from mapsto.service.client import Client, ServiceError
from mapsto.studio.errors import Forbidden, NotThere, SignedOut
from mapsto.studio.services import Samples, Services, alerts, loads
from mapsto.studio.site import Page, address, form, render, studio_of
from mapsto_runtime.shown import short

__all__ = ["PAGE"]

router = APIRouter()
PAGE = Page(router=router, title="Service", path="/service", needs="service")


@router.get("/service")
def overview(request: Request) -> Response:
    """The service: whether it answers, what it has to do, and what is not as it should be."""
    services, client = _asked(request)
    ready = client.ready()
    found, refused = _metrics(client)
    models = _models(client, found)
    rows = [] if found is None else loads([name for name, _ in models], found)
    return render(
        request,
        "service.html.j2",
        title="Service",
        where=services.where,
        ready=ready,
        models=models,
        loads=[(each, services.rate(each.model, each.requests)) for each in rows],
        alerts=None
        if found is None
        else alerts([name for name, _ in models], found, services.thresholds, now=time.time()),
        refused=refused,
    )


@router.get("/service/{model}")
def one(request: Request, model: str, done: str = "", version: str = "") -> Response:
    """A model with its versions."""
    services, client = _asked(request)
    names = client.models()
    if model not in names:
        raise NotThere(f"the service has no model '{short(model)}'", hint=nearest(model, names))
    known = client.versions(model)
    learner: dict[str, Any] | None = None
    try:
        learner = {"note": ""} | client.learner(model)
    except ServiceError as error:
        if error.status not in (403, 404):
            raise
    return render(
        request,
        "model.html.j2",
        title=model,
        where=services.where,
        model=model,
        active=known["active"],
        versions=[_PLAIN | each for each in known["versions"]],
        learner=learner,
        done=_DONE.get(done, "").format(version) if version in [each["version"] for each in known["versions"]] else "",
        late=version != known["active"],
    )


@router.post("/service/{model}/promote")
async def promote(request: Request, model: str) -> Response:
    """Let a version answer."""
    fields = await form(request)
    _, client = _asked(request)
    version = fields.get("version", "")
    if not version:
        raise NotThere("no version is given", hint="choose one on the page of the model")
    await run_in_threadpool(_changing, client.promote, model, version)
    return RedirectResponse(address(request, f"/service/{model}", done="promoted", version=version), 303)


@router.post("/service/{model}/rollback")
async def roll_back(request: Request, model: str) -> Response:
    """Let the version before answer again."""
    await form(request)
    _, client = _asked(request)
    version = await run_in_threadpool(_changing, client.roll_back, model)
    return RedirectResponse(address(request, f"/service/{model}", done="rolled-back", version=version), 303)


_PLAIN: dict[str, Any] = {"parent": "", "created": None, "note": "", "private": False}
"""What is not said of the package itself."""


_DONE = {"promoted": "Version {} answers now.", "rolled-back": "Version {} answers again."}


def _changing(change: Callable[..., str], *arguments: str) -> str:
    """Change which version answers; a key that may not is told what it needs."""
    try:
        return change(*arguments)
    except ServiceError as error:
        if error.status == 403:
            hint = f"take a key with the scope admin: `{command('mapsto keys make RUN --scope admin')}` makes one"
            raise Forbidden(error.what, hint=hint) from error
        raise


def _asked(request: Request) -> tuple[Services, Client]:
    services = studio_of(request).services
    if services is None:
        raise NotThere("no service is shown", hint="start the studio with --service and --key")
    client = services.client(request)
    if client is None:
        raise SignedOut("nobody has signed in", hint="sign in with an API key first")
    return services, client


def _models(client: Client, found: Samples | None) -> list[tuple[str, dict[str, Any]]]:
    """Each model with its versions; of a key that may only read metrics, what these say."""
    try:
        return [(name, client.versions(name)) for name in client.models()]
    except ServiceError as error:
        if error.status != 403 or found is None:
            raise
        infos = [labels for labels, _ in found.rows("mapsto_version_info")]
        return [(each["model"], {"active": each["version"], "versions": None}) for each in infos]


def _metrics(client: Client) -> tuple[Samples | None, str]:
    """The metrics, or why this key may not read them."""
    try:
        return Samples(client.metrics()), ""
    except ServiceError as error:
        if error.status == 403:
            return None, error.what
        raise

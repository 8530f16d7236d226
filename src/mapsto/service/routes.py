"""All routes but inference and feedback, with FastAPI: the protocol's metadata and health, adapting, versions, metrics.

Each says who may call it: `PUBLIC` lists those that anyone may; every other begins with the caller's scope.
"""

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mapsto.errors import MapstoError, StoreError
from mapsto.service.inference_protocol import HEADER_LENGTH, Asked, decode
from mapsto.service.keys import Caller, Scope
from mapsto.service.openapi import completed
from mapsto.service.refusal import REASON, Refusal, error_body
from mapsto.service.request_handler import CALLER, FAILED, Gone, Who, read_body, unpacked
from mapsto.service.service import EXTENSIONS, Service
from mapsto.service.state import VersionRow
from mapsto_runtime import __version__

__all__ = ["PUBLIC", "application"]

PUBLIC = frozenset(("/v2/health/live", "/v2/health/ready"))
"""Routes that need no key: they tell whether the service is there, and nothing of what it holds."""


_QUESTION = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [0.5, 1.0, -2.0]}]}
_FILES = {
    "name": "image",
    "datatype": "BYTES",
    "shape": [2],
    "parameters": {"content_type": "base64"},
    "data": ["…", "…"],
}
_LABELS = {"feedback": [{"request_id": "00000000000162b436b02b5542ed", "row": 0, "label": "cat"}]}
_SUPPORT = {
    "inputs": [_FILES, {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["cat", "dog"]}],
    "parameters": {"way": "ridge", "shared": False},
}
_MADE = {
    "model_name": "demo",
    "model_version": "a-5f0c1d2e3b4a",
    "classes": ["cat", "dog"],
    "examples": 2,
    "package": "9d5ed678fe57bcca610140957afab571…",
    "shared": False,
    "way": "ridge",
    "dropped": [],
    "seconds": 0.004,
}
_QUEUED = {
    "job": "j-0123456789abcdef",
    "model_name": "demo",
    "state": "queued",
    "way": "logistic",
    "classes": ["cat", "dog"],
    "examples": 2,
    "shared": False,
}
_JOB = {
    "job": "j-0123456789abcdef",
    "model_name": "demo",
    "state": "done",
    "way": "logistic",
    "created": 1796011200.0,
    "changed": 1796011202.5,
    "model_version": "a-5f0c1d2e3b4a",
    "dropped": [],
    "note": "logistic regression, strength 0.1 of 0.001, 0.01, 0.1, 1, 10 by cross-validation",
}


def application(service: Service, who: Who, metrics: Callable[[], bytes]) -> FastAPI:
    """The application behind `RequestHandler`."""
    app = FastAPI(
        title="mapsto",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # a redirect would be made of the name that a client asked for
    )
    app.include_router(_protocol(service, who))
    app.include_router(_learning(service, who))
    app.include_router(_watching(service, who, metrics))

    may_predict: Any = _allowed(who, "predict")

    @app.get("/openapi.json", tags=["Open Inference Protocol"], summary="These routes, by OpenAPI")
    async def described(caller: Caller = may_predict) -> dict[str, Any]:
        return completed(_described(app), service.names, public=PUBLIC)

    async def refused(request: Request, error: Refusal) -> Response:
        request.scope[REASON] = error.reason
        return Response(error_body(error.text), error.status, dict(_texts(error.headers())), "application/json")

    async def failed(request: Request, error: MapstoError) -> Response:
        if isinstance(error, StoreError):  # where the state lies is nothing to a client
            return Response(error_body(error.what), 503, {"retry-after": "5"}, "application/json")
        return Response(error_body(str(error)), 400, media_type="application/json")

    async def broken(request: Request, error: Exception) -> Response:
        return Response(error_body(FAILED), 500, media_type="application/json")

    async def gone(request: Request, error: Gone) -> Response:
        return Response(status_code=499)  # nobody reads it

    async def plain(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})  # of 405, what is allowed
        return Response(error_body(str(error.detail)), error.status_code, headers, "application/json")

    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return Response(error_body(f"{where}: {first['msg']}"), 400, media_type="application/json")

    app.add_exception_handler(Refusal, refused)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(MapstoError, failed)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(Exception, broken)
    app.add_exception_handler(Gone, gone)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(HTTPException, plain)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(RequestValidationError, invalid)  # pyright: ignore[reportArgumentType]
    return app


def _body(example: Any) -> dict[str, Any]:
    """What OpenAPI is told of the body of a request that a handler reads by itself."""
    content = {"application/json": {"schema": {"type": "object"}, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def _example(text: str, example: Any) -> dict[str, Any]:
    """What OpenAPI is told of an answer."""
    return {"description": text, "content": {"application/json": {"example": example}}}


def _described(app: FastAPI) -> dict[str, Any]:
    """The routes by OpenAPI, with those that are answered in front of them."""
    tree = copy.deepcopy(app.openapi())
    infer = {
        "tags": ["Open Inference Protocol"],
        "summary": "Inference; binary tensors by the header Inference-Header-Content-Length",
        **_body(_QUESTION),
    }
    feedback = {"tags": ["learn"], "summary": "Labels for answers, on time or late", **_body(_LABELS)}
    for path, operation in (
        ("/v2/models/{name}/infer", infer),
        ("/v2/models/{name}/versions/{version}/infer", infer),
        ("/v2/models/{name}/feedback", feedback),
    ):
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        given = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
        answered = {"200": {"description": "Successful Response"}}
        tree["paths"][path] = {"post": {**operation, "parameters": given, "responses": answered}}
    return tree


def _allowed(who: Who, *scopes: Scope) -> Any:
    """The caller, as a dependency of a route that needs one of the scopes."""

    async def caller(request: Request) -> Caller:
        found = request.headers.get("authorization") or request.headers.get("x-api-key")
        known = await who(found.encode("latin-1") if found else None)
        if CALLER in request.scope:
            request.scope[CALLER]["name"] = known.name
        known.require(*scopes)
        return known

    return Depends(caller)


def _protocol(service: Service, who: Who) -> APIRouter:
    """What the Open Inference Protocol has besides inference."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    may_predict: Any = _allowed(who, "predict")

    @router.get("/health/live", summary="Whether the server runs")
    async def live() -> dict[str, Any]:
        return {"live": True}

    @router.get("/health/ready", summary="Whether it answers")
    async def ready() -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @router.get("", summary="The server")
    async def server(caller: Caller = may_predict) -> dict[str, Any]:
        return {"name": "mapsto", "version": __version__, "extensions": list(EXTENSIONS), "models": service.names}

    @router.get("/models/{name}", summary="A model")
    async def model(name: str, caller: Caller = may_predict) -> dict[str, Any]:
        return service.metadata(name, "", caller)

    @router.get("/models/{name}/versions/{version}", summary="A version of a model")
    async def version(name: str, version: str, caller: Caller = may_predict) -> dict[str, Any]:
        return service.metadata(name, version, caller)

    @router.get("/models/{name}/ready", summary="Whether a model answers")
    async def model_ready(name: str, caller: Caller = may_predict) -> Response:
        service.model(name)
        return JSONResponse({"name": name, "ready": service.ready}, 200 if service.ready else 503)

    @router.get("/models/{name}/versions/{version}/ready", summary="Whether a version answers")
    async def version_ready(name: str, version: str, caller: Caller = may_predict) -> Response:
        service.metadata(name, version, caller)
        return JSONResponse({"name": name, "ready": service.ready}, 200 if service.ready else 503)

    return router


def _learning(service: Service, who: Who) -> APIRouter:
    """Versions from examples, labels for answers, and which version answers."""
    router = APIRouter(prefix="/v2/models/{name}")
    may_adapt: Any = _allowed(who, "adapt")
    may_learn: Any = _allowed(who, "learn")
    may_predict: Any = _allowed(who, "predict")
    is_admin: Any = _allowed(who, "admin")

    @router.post(
        "/adapt",
        tags=["adapt"],
        summary="A version from labelled examples, in the form of an inference request",
        description="The parameter `way` says how the head is fitted: `ridge` in closed form, which is answered at once; `logistic` "
        "(logistic regression, its strength by cross-validation) and `best` (the best of several by cross-validation) as a job, which is "
        "answered with 202 and where to ask for it.",
        openapi_extra=_body(_SUPPORT),
        responses={
            200: _example("The version", _MADE),
            202: _example("The job; `Location` is where to ask for it", _QUEUED),
            429: _example("Too many jobs wait", {"error": "10 of your jobs wait or run; ask again when one has ended"}),
        },
    )
    async def adapt(name: str, request: Request, caller: Caller = may_adapt) -> Response:
        found = await service.adapt(name, await _asked(request, service), caller)
        if "job" not in found:
            return JSONResponse(found)
        place = f"/v2/models/{quote(name, safe='')}/jobs/{found['job']}"
        return JSONResponse(found, 202, {"location": place, "retry-after": "1"})

    @router.get(
        "/jobs/{job}",
        tags=["adapt"],
        summary="How far a job of adapting is: queued, running, done or failed",
        responses={200: _example("The job; of one that failed, `error` says why", _JOB)},
    )
    async def job(name: str, job: str, caller: Caller = may_adapt) -> dict[str, Any]:
        return await asyncio.to_thread(service.job, name, job, caller)

    @router.get("/versions", tags=["versions"], summary="The versions of a model")
    async def versions(name: str, caller: Caller = may_predict) -> dict[str, Any]:
        rows = service.versions(name, caller)
        first = {"version": "1", "kind": "package", "package": service.model(name).digest}
        shown = [_shown(row, everything=caller.may("metrics", "admin")) for row in rows]
        return {"active": service.active(name), "versions": [first, *shown]}

    @router.post("/versions/{version}/promote", tags=["versions"], summary="Let a version answer")
    async def promote(name: str, version: str, caller: Caller = is_admin) -> dict[str, Any]:
        return {"active": version, "before": await asyncio.to_thread(service.promote, name, version, caller)}

    @router.post("/rollback", tags=["versions"], summary="Let the version before answer again")
    async def roll_back(name: str, caller: Caller = is_admin) -> dict[str, Any]:
        before, now = await asyncio.to_thread(service.roll_back, name, caller)
        return {"active": now, "before": before}

    @router.get("/learner", tags=["learn"], summary="How far the learner is")
    async def learner(name: str, caller: Caller = may_learn) -> dict[str, Any]:
        service.model(name)
        position, version, note, changed = service.state.learner_status(name) or (0, "", "nothing was learnt yet", None)
        if not caller.may("metrics", "admin"):  # how much others gave, and what came of it, is theirs
            count = functools.partial(service.state.labels_around, name, position, tenant=caller.tenant)
            learnt, behind = await asyncio.to_thread(count)  # of very many labels it takes its time
            return {"position": learnt, "behind": behind, "version": version}
        behind, _ = await asyncio.to_thread(service.state.behind, name, position)
        found = {"position": position, "behind": behind, "version": version, "note": note}
        return found if changed is None else {**found, "changed": changed}

    return router


def _watching(service: Service, who: Who, metrics: Callable[[], bytes]) -> APIRouter:
    router = APIRouter()
    may_watch: Any = _allowed(who, "metrics", "admin")

    @router.get("/metrics", tags=["watch"], summary="Metrics for Prometheus")
    async def scraped(caller: Caller = may_watch) -> Response:
        content = await asyncio.to_thread(metrics)  # it reads the state and tests for drift: requests go on meanwhile
        return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


async def _asked(request: Request, service: Service) -> Asked:
    """The request in the protocol's form, JSON or binary."""
    body = await read_body(request.receive, service.limits.body)
    encoding = request.headers.get("content-encoding")
    if encoding:
        body = unpacked(body, encoding.encode("latin-1"), service.limits.body)
    return decode(body, request.headers.get(HEADER_LENGTH.decode()))


def _shown(row: VersionRow, *, everything: bool) -> dict[str, Any]:
    """A version; how many labels of all tenants one learnt from is not for each of them."""
    return {
        "version": row.version,
        "kind": row.kind,
        "parent": row.parent,
        "created": row.created,
        "note": row.note if everything or row.kind != "learned" else "",
        "private": row.owner is not None,
        "package": row.package,
    }


def _texts(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]

"""What OpenAPI is told beyond what FastAPI knows: the shapes of bodies and of answers, errors included, and who may ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from mapsto.service.inference_protocol import DATATYPES

__all__ = ["completed"]

_TEXT, _NUMBER, _WHOLE, _TRUTH = ({"type": name} for name in ("string", "number", "integer", "boolean"))
_PARAMETERS: dict[str, Any] = {"type": "object", "description": "By the protocol; unknown ones are passed over."}


def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


def _named(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_SHAPE = _list({"type": "integer", "minimum": 0}, minItems=1, maxItems=8)
_TENSOR = {"name": _TEXT, "shape": _SHAPE, "datatype": {"enum": list(DATATYPES)}, "parameters": _PARAMETERS}
_DATA = {"type": "array", "items": {}, "description": "Flat, or nested as the shape is."}
_SCHEMAS: dict[str, Any] = {
    "Error": {**_object("error", error=_TEXT), "additionalProperties": False},
    "Question": _object(
        "inputs",
        id=_TEXT,
        parameters=_PARAMETERS,
        inputs=_list(_object("name shape datatype data", **_TENSOR, data=_DATA), minItems=1),
        outputs=_list(_object("name", name=_TEXT, parameters=_PARAMETERS)),
    ),
    "Answer": _object(
        "model_name model_version outputs",
        id=_TEXT,
        model_name=_TEXT,
        model_version=_TEXT,
        parameters=_PARAMETERS,
        outputs=_list(_object("name shape datatype", **_TENSOR, data=_DATA)),
    ),
    "Label": _object(
        "label",
        label={"type": "string", "minLength": 1, "maxLength": 1000},
        request_id=_TEXT,
        row={"type": "integer", "minimum": 0},
        idempotency_key={"type": "string", "maxLength": 200},
        inputs=_list(_object("name shape datatype data", **_TENSOR, data=_DATA)),
    ),
    "Stored": _object(
        "feedback",
        feedback=_list(_object("event stored", event=_TEXT, stored=_TRUTH, reason=_TEXT, masked=_TRUTH)),
        masked=_WHOLE,
    ),
    "Model": _object(
        "name versions platform inputs outputs",
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_object("name datatype shape", name=_TEXT, datatype=_TEXT, shape=_list(_WHOLE))),
        outputs=_list(_object("name datatype shape", name=_TEXT, datatype=_TEXT, shape=_list(_WHOLE))),
    ),
    "Ready": _object("ready", ready=_TRUTH, name=_TEXT),
    "Made": _object(
        "model_name classes examples shared way notes",
        model_name=_TEXT,
        model_version=_TEXT,
        job=_TEXT,
        state=_TEXT,
        classes=_list(_TEXT),
        examples=_WHOLE,
        package=_TEXT,
        shared=_TRUTH,
        way=_TEXT,
        dropped=_list(_TEXT),
        notes=_list(_TEXT),
        masked=_WHOLE,
        seconds=_NUMBER,
    ),
    "Job": _object(
        "job model_name state way created changed",
        job=_TEXT,
        model_name=_TEXT,
        state={"enum": ["queued", "running", "done", "failed"]},
        way=_TEXT,
        created=_NUMBER,
        changed=_NUMBER,
        model_version=_TEXT,
        error=_TEXT,
        note=_TEXT,
        masked=_WHOLE,
    ),
    "Versions": _object(
        "active versions", active=_TEXT, versions=_list(_object("version kind package", version=_TEXT, kind=_TEXT))
    ),
    "Active": _object("active before", active=_TEXT, before=_TEXT),
    "Learner": _object(
        "position behind version", position=_WHOLE, behind=_WHOLE, version=_TEXT, note=_TEXT, changed=_NUMBER
    ),
}
_MODEL, _VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
_BODIES: dict[str, dict[str, Any]] = {
    f"{_MODEL}/infer": _named("Question"),
    f"{_VERSION}/infer": _named("Question"),
    f"{_MODEL}/adapt": _named("Question"),
    f"{_MODEL}/feedback": {
        "oneOf": [_named("Label"), _object("feedback", feedback=_list(_named("Label"), minItems=1, maxItems=1000))]
    },
}
_ANSWERS = {
    "/v2/health/live": "Live",
    "/v2/health/ready": "Ready",
    _MODEL: "Model",
    _VERSION: "Model",
    f"{_MODEL}/ready": "Ready",
    f"{_VERSION}/ready": "Ready",
    f"{_MODEL}/infer": "Answer",
    f"{_VERSION}/infer": "Answer",
    f"{_MODEL}/feedback": "Stored",
    f"{_MODEL}/adapt": "Made",
    f"{_MODEL}/jobs/{{job}}": "Job",
    f"{_MODEL}/versions": "Versions",
    f"{_VERSION}/promote": "Active",
    f"{_MODEL}/rollback": "Active",
    f"{_MODEL}/learner": "Learner",
}
_SCHEMAS["Live"] = _object("live", live=_TRUTH)


def completed(tree: dict[str, Any], models: Sequence[str], *, public: frozenset[str]) -> dict[str, Any]:
    """A description of the routes with the shapes of what goes in and comes out.

    Parameters
    ----------
    models
        The names that a model may have in a path.
    public
        Routes that need no key.
    """
    security: dict[str, Any] = {"key": {"type": "http", "scheme": "bearer"}}
    tree["components"] = {"schemas": _SCHEMAS, "securitySchemes": security}
    paths = cast("dict[str, dict[str, dict[str, Any]]]", tree["paths"])
    for path, operations in paths.items():
        for operation in operations.values():
            operation["security"] = [] if path in public else [{"key": []}]
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "name":
                    parameter["schema"] = {"type": "string", "enum": list(models)}
            _complete(path, operation)
    return tree


def _complete(path: str, operation: dict[str, Any]) -> None:
    if path in _BODIES:
        operation["requestBody"]["content"]["application/json"]["schema"] = _BODIES[path]
    responses = operation["responses"]
    responses.pop("422", None)  # what is wrong is answered with 400
    if path == "/metrics":
        responses["200"]["content"] = {"text/plain": {"schema": _TEXT}}
    elif path in _ANSWERS:
        for status in responses:
            name = _ANSWERS[path] if status < "300" else "Error"
            content = responses[status].setdefault("content", {}).setdefault("application/json", {})
            content["schema"] = _named(name)
    if _ANSWERS.get(path) == "Ready":
        content = {"application/json": {"schema": {"anyOf": [_named("Ready"), _named("Error")]}}}
        responses["503"] = {"description": "It does not answer now", "content": content}
    wrong = {"application/json": {"schema": _named("Error")}}
    responses["default"] = {"description": "What is wrong, in the form of the protocol", "content": wrong}

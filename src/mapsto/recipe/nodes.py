"""Mappings and data sets from nodes of YAML: ``{prune.taylor: {macs: 0.25}, as: small}``.

Fields that hold a mapping or data are nodes themselves. They are built while their field is checked, so that all errors of a node are
reported at once, each with its path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from pydantic_core import PydanticCustomError

from mapsto import discovery
from mapsto.errors import MapstoError, SpecError, nearest
from mapsto.kinds import Frozen
from mapsto.mapping import Chain, Fork, Labelled, Observe, steps_of

if TYPE_CHECKING:
    from mapsto.recipe.document import AnyMapping

__all__ = ["chain_from_nodes", "data_from_node", "from_plain", "step_from_node"]

T = TypeVar("T", bound=Frozen)
Path: TypeAlias = "tuple[str | int, ...]"
Detail: TypeAlias = "tuple[Path, str]"


def data_from_node(node: Any) -> Any:
    """A data set, tasks or stream from ``{name: {fields}}``. Raises `SpecError` with all of the node's errors."""
    name, fields = _one_name(node)
    sets, sources = discovery.entries("data"), discovery.entries("streams")
    if name not in sets and name not in sources:
        raise SpecError(f"unknown data set or stream '{name}'", hint=nearest(name, [*sets, *sources]))
    return _named(discovery.find("streams" if name in sources else "data", name), name, fields)


def step_from_node(node: Any) -> AnyMapping:
    """A mapping from ``{name: {fields}, as: label, observe: {name: mapping}}``. Raises `SpecError` with all of the node's errors."""
    if not isinstance(node, dict):
        raise SpecError("a step is a name with its fields, as in prune.taylor: {macs: 0.25}", where=repr(node)[:60])
    rest = dict(cast("dict[str, Any]", node))
    label, reports = rest.pop("as", None), rest.pop("observe", None)
    name, fields = _one_name(rest)
    details: list[Detail] = []
    steps: list[AnyMapping] = []

    def attempt(path: Path, build: Callable[[], AnyMapping], *, within: int = 0) -> None:
        """Build a part; its errors stand at `path`, without the first `within` names of their own, which YAML has not."""
        try:
            steps.append(build())
        except SpecError as error:
            details.extend(((*path, *inner[within:]), message) for inner, message in _details(error))

    if name == "fork":
        attempt((name,), lambda: from_plain(Fork[Any], {"branches": fields}), within=1)
    else:
        attempt((name,), lambda: _named(discovery.find("mappings", name), name, fields))
    if label is not None and steps:
        attempt(("as",), lambda: Labelled(mapping=steps.pop(), label=label), within=1)
    if reports is not None:
        attempt(("observe",), lambda: from_plain(Observe[Any], {"reports": reports}), within=1)
    if details:
        raise SpecError("; ".join(message for _, message in details), where=name, details=details)
    try:
        return steps[0] if len(steps) == 1 else Chain(steps=tuple(steps))
    except SpecError as error:
        error.details = tuple((path[1:], message) for path, message in error.details)  # its steps are one node in YAML
        raise


def chain_from_nodes(nodes: Sequence[Any]) -> AnyMapping:
    """The chain of a list of step nodes; one step stays itself. Raises `SpecError` with the errors of all nodes."""
    details: list[Detail] = []
    steps: list[AnyMapping] = []
    for index, node in enumerate(nodes):
        try:
            steps.extend(steps_of(step_from_node(node)))
        except SpecError as error:
            details.extend(((index, *inner), message) for inner, message in _details(error))
    if details:
        raise SpecError("; ".join(message for _, message in details), details=details)
    return steps[0] if len(steps) == 1 else Chain(steps=tuple(steps))


def from_plain(cls: type[T], fields: Mapping[str, Any]) -> T:
    """``cls(**fields)``, where mappings and data may be nodes. Raises `SpecError` with the errors of all fields."""
    return cls.from_fields(fields, context={"build": _build})


def _build(kind: str, node: Any) -> Any:
    """The value of a field of some kind; its errors as pydantic takes them."""
    try:
        if kind in ("dataset", "tasks", "stream"):
            return data_from_node(node)
        return chain_from_nodes(cast("list[Any]", node)) if isinstance(node, list) else step_from_node(node)
    except SpecError as error:
        context = {"message": error.what, "details": _details(error)}
        raise PydanticCustomError("nested", "{message}", context) from error
    except MapstoError as error:
        raise PydanticCustomError("nested", "{message}", {"message": str(error)}) from error


def _details(error: SpecError) -> Sequence[Detail]:
    """An error's findings, each with its path; the error itself where it has none."""
    return error.details or (((), f"{error.what} ({error.hint})" if error.hint else error.what),)


def _one_name(node: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(node, dict) or len(cast("dict[Any, Any]", node)) != 1:
        raise SpecError(f"expected one name with its fields, as in glyphs: {{split: train}}, got {node!r}"[:200])
    ((name, fields),) = cast("dict[str, Any]", node).items()
    if fields is not None and not isinstance(fields, dict):
        raise SpecError(f"the fields of '{name}' are not a mapping of names to values: {fields!r}"[:200])
    return str(name), {str(k): v for k, v in cast("dict[Any, Any]", fields or {}).items()}


def _named(cls: type[T], name: str, fields: Mapping[str, Any]) -> T:
    try:
        return from_plain(cls, fields)
    except SpecError as error:
        error.where = name
        raise

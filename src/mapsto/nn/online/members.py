"""Online learners within an online learner: how a field names them, and how their states become one.

``[softmax, {tabular: {preset: fast}}]`` are two members. A member has every field of its mapping but the stream and what is recorded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

from pydantic import Field
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from mapsto import discovery
from mapsto.errors import MapstoError, SpecError, nearest
from mapsto.kinds import ColumnType, EventSignature, Frozen, Json, Network, Package, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

    from mapsto.nn.online.learning import StreamLearner

__all__ = [
    "Member",
    "MemberList",
    "OneMember",
    "OptionalMember",
    "arrays_of",
    "member_from",
    "restored",
    "under",
    "values_of",
]

_FAMILY = "online."
_NOTHING: Mapping[str, Any] = {}
_FORM = "a learner is its name, or one name with its fields, as in {tabular: {preset: fast}}"


class Member(Frozen):
    """An online learner without a stream.

    >>> member_from({"softmax": {"rate": 0.1}}).node()
    {'softmax': {'rate': 0.1}}
    """

    learner: str
    """The name of its mapping, such as ``online.softmax``."""
    fields: dict[str, Any] = Field(default_factory=dict)
    """Its fields that are not at their default."""

    @property
    def short(self) -> str:
        """Its name without its family."""
        return self.learner.removeprefix(_FAMILY)

    def node(self) -> dict[str, Any]:
        """As a recipe has it."""
        return {self.short: dict(self.fields)}

    def fingerprint(self) -> int:
        """The version of its mapping, by which a step that holds it has another key where that has another."""
        return int(self._mapping.version)

    @property
    def encodes(self) -> bool:
        """Whether a network before it is its encoder; otherwise it trains that network."""
        return bool(getattr(self._mapping, "encodes", True))

    def made(
        self,
        types: Mapping[str, ColumnType],
        task: Task,
        base: Network | Package | None = None,
        *,
        common: Mapping[str, Any] = _NOTHING,
    ) -> StreamLearner:
        """The live learner at its beginning; see `Online._standing`. Raises `SpecError` where it cannot learn such labels.

        `common`: fields of the whole that are its own where it does not say otherwise.
        """
        mapping = self._mapping
        if task not in mapping.tasks:
            kinds = {"classes": "classes", "values": "numbers"}
            raise SpecError(f"{self.learner} does not learn {kinds[task]}", where="members", hint="leave it out")
        return mapping.made({**common, **self.fields}, types, task, base)

    def cost(self, inputs: int, classes: int) -> float:
        """What an event costs it, in microseconds of one core by its mapping's formula."""
        mapping = self._mapping
        return float(mapping.cost(mapping.completed(self.fields), inputs, classes))

    @property
    def _mapping(self) -> Any:
        return discovery.find("mappings", self.learner)


def member_from(node: Any) -> Member:
    """A member from its name, from ``{name: {fields}}``, or as it is. Raises `SpecError` that names what is wrong."""
    if isinstance(node, Member):
        return node
    named = cast("dict[Any, Any]", {node: None} if isinstance(node, str) else node)
    if not isinstance(named, dict) or len(named) != 1:
        raise SpecError(f"{_FORM}; got {node!r}"[:200])
    ((name, fields),) = named.items()
    full = name if str(name).startswith(_FAMILY) else f"{_FAMILY}{name}"
    known = [each for each in discovery.entries("mappings") if each.startswith(_FAMILY)]
    if full not in known:
        raise SpecError(f"there is no learner '{name}'", hint=nearest(full, known))
    mapping: Any = discovery.find("mappings", full)
    if not isinstance(fields, dict | None):
        raise SpecError(f"the fields of '{name}' are not a mapping of names to values: {fields!r}"[:200])
    given = {str(key): value for key, value in (fields or {}).items()}
    for field in ("stream", *mapping.record_fields):
        if field in given:
            raise SpecError(f"'{field}' is of the whole, not of its member '{name}'", hint=f"leave it out of '{name}'")
    if not mapping.can_be_member:
        raise SpecError(f"{full} stands by itself", hint="name another learner")
    nothing = discovery.find("streams", "sea")(events=1)
    return Member(learner=full, fields=mapping(stream=nothing, **given).own_fields())


class _Nodes:
    """Marks a field that holds members, or one, or with `optional` none."""

    def __init__(self, *, many: bool, optional: bool = False) -> None:
        self._many, self._optional = many, optional

    def validate(self, value: Any) -> Any:
        if value is None and self._optional:
            return None
        if not self._many:
            return self._one(value, ())
        if not isinstance(value, list | tuple):
            raise PydanticCustomError("members", "should be a list of learners, as in [softmax, tabular]")
        return tuple(self._one(node, (place,)) for place, node in enumerate(cast("Sequence[Any]", value)))

    @staticmethod
    def _one(node: Any, path: tuple[int, ...]) -> Member:
        try:
            return member_from(node)
        except MapstoError as error:
            message = str(error)
            if not path:
                raise PydanticCustomError("member", "{message}", {"message": message}) from error
            raise PydanticCustomError(
                "nested", "{message}", {"message": message, "details": [(path, message)]}
            ) from error

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        names = [name.removeprefix(_FAMILY) for name in discovery.entries("mappings") if name.startswith(_FAMILY)]
        fields = {name: {"type": ["object", "null"]} for name in names}
        whole = {"type": "object", "properties": fields, "minProperties": 1, "maxProperties": 1}
        one = {"anyOf": [{"enum": names}, {**whole, "additionalProperties": False}]}
        if self._many:
            return {"type": "array", "items": one}
        return {"anyOf": [one, {"type": "null"}]} if self._optional else one


MemberList: TypeAlias = Annotated[tuple[Member, ...], _Nodes(many=True)]
"""Learners, each by its name or with its fields."""
OneMember: TypeAlias = Annotated[Member, _Nodes(many=False)]
"""A learner by its name or with its fields."""
OptionalMember: TypeAlias = Annotated[Member | None, _Nodes(many=False, optional=True)]
"""The same, or none."""


# ------------------------------------------------------------------------------------------------------------------ state


def arrays_of(learners: Mapping[str, StreamLearner]) -> dict[str, NDArray[Any]]:
    """The arrays of learners, each under its name and a dot."""
    return {f"{at}.{name}": array for at, each in learners.items() for name, array in each.arrays().items()}


def values_of(learner: StreamLearner, version: int) -> dict[str, Any]:
    """What of a learner's state is no array, its signature among it."""
    return {"version": version, "signature": dataclasses.asdict(learner.signature), "values": learner.values()}


def restored(
    member: Member,
    task: Task,
    at: str,
    arrays: Mapping[str, NDArray[np.generic]],
    values: Mapping[str, Json],
    types: Mapping[str, ColumnType],
    base: Network | Package | None = None,
    *,
    common: Mapping[str, Any] = _NOTHING,
) -> StreamLearner:
    """The learner that `arrays_of` under the name `at` and `values_of` hold. Raises `ValueError` or `LookupError` where they do not fit."""
    if values["version"] != member.fingerprint():
        raise ValueError(f"{member.learner} was of version {values['version']}, and is of {member.fingerprint()} now")
    learner = member.made(types, task, base, common=common)
    own = under(f"{at}.", arrays)
    signature = EventSignature.from_plain(cast("Mapping[str, Any]", values["signature"]))
    learner.restore(signature, own, cast("Mapping[str, Any]", values["values"]))
    return learner


def under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

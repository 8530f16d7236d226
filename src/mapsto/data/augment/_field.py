"""The field that holds a list of augmentations, of values or of nodes as YAML gives them: ``[flip, crop: {padding: 4}]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

from pydantic import TypeAdapter
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from mapsto import discovery
from mapsto.data.augment._auto import AUTO, Auto
from mapsto.data.augment._base import Augmentation
from mapsto.errors import MapstoError, SpecError, nearest

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

__all__ = ["Augmentations", "AugmentationsOrAuto", "refuse_mixing"]

_FORM = "a list of augmentations, as in [flip, crop: {padding: 4}]"
_Detail: TypeAlias = "tuple[tuple[str | int, ...], str]"


class _List:
    """Marks a field as a list of augmentations; all errors of the list are found at once, each with its place.

    With `auto` the field may also be ``auto``: the mapping chooses them.
    """

    def __init__(self, *, auto: bool = False) -> None:
        self._auto = auto

    def validate(self, value: Any) -> tuple[Augmentation, ...] | Auto:
        """The augmentations in their order; pydantic's own error where they are none."""
        if isinstance(value, Auto) or value == "auto":
            if self._auto:
                return AUTO
            text = f"should be {_FORM}: this cannot choose them, as adapt.finetune and other adapt.* with `augment: auto` can"
            raise PydanticCustomError("augmentations", "{text}", {"text": text})
        if not isinstance(value, (list, tuple)):
            form = f"{_FORM}, or auto" if self._auto else _FORM
            raise PydanticCustomError("augmentations", "should be {form}", {"form": form})
        operations: list[Augmentation] = []
        details: list[_Detail] = []
        for place, node in enumerate(cast("Sequence[Any]", value)):
            try:
                operations.append(node if isinstance(node, Augmentation) else _built(node))
            except SpecError as error:
                details += [((place, *path), message) for path, message in error.details or (((), error.what),)]
            except MapstoError as error:
                details.append(((place,), str(error)))
        details = details or list(_misplaced(operations))
        if details:
            message = "; ".join(text for _, text in details)
            raise PydanticCustomError("nested", "{message}", {"message": message, "details": details})
        return tuple(operations)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        known = {name.removeprefix("augment."): {"anyOf": [_schema_of(name), {"type": "null"}]} for name in _names()}
        one = {"type": "object", "properties": known, "additionalProperties": False}
        whole = {"anyOf": [{"enum": list(known)}, {**one, "minProperties": 1, "maxProperties": 1}]}
        listed = {"type": "array", "items": whole, "x-kind": "augmentations"}
        return {"anyOf": [{"enum": ["auto"]}, listed]} if self._auto else listed


Augmentations: TypeAlias = Annotated[tuple[Augmentation, ...], _List()]
"""A list of augmentations, applied in its order; none by default."""
AugmentationsOrAuto: TypeAlias = Annotated[tuple[Augmentation, ...] | Auto | Literal["auto"], _List(auto=True)]
"""The same, or ``auto``, for mappings that can choose: see `mapsto.nn.adapt.augment_policy`."""


def refuse_mixing(
    operations: Sequence[Augmentation], why: str, *, where: str, field: str = "augment", by_class: bool = False
) -> None:
    """Raises `SpecError` where an operation mixes samples; `why` says what of a loss rules that out.

    With `by_class` also where one takes values from other samples of the same class, which leaves targets as they are.
    """
    details = [
        ((field, at), f"{each.name} {'mixes samples' if each.mixes else 'takes values from other samples'}, but {why}")
        for at, each in enumerate(operations)
        if each.mixes or (by_class and each.by_class)
    ]
    if details:
        message = "; ".join(text for _, text in details)
        raise SpecError(message, where=where, hint=f"leave it out of {field}", details=details)


def _built(node: Any) -> Augmentation:
    """An augmentation from its name, or from ``{name: {fields}}``. Raises `SpecError`."""
    named = cast("dict[Any, Any]", {node: None} if isinstance(node, str) else node)
    if not isinstance(named, dict) or len(named) != 1:
        raise SpecError(f"an augmentation is its name, or one name with its fields, got {node!r}"[:200])
    ((name, fields),) = named.items()
    known = {entry.removeprefix("augment."): entry for entry in _names()}
    if name not in known:
        raise SpecError(f"unknown augmentation '{name}' ({nearest(str(name), known)})", details=_at(node, name, known))
    if fields is not None and not isinstance(fields, dict):
        message = f"the fields of '{name}' are not a mapping of names to values: {fields!r}"[:200]
        raise SpecError(message, details=[((name,), message)])
    try:
        return discovery.find("augment", known[name])(**{str(key): part for key, part in (fields or {}).items()})
    except SpecError as error:
        whole = f"{error.what} ({error.hint})" if error.hint else error.what
        details = [((name, *path), text) for path, text in error.details or (((), whole),)]
        raise SpecError(error.what, where=name, details=details) from error


def _names() -> list[str]:
    return list(discovery.entries("augment"))


@cache
def _schema_of(name: str) -> dict[str, Any]:
    """The JSON schema of an augmentation's fields; of one whose package is not whole, that there are some."""
    try:
        return TypeAdapter(discovery.find("augment", name)).json_schema()
    except MapstoError:
        return {"type": "object"}


def _at(node: Any, name: Any, known: dict[str, str]) -> list[_Detail]:
    """Where in its list an unknown name stands: in a mapping at its key."""
    message = f"unknown augmentation '{name}' ({nearest(str(name), known)})"
    return [(() if isinstance(node, str) else (str(name),), message)]


def _misplaced(operations: Sequence[Augmentation]) -> Iterator[_Detail]:
    """What changes single samples comes before they are prepared, what mixes comes after: so it is in the list too."""
    first = next((at for at, each in enumerate(operations) if each.mixes), len(operations))
    for place in range(first + 1, len(operations)):
        if not operations[place].mixes:
            mixer = operations[first].name
            yield (
                (place,),
                f"{operations[place].name} stands after {mixer}, which mixes changed samples; write it before",
            )

"""What every value of mapsto is: a frozen dataclass whose fields are checked when it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeAlias, cast, dataclass_transform

import pydantic
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import ArgsKwargs

from mapsto.errors import SpecError, nearest

__all__ = ["Frozen", "Json"]


_LONGEST = 200
"""Letters of a value in a message."""

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def _spec_error(cls: type, error: ValidationError) -> SpecError:
    """Pydantic's findings in one sentence: every wrong field, what was given, what is allowed."""
    known = [f.name for f in dataclasses.fields(cls)]
    details: list[tuple[tuple[str | int, ...], str]] = []
    found = error.errors(include_url=False)
    inside = {item["loc"][:-1] for item in found}
    for item in found:
        path = tuple(item["loc"])
        if item["type"] == "too_short" and path in inside:
            continue  # it is too short only without its members that are wrong, each of which is told
        place = ".".join(str(part) for part in path) or "value"
        nested: Any = item.get("ctx", {}).get("details")
        if nested:
            details += [((*path, *inner), message) for inner, message in nested]
        elif item["type"] == "unexpected_keyword_argument":
            details.append((path, f"unknown field '{place}' ({nearest(place, known)})"))
        elif item["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            details.append(((), f"field '{place}' is missing"))
        else:
            message = item["msg"][:1].lower() + item["msg"][1:]
            details.append((path, f"field '{place}': {message}, got {_short(item['input'])}"))
    return SpecError("; ".join(message for _, message in details), where=cls.__name__, details=details)


def _short(given: Any) -> str:
    """What was given, such as an array, in no more letters than can be read at a glance."""
    text = repr(given)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field, pydantic.Field))
class Frozen:
    """A base whose subclasses are frozen, keyword-only pydantic dataclasses.

    Fields are validated when written; a wrong one raises `SpecError` that names the field, what was given and what is
    allowed. The string under a field is its description in the command line, the JSON schema and the docs.

    >>> class Point(Frozen):
    ...     x: int = Field(default=0, ge=0)
    >>> Point(x=3).x
    3
    >>> Point(y=3)
    Traceback (most recent call last):
    mapsto.errors.SpecError: Point: unknown field 'y' (known: x)
    """

    config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], *, context: Mapping[str, Any]) -> Self:
        """As ``cls(**fields)``, where the fields' validators are given `context` (pydantic's ``info.context``). Raises `SpecError`."""
        try:
            made = cast("Any", cls).__pydantic_validator__.validate_python(
                ArgsKwargs((), dict(fields)), context=context
            )
        except ValidationError as error:
            raise _spec_error(cls, error) from None
        return cast("Self", made)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        pydantic_dataclass(cls, frozen=True, kw_only=True, config=Frozen.config)
        validated: Callable[..., None] = cls.__init__

        def checked(self: Frozen, /, *args: Any, **values: Any) -> None:
            try:
                validated(self, *args, **values)
            except ValidationError as error:
                raise _spec_error(cls, error) from None

        checked.__wrapped__ = validated  # type: ignore[attr-defined]
        checked.__pydantic_base_init__ = True  # type: ignore[attr-defined]
        cls.__init__ = checked  # type: ignore[method-assign]

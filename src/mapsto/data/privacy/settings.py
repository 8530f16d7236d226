"""What is personal in texts, and what becomes of it: the entry ``serve: privacy`` of a recipe, and files of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml

from mapsto.errors import SpecError

__all__ = ["USUAL", "Action", "Coarsen", "FieldAction", "Privacy"]

Action = Literal["mask", "hash", "drop"]
"""Of a text that is recognised: its kind stands in its place, or a keyed pseudonym does, or the whole item is not stored."""
USUAL = ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "MAC_ADDRESS")
"""Entities that are masked where a setting names none."""


def _is_regular(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"'{text}' is no regular expression: {error}") from error
    if re.search(text, "") is not None:
        raise ValueError(f"'{text}' matches an empty text, and so everywhere")
    return text


_Regular = Annotated[str, pydantic.AfterValidator(_is_regular)]
_Name = Annotated[str, pydantic.Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]


class Coarsen(pydantic.BaseModel):
    """A number rounded to a multiple of a step, or a date to its month or year."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    coarsen: Annotated[float, pydantic.Field(gt=0)] | Literal["month", "year"]


FieldAction = Literal["drop", "hash"] | Coarsen
"""Of a table's field: no value is stored, another of its categories is, under a key, or a coarser value."""


class Privacy(pydantic.BaseModel):
    """What is personal, and what becomes of it before it is stored."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    entities: Mapping[str, Action] = pydantic.Field(
        default_factory=lambda: dict.fromkeys(USUAL, "mask"),
        description="{ENTITY: mask, hash or drop}, as {EMAIL_ADDRESS: hash}",
    )
    patterns: Mapping[_Name, _Regular] = pydantic.Field(
        default_factory=dict, description="{ENTITY: regular expression} of your own, each named in entities too"
    )
    fields: Mapping[str, FieldAction] = pydantic.Field(
        default_factory=dict,
        description="{FIELD: drop, hash, {coarsen: STEP}, {coarsen: month} or {coarsen: year}}; a name may be a pattern, as '*_id'",
    )
    threshold: float = pydantic.Field(
        0.3, gt=0, le=1, description="the least score of a pattern that counts, above 0, at most 1"
    )
    callers: Literal["keep", "hash"] = pydantic.Field(
        "keep", description="keep or hash: the names of callers in the log of requests"
    )
    keep_days: float | None = pydantic.Field(None, gt=0, description="days after which what is kept is deleted")
    key: str = pydantic.Field("", description="a file that holds the key of pseudonyms; made where it is missing")

    @pydantic.model_validator(mode="after")
    def _named(self) -> Privacy:
        missing = sorted(set(self.patterns) - set(self.entities))
        if missing:
            raise ValueError(f"patterns: {missing[0]} is not among entities, which say what becomes of it")
        return self

    @classmethod
    def of_file(cls, path: Path) -> Privacy:
        """The settings in a YAML file. Raises `SpecError` where it cannot be read or something in it is wrong."""
        try:
            tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise SpecError("there is no such file", where=str(path), hint="see docs/privacy.md for one") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SpecError(f"cannot be read as YAML ({type(error).__name__})", where=str(path)) from error
        return cls.of(tree or {}, where=str(path))

    @classmethod
    def of(cls, tree: Any, *, where: str) -> Privacy:
        """The settings of a plain value. Raises `SpecError` that names what is wrong."""
        try:
            return cls.model_validate(tree)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
            allowed = cls.model_fields.get(str(first["loc"][0])) if first["loc"] else None
            said = f"privacy: {place}: {first['msg']}" if place else f"privacy: {first['msg']}"
            hint = (
                f"give {allowed.description}" if allowed is not None else f"entries are {', '.join(cls.model_fields)}"
            )
            raise SpecError(said, where=where, hint=hint) from error

    def plain(self) -> dict[str, Any]:
        """As JSON, from which `of` makes it again."""
        return self.model_dump(mode="json")

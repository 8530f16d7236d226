"""How far an adversary may move an input: the fields that every mapping with attacks shares. This file imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from mapsto.errors import DomainError
from mapsto.kinds import Frozen, Network, Signature

__all__ = ["Attacked", "Radius", "radius", "require_attackable"]


def radius(given: Any) -> Any:
    """A radius as a number: ``8/255``, as the literature writes it, or 0.031.

    >>> radius("8/255") == 8 / 255, radius(0.5)
    (True, 0.5)
    """
    if not isinstance(given, str):
        return given
    over, line, under = given.partition("/")
    try:
        value = float(over) / (float(under) if line else 1.0)
    except (ValueError, ZeroDivisionError):
        raise PydanticCustomError("radius", "should be a number or a fraction such as 8/255") from None
    return value


Radius = Annotated[
    float,
    Field(gt=0, le=1e6),
    BeforeValidator(radius),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^[\d.]+(/\d+)?$"}]}
    ),
]
"""A distance in units of the way from black to white: 8/255 is eight steps of a byte. In YAML ``8/255`` or a number."""


class Attacked(Frozen):
    """The fields of every mapping that attacks a network."""

    norm: Literal["linf", "l2"] = Field(
        default="linf",
        description="`linf`: every value may move by ε; `l2`: the root of the sum of squared moves of a sample is at most ε.",
    )
    epsilon: Radius = Field(
        default=8 / 255,
        description=(
            "ε, where black is 0 and white 1: `8/255` is usual on CIFAR with `linf`, `0.5` with `l2`; of rows in the rows' own unit."
        ),
    )

    def require_epsilon(self, signature: Signature, *, where: str) -> None:
        """Raises `DomainError` for an ε that was meant in steps of a byte."""
        if signature.preprocessing.kind == "image" and self.norm == "linf" and self.epsilon > 1:
            raise DomainError(
                f"epsilon is {self.epsilon:g}, and from black to white it is 1",
                where=where,
                hint=f"write {self.epsilon:g}/255 if steps of a byte are meant",
            )


def require_attackable(value: Network, *, where: str, headless: bool = False) -> None:
    """Raises `DomainError` for a network whose input cannot be moved a little, or, unless `headless`, that gives no scores of classes."""
    signature = value.signature
    before = signature.preprocessing
    if before.kind == "text" or before.integers or before.ids:
        raise DomainError(
            "the network takes whole numbers such as token ids, which cannot be moved a little",
            where=where,
            hint="attacks are for images and rows of numbers",
        )
    if headless and not signature.is_dense:
        return
    if value.adaptation is not None or signature.answers != "classes" or signature.is_dense:
        raise DomainError(
            "the network gives no scores of classes",
            where=where,
            hint="adapt it first (adapt.centroid, adapt.linear), or give a classifier",
        )

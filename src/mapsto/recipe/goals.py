"""Goals of targets: ``>= 90``, ``<= 1``."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pydantic_core

from mapsto.errors import SpecError

__all__ = ["checked_goal", "goal_of"]


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def goal_of(goal: Any) -> tuple[Callable[[float, float], bool], float]:
    """A target's goal such as ``">= 87"`` as a comparison and its bound. Raises `SpecError` where it is not like that."""
    symbol, _, bound = str(goal).strip().partition(" ")
    try:
        return _COMPARE[symbol], float(bound)
    except (KeyError, ValueError):
        raise SpecError(f"goal {goal!r} is not like '>= 87'", hint="write >=, <=, > or <, and a number") from None


def checked_goal(value: Any) -> Any:
    """A target's goal, checked as pydantic wants it."""
    try:
        goal_of(value)
    except SpecError as error:
        raise pydantic_core.PydanticCustomError(
            "goal", "{message}", {"message": f"{error.what}; {error.hint}"}
        ) from None
    return value

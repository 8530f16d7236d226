"""Lengths of time as users write them: 30d, 12h."""

from __future__ import annotations

import re

from mapsto.errors import SpecError

__all__ = ["days_of"]

_DAYS = {"m": 1 / 1440, "h": 1 / 24, "d": 1.0, "w": 7.0}


def days_of(age: str, *, where: str) -> float:
    """A number and m, h, d or w in days; without a letter it is days.

    Raises
    ------
    SpecError
        It is none; `where` names the option.

    >>> days_of("12h", where="--grace"), days_of("2w", where="--grace"), days_of("3", where="--grace")
    (0.5, 14.0, 3.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw]?)", age.strip())
    if found is None:
        raise SpecError(f"not a length of time: '{age}'", where=where, hint="a number and m, h, d or w, as in 30d")
    return float(found[1]) * _DAYS[found[2] or "d"]

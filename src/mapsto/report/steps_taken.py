"""Which steps of a run lead to what it came to: those of branches that were tried and not taken do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

__all__ = ["steps_taken"]

_Step = TypeVar("_Step", bound=Mapping[str, Any])


def steps_taken(steps: Sequence[_Step]) -> list[_Step]:
    """A report's steps without those of branches whose network is not the one that the run went on with.

    A run that ends with a fork has taken none of its branches, and keeps the steps of all.

    >>> tried = [{"path": "a", "branch": ["a"], "digest": "1"}, {"path": "b", "branch": ["b"], "digest": "2"}]
    >>> [step["path"] for step in steps_taken([*tried, {"path": "chosen", "branch": [], "digest": "2"}])]
    ['b', 'chosen']
    """
    made = [step for step in steps if step.get("of") is None]
    if not made or made[-1].get("branch"):
        return list(steps)
    trunk = {step["digest"] for step in made if step.get("digest") and not step.get("branch")}
    ways = [tuple(step["branch"]) for step in made if step.get("branch") and step.get("digest") in trunk]

    def taken(branch: tuple[str, ...]) -> bool:
        return not branch or any(way[: len(branch)] == branch for way in ways)

    return [step for step in steps if taken(tuple(step.get("branch") or ()))]

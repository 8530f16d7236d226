"""Whether ``mapsto stream --learner online.recommend`` learns ratings, which are values, or the items that users choose, classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mapsto.errors import SpecError
from mapsto.nn.online.recommend.columns import named
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from mapsto.kinds import Stream, Task

__all__ = ["LEARNER", "is_recommender", "task_of_tastes", "task_unseen"]

LEARNER = "online.recommend"
_HEAD = 1000


def is_recommender(learner: str | None) -> bool:
    """Whether it learns who likes what."""
    return learner in (LEARNER, LEARNER.removeprefix("online."))


def task_of_tastes(stream: Stream, target: str, user: str | None, item: str | None, say: Callable[[str], None]) -> Task:
    """Values where a column of users and one of items stand beside a target of numbers, else classes. Says which, and why.

    Parameters
    ----------
    stream
        Whose first events are looked at.
    target
        Its column to learn.
    user, item
        The columns that are named with ``--set``; else they are known by their names, or are the only two.
    say
        Is told what was decided.
    """
    block = next(iter(stream.open(size=_HEAD)), None)
    columns = [] if block is None else [*block.x]
    users = user if user in columns else named("user", columns)
    items = item if item in columns else named("item", [name for name in columns if name != users])
    if user is None and item is None and users is None and items is None and len(columns) == 2:
        users, items = columns
    shown = short(target)
    if item is None and named("item", [target]) is not None:
        say(f"'{shown}' holds items, of which it is learnt which a user chooses next; for ratings: --task values")
        return "classes"
    if users is None or items is None:
        missing = [role for role, name in (("user", users), ("item", items)) if name is None]
        say(
            f"'{shown}' is taken for the items that users choose, since no column of {' and '.join(f'{role}s' for role in missing)} is "
            f"known beside it ({few(columns, 10)}); where it holds ratings: "
            + " ".join(f"--set {role}=COLUMN" for role in missing)
        )
        return "classes"
    labels = [] if block is None else block.y[block.has_y].tolist()
    if labels and 2 * sum(_is_number(label) for label in labels) <= len(labels):
        say(f"'{shown}' holds words, which are taken for the items that users choose; for ratings: --task values")
        return "classes"
    say(
        f"'{shown}' holds numbers, and '{short(users)}' and '{short(items)}' stand beside it, so that ratings are learnt; for "
        "choices: --task classes"
    )
    return "values"


def task_unseen(target: str, item: str | None, file: str) -> Task:
    """By the names alone, of a stream whose first events cannot be looked at. Raises `SpecError` where these do not say it."""
    if item is not None:
        return "values"
    if named("item", [target]) is not None:
        return "classes"
    raise SpecError(
        f"whether '{short(target)}' holds ratings or items cannot be seen before the events come",
        where=file,
        hint="say --task values for ratings, --task classes for the items that users choose",
    )


def _is_number(label: object) -> bool:
    try:
        return bool(np.isfinite(float(str(label))))
    except ValueError:
        return False

"""Labels of shipped recipes that have changed, so that a command which sets one is told its new name."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["new_name"]

_LABELS = {"lessons": "train_tasks", "drills": "distill_tasks", "rehearsals": "val_tasks", "exam": "test_tasks"}


def new_name(label: str, known: Collection[str]) -> str | None:
    """What a label is called now, where that is known to the recipe.

    >>> new_name("rehearsals", ["train_tasks", "val_tasks"]), new_name("rehearsals", ["mine"]), new_name("other", ["val_tasks"])
    ('val_tasks', None, None)
    """
    found = _LABELS.get(label)
    return found if found in known else None

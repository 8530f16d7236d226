"""By which names columns of users and of items are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["ITEM_NAMES", "USER_NAMES", "named"]

USER_NAMES = ("user", "user_id", "userid", "user id")
ITEM_NAMES = ("item", "item_id", "itemid", "item id")
_NAMES: Mapping[str, tuple[str, ...]] = {"user": USER_NAMES, "item": ITEM_NAMES}


def named(role: str, columns: Iterable[str]) -> str | None:
    """The first column that is called as users, or items, usually are.

    >>> named("user", ["Item-ID", "User-ID"]), named("item", ["user"])
    ('User-ID', None)
    """
    return next((name for name in columns if name.lower().replace("-", "_") in _NAMES[role]), None)

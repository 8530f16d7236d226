"""What many steps say alike, once: the branches and folds of a search warn of one thing, often with other figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["MOST_ALIKE", "Together", "form", "names", "together"]

MOST_ALIKE = 3
"""So many texts that differ in nothing but figures are each shown; of more only the first."""
_NAMED = 3


class Together(NamedTuple):
    """A text and the steps that say it."""

    paths: tuple[str, ...]
    text: str

    @property
    def path(self) -> str:
        """The steps by name."""
        return names(self.paths)


def form(text: str) -> str:
    """A text without its figures.

    >>> form("fell from 90.5 to 45 %") == form("fell from 8 to 1,000 %")
    True
    """
    return re.sub(r"\d+(?:[.,]\d+)*", "#", text)


def names(paths: Sequence[str]) -> str:
    """The first names and how many more there are.

    >>> names("abc"), names("abcde")
    ('a, b, c', 'a, b, c and 2 more')
    """
    shown = ", ".join(paths[:_NAMED])
    return f"{shown} and {len(paths) - _NAMED} more" if len(paths) > _NAMED else shown


def together(said: Iterable[tuple[str, str]]) -> list[Together]:
    """Each text once, with the paths of all who say it; of many that differ in figures alone the first, which says so.

    >>> together([("a", "lost 3 %"), ("b", "lost 4 %"), ("c", "lost 3 %")])
    [Together(paths=('a', 'c'), text='lost 3 %'), Together(paths=('b',), text='lost 4 %')]
    >>> together((name, f"lost {place} %") for place, name in enumerate("abcd"))
    [Together(paths=('a', 'b', 'c', 'd'), text='lost 0 % (the figures are those of a; the steps below have the others)')]
    """
    texts: dict[str, list[str]] = {}
    for path, text in said:
        texts.setdefault(text, []).append(path)
    alike: dict[str, list[str]] = {}
    for text in texts:
        alike.setdefault(form(text), []).append(text)
    found: list[Together] = []
    for group in alike.values():
        if len(group) <= MOST_ALIKE:
            found += [Together(tuple(texts[text]), text) for text in group]
            continue
        paths = tuple(path for text in group for path in texts[text])
        first = f"{group[0]} (the figures are those of {paths[0]}; the steps below have the others)"
        found.append(Together(paths, first))
    return found

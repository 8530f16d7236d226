"""Searches over recipes: holes for recipes that are written in Python, and a search of them or of a file.

from mapsto import search

tree = {..., "steps": [..., {"prune.taylor": {"macs": search.range(0.1, 0.9), "data": "$train"}}, ...]}
found = search.run(tree, objectives=["accuracy:max", "macs:min"], trials=20, out="runs/search")
found.best.holes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mapsto.search.from_python import choice, range, run

__all__ = ["choice", "range", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mapsto.search' has no attribute '{name}'")
    from mapsto.search import from_python

    return getattr(from_python, name)

"""The names of the methods against forgetting, which are those of the files in ``mapsto/nn/online/memory/``; imports none of them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["METHODS", "method_names"]

METHODS = "mapsto.nn.online.memory"
"""The folder of methods."""


def method_names() -> list[str]:
    """In alphabetical order.

    >>> {"none", "replay", "derpp"} <= set(method_names())
    True
    """
    folder = Path(__file__).parents[1] / METHODS.rpartition(".")[2]
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))

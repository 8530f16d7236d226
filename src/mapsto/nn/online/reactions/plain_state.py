"""A state of numbers, texts and arrays as JSON, and back: what detectors keep is small, and lies among a model's values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["plain_state", "state_of"]


def plain_state(tree: Any) -> Any:
    """The state as JSON.

    >>> state = {"sums": np.array([1, 2]), "count": 3}
    >>> plain = plain_state(state)
    >>> plain["count"], state_of(plain)["sums"].tolist(), state_of(plain)["sums"].dtype == state["sums"].dtype
    (3, [1, 2], True)
    """
    if isinstance(tree, np.ndarray):
        array = cast("NDArray[Any]", tree)
        return {"array": array.tolist(), "type": array.dtype.str}
    if isinstance(tree, dict):
        return {name: plain_state(each) for name, each in cast("dict[str, Any]", tree).items()}
    if isinstance(tree, list | tuple):
        return [plain_state(each) for each in cast("list[Any]", tree)]
    return tree


def state_of(tree: Any) -> Any:
    """The state that `plain_state` made JSON of."""
    if isinstance(tree, dict):
        named = cast("dict[str, Any]", tree)
        if {*named} == {"array", "type"}:
            return np.array(named["array"], named["type"])
        return {name: state_of(each) for name, each in named.items()}
    return [state_of(each) for each in cast("list[Any]", tree)] if isinstance(tree, list) else tree

"""A state of numbers, texts and arrays as JSON, and back: what detectors keep is small, and lies among a model's values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["plain_state", "state_of"]


def plain_state(tree: Any) -> Any:
    """The state as JSON.

    >>> state = {"sums": np.array([1, 2]), "least": float("inf"), "far": np.array([0.5, -np.inf])}
    >>> plain = plain_state(state)
    >>> state_of(plain)["sums"].tolist(), state_of(plain)["least"], state_of(plain)["far"].tolist()
    ([1, 2], inf, [0.5, -inf])
    >>> state_of(plain)["sums"].dtype == state["sums"].dtype
    True
    """
    if isinstance(tree, np.ndarray):
        array = cast("NDArray[Any]", tree)
        return {
            "array": [_plain(value) for value in array.reshape(-1).tolist()],
            "type": array.dtype.str,
            "shape": [*array.shape],
        }
    if isinstance(tree, dict):
        return {name: plain_state(each) for name, each in cast("dict[str, Any]", tree).items()}
    if isinstance(tree, list | tuple):
        return [plain_state(each) for each in cast("list[Any]", tree)]
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"number": _plain(tree)}
    return tree


def _plain(value: Any) -> Any:
    """A number; as a text where JSON has none for it."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def state_of(tree: Any) -> Any:
    """The state that `plain_state` made JSON of."""
    if isinstance(tree, dict):
        named = cast("dict[str, Any]", tree)
        if {*named} == {"array", "type", "shape"}:
            return np.array(named["array"], object).astype(named["type"]).reshape(named["shape"])
        if {*named} == {"number"}:
            return float(named["number"])
        return {name: state_of(each) for name, each in named.items()}
    return [state_of(each) for each in cast("list[Any]", tree)] if isinstance(tree, list) else tree

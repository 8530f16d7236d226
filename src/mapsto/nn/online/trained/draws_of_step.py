"""A generator for each step of an online learner: a function of its seed and of a counter in its state."""

from __future__ import annotations

import numpy as np

__all__ = ["draws_of"]


def draws_of(seed: int, step: int, purpose: int = 0) -> np.random.Generator:
    """The generator of a step; those of other purposes are independent of it.

    >>> int(draws_of(0, 5).integers(100)) == int(draws_of(0, 5).integers(100))
    True
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, purpose, step]))

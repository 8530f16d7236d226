"""Over how many classes answers are spread: what shows that they have collapsed, without a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["answered_classes"]


def answered_classes(answers: NDArray[np.int64], classes: int) -> float:
    """As many classes, equally often, as answers (M,) come to: the exponential of their entropy, 1 to `classes`.

    >>> round(answered_classes(np.array([0, 0, 1, 1]), 5), 6)
    2.0
    """
    shares = np.bincount(answers, minlength=classes) / max(len(answers), 1)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))

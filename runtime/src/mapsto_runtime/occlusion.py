"""Which parts of a sample an answer rests on: hide each, and see how much the score falls. Only the network's answers are needed.

``score_p = mean over windows w that hide p of (s(x) − s(x without w))``, s the log-odds of the class that is explained (Zeiler and Fergus,
"Visualizing and Understanding Convolutional Networks", 2014; of words Li, Monroe and Jurafsky, "Understanding Neural Networks through
Representation Erasure", 2016). So it works on an int8 package as on any other, where no gradient is to be had.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mapsto_runtime.parts import Parts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["log_odds", "occlusion"]

_BATCH = 64


def log_odds(outputs: NDArray[Any], place: int, answers: str) -> NDArray[np.float64]:
    """What is explained, shape (N,): of classes ``z_k − log Σ_{j≠k} exp z_j``, which does not level off where a network is very sure; of
    labels that stand by themselves, and of values, the output itself.

    >>> import numpy as np
    >>> log_odds(np.log([[0.8, 0.2], [0.5, 0.5]]), 0, "classes").round(3).tolist()
    [1.386, 0.0]
    """
    import numpy as np

    rows = outputs.astype(np.float64)
    if answers != "classes" or rows.shape[1] < 2:
        return rows[:, place]
    others = np.delete(rows, place, axis=1)
    largest = others.max(1)
    return rows[:, place] - largest - np.log(np.exp(others - largest[:, None]).sum(1))


def occlusion(
    parts: Parts, score: Callable[[NDArray[Any]], NDArray[np.float64]], *, whole: float | None = None
) -> NDArray[np.float64]:
    """How much each part speaks for what is explained, shape (parts,); negative speaks against it.

    Parameters
    ----------
    parts
        The sample.
    score
        Inputs (M, ...) → what is explained (M,); called with at most 64 at once.
    whole
        The score of the whole sample, where it is known.
    """
    import numpy as np

    windows = parts.windows()
    if whole is None:
        whole = float(score(parts.without(np.zeros((1, windows.shape[1]), np.bool_)))[0])
    starts = range(0, len(windows), _BATCH)
    falls = whole - np.concatenate([score(parts.without(windows[start : start + _BATCH])) for start in starts])
    return (falls @ windows) / windows.sum(0)

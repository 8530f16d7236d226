"""What a challenger says of events as labels, for a learner that is taught by labels alone.

A label is drawn by the challenger's probabilities, anew in each pass: the expected gradient of a log loss is then that of distillation with
soft labels (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015). A value is what it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.draws import number_below

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Task

__all__ = ["soft_labels"]

_PASSES = 3


def soft_labels(
    scores: NDArray[np.float64], names: Sequence[str], task: Task, *, seed: int, event: int
) -> Iterator[list[Any]]:
    """Labels (n,) of each pass, from scores (n, classes) or values (n, 1); drawn by the seed and the event at which it is done.

    >>> passes = list(soft_labels(np.array([[0.5, 0.5]] * 40), ("a", "b"), "classes", seed=0, event=100))
    >>> len(passes), {*passes[0]} == {"a", "b"}, passes[0] == passes[1]
    (3, True, False)
    """
    for each in range(_PASSES):
        if task == "values":
            yield scores[:, 0].tolist()
            continue
        labels: list[Any] = []
        for place, row in enumerate(scores):
            shares = np.cumsum(np.nan_to_num(row))
            at = number_below(2**53, seed, event * _PASSES + each * 2**40 + place) * 2.0**-53 * float(shares[-1])
            labels.append(names[min(int((shares <= at).sum()), len(names) - 1)])
        yield labels

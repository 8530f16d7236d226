"""Tasks that are made rather than drawn from a data set: each has samples of its own, deterministic in (seed, index)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.errors import DomainError
from mapsto.kinds import Episode, Episodes, Preprocessing, Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Made", "MadeEpisodes", "made_episode", "regression_episode", "task_generator"]

Made = Callable[[np.random.Generator], Episode]
"""A generator → a task."""


def task_generator(seed: int, index: int) -> np.random.Generator:
    """The generator of the task of that number. Raises `DomainError` where it is negative."""
    if index < 0:
        raise DomainError(f"episodes are numbered from 0, got {index}", where="episodes")
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))


class MadeEpisodes(Episodes):
    """Tasks made one by one.

    Parameters
    ----------
    make
        Makes a task from its generator.
    ways, shots, queries
        Of each task; `ways` is 0 for regression.
    seed
        0 to 2**63 - 1.
    """

    def __init__(self, make: Made, *, ways: int, shots: int, queries: int, seed: int) -> None:
        self._make, self._seed = make, seed
        self.ways, self.shots, self.queries = ways, shots, queries

    @cached_property
    def samples(self) -> Samples:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the first task."""
        return self[0].samples

    def __getitem__(self, index: int) -> Episode:
        return self._make(task_generator(self._seed, index))


def regression_episode(inputs: NDArray[Any], targets: NDArray[Any], shots: int, names: tuple[str, ...]) -> Episode:
    """A regression task: `shots` rows to learn from, then the queries; inputs (S + Q, D), targets (S + Q, K)."""
    labels = targets.astype(np.float32)
    return Episode(
        samples=Samples(
            inputs=inputs.astype(np.float32), labels=labels, classes=names, preprocessing=Preprocessing(kind="none")
        ),
        support_indices=np.arange(shots),
        support_labels=labels[:shots],
        query_indices=np.arange(shots, len(labels)),
        query_labels=labels[shots:],
        classes=(),
    )


def made_episode(
    inputs: NDArray[Any], shots: int, preprocessing: Preprocessing, classes: Sequence[int] | None = None
) -> Episode:
    """A task of classes from its samples (ways, shots + queries, ...), the first `shots` of each to learn from.

    `classes` are the data set's labels of the ways; by default they are numbered.
    """
    ways, each = inputs.shape[:2]
    places, numbers = np.arange(ways * each).reshape(ways, each), np.arange(ways)
    named = tuple(classes) if classes is not None else tuple(range(ways))
    return Episode(
        samples=Samples(
            inputs=inputs.reshape(-1, *inputs.shape[2:]),
            labels=np.repeat(numbers, each),
            classes=tuple(map(str, range(ways))),
            preprocessing=preprocessing,
        ),
        support_indices=places[:, :shots].ravel(),
        support_labels=np.repeat(numbers, shots),
        query_indices=places[:, shots:].ravel(),
        query_labels=np.repeat(numbers, each - shots),
        classes=named,
    )

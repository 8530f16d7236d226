"""Which of several embeddings to go on with: the first, unless labelled examples say that another is better by more than chance.

Each example is answered by a ridge regression on the root of the embedding that was fitted without it. Another embedding is taken where
its log-loss is lower by more than so many standard errors of the difference, example by example, and no fewer examples are right (the
one-standard-error rule: Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees", 1984).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.adapt import ridge

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["JudgedEmbedding", "choose_embedding"]


@dataclass(frozen=True, kw_only=True)
class JudgedEmbedding:
    """How an embedding did on examples that were left out in turn, and against the first one."""

    name: str
    accuracy: float
    """Share of examples that are answered right, 0 to 1."""
    log_loss: float
    """In nats."""
    more_right: float
    """Its accuracy less the first one's."""
    more_right_error: float
    """One standard error of that over the examples."""
    gain: float
    """By how much its log-loss is below the first one's."""
    gain_error: float
    """One standard error of that over the examples."""

    def is_better(self, errors: float) -> bool:
        """Whether it is better than the first by more than so many standard errors."""
        return self.gain > errors * self.gain_error + 1e-9 and self.more_right >= 0


def choose_embedding(
    embeddings: Mapping[str, NDArray[Any]], labels: NDArray[np.int64], classes: int, *, errors: float = 1.0
) -> tuple[str, tuple[JudgedEmbedding, ...]]:
    """The name of the embedding to go on with, and how each did; of those that are surely better than the first the best.

    Parameters
    ----------
    embeddings
        Name → features (N, D) of the examples; the first is kept in doubt.
    labels, classes
        Class numbers (N,), K; a class with one example is learnt from and not judged. Where no class has two, nothing is judged.
    errors
        Standard errors.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(60) % 3
    >>> good = np.eye(3)[labels] + 0.1 * rng.normal(size=(60, 3))
    >>> choose_embedding({"noise": rng.normal(size=(60, 3)), "good": good}, labels, 3)[0]
    'good'
    >>> choose_embedding({"good": good, "noise": rng.normal(size=(60, 3))}, labels, 3)[0]
    'good'
    """
    judged = np.bincount(labels, minlength=classes)[labels] > 1
    first = next(iter(embeddings))
    if not judged.any():
        return first, ()
    right: dict[str, NDArray[np.float64]] = {}
    losses: dict[str, NDArray[np.float64]] = {}
    for name, features in embeddings.items():
        found = ridge.fitted(ridge.rooted(np.asarray(features, np.float64)), labels, classes, normalise=True)
        right[name] = (found.left_out[judged].argmax(1) == labels[judged]).astype(np.float64)
        losses[name] = found.losses
    told = tuple(_judged(name, right, losses, first) for name in embeddings)
    better = [each for each in told if each.name != first and each.is_better(errors)]
    best = max(better, key=lambda each: each.gain, default=None)
    return first if best is None else best.name, told


def _judged(
    name: str, right: Mapping[str, NDArray[np.float64]], losses: Mapping[str, NDArray[np.float64]], first: str
) -> JudgedEmbedding:
    more, gains = right[name] - right[first], losses[first] - losses[name]
    return JudgedEmbedding(
        name=name,
        accuracy=float(right[name].mean()),
        log_loss=float(losses[name].mean()),
        more_right=float(more.mean()),
        more_right_error=_error(more),
        gain=float(gains.mean()),
        gain_error=_error(gains),
    )


def _error(values: NDArray[np.float64]) -> float:
    """The standard error of the mean."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("inf")

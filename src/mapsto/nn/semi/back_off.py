"""Whether a pool without labels helps, judged on the labelled examples: each is answered by heads that were fitted without its label.

With the pool and without it the same folds are held out in turn, several times over where there are few examples. The pool is used unless
the answers without it are right more often. Where no class has two labelled examples nothing can be held out: then the pool is used,
since with one label a class label propagation helped wherever it was measured (docs/unlabelled.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context

__all__ = ["Judgement", "Scores", "judged"]

Scores: TypeAlias = "Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Any]]"
"""(places of the labelled examples to learn from, places to answer) → scores (n, K) of the latter."""
FOLDS = 5
ANSWERS, REPEATS = 150, 5
"""Cross-validations are repeated, with folds of their own, until there are so many answers, and at most so often."""
_SCALES = tuple(10 ** (step / 12) for step in range(-12, 25))
"""Tried for the scores with the pool."""


@dataclass(frozen=True)
class Judgement:
    """What cross-validation said."""

    helps: bool
    """Whether the pool is used."""
    answers: int
    """Held-out answers that were judged; 0 where nothing could be held out."""
    with_pool: float = float("nan")
    """Share of right answers, 0 to 1."""
    without: float = float("nan")
    scale: float = 1.0
    """What the scores with the pool are to be multiplied by, so that their softmax is likeliest for the held-out labels (Guo et al., "On
    Calibration of Modern Neural Networks", 2017)."""

    def say(self, ctx: Context, *, pool: int) -> None:
        """Note what was decided and by which figures."""
        if not self.answers:
            ctx.note(
                f"the pool of {pool} samples is used without a test: with one labelled example a class none can be held out; "
                "set back_off: never to silence this, or label one more of each class"
            )
            return
        figures = (
            f"{100 * self.with_pool:.1f} % with it, {100 * self.without:.1f} % without, of {self.answers} answers to labelled "
            "examples held out in turn"
        )
        if self.helps:
            ctx.note(f"the pool of {pool} samples is used: {figures}")
        else:
            ctx.note(f"the pool of {pool} samples is not used, for it hurts: {figures}")


def judged(
    labels: NDArray[np.int64],
    with_pool: Scores,
    without: Scores,
    rng: np.random.Generator,
    *,
    folds: int = FOLDS,
    repeats: int = REPEATS,
) -> Judgement:
    """Compare two ways to answer held-out examples.

    Parameters
    ----------
    labels
        Class numbers (N,).
    with_pool, without
        Each fits on some examples and scores others.
    rng
        Deals the examples to folds.
    folds
        At most so many, and no more than the largest class has examples.
    repeats
        Cross-validations at most, each with folds of its own: more of them make the comparison steadier where there are few examples.
    """
    from mapsto.nn.adapt.cross_validation import folds_of, likeliest_scale

    most = int(np.bincount(labels).max())
    right, total = np.zeros(2), 0
    given: list[NDArray[Any]] = []
    wanted: list[NDArray[np.int64]] = []
    for _ in range(min(repeats, -(-ANSWERS // len(labels))) if most > 1 else 0):
        number = folds_of(labels, min(folds, most), rng)
        for fold in range(int(number.max()) + 1):
            held, known = np.flatnonzero(number == fold), np.flatnonzero(number != fold)
            if not len(held):
                continue
            scores = [way(known, held) for way in (with_pool, without)]
            right += [int((each.argmax(1) == labels[held]).sum()) for each in scores]
            total += len(held)
            given.append(scores[0])
            wanted.append(labels[held])
    if not total:
        return Judgement(helps=True, answers=0)
    shares = right / total
    scale = likeliest_scale(np.concatenate(given), np.concatenate(wanted), _SCALES)
    return Judgement(bool(shares[0] >= shares[1]), total, float(shares[0]), float(shares[1]), scale)

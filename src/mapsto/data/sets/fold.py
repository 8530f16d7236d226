"""One of k folds of another data set, or all others: what cross-validation trains on and judges by.

Each class is dealt to the folds in an order drawn from (seed, class), so that a fold holds its share of every class.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mapsto.kinds import Dataset, Samples
from mapsto.mapping import DataSource

__all__ = ["Fold"]


class Fold(Dataset):
    """The samples outside a fold to learn from, or those inside it to judge by; every class keeps its number.

    >>> from mapsto.data.sets.digits import Digits
    >>> [len(Fold(data=Digits(), folds=3, number=number, part="judge").open()) for number in range(3)]
    [602, 599, 596]
    >>> len(Fold(data=Digits(), folds=3, number=0).open())
    1195
    """

    data: DataSource
    """What is dealt: one class for each sample."""
    folds: int = Field(default=5, ge=2)
    """How many folds there are; a class with fewer samples is missing in some."""
    number: int = Field(default=0, ge=0)
    """Which fold, from 0."""
    part: Literal["learn", "judge"] = "learn"
    """All samples outside the fold, or those inside it."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides which samples are in which fold."""

    def __post_init__(self) -> None:
        from mapsto.errors import SpecError

        if self.number >= self.folds:
            raise SpecError(
                f"there is no fold {self.number} of {self.folds}",
                where="fold.number",
                hint=f"give 0 to {self.folds - 1}",
            )

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def open(self) -> Samples:
        import numpy as np

        from mapsto.data.checks import require_labelled, require_some
        from mapsto.data.io.fingerprint import dataset_of
        from mapsto.data.stratify import fold_of_each

        samples = require_some(dataset_of(self.data, where="fold.data").open(), where="fold.data")
        inside = fold_of_each(require_labelled(samples, where="fold.data"), self.folds, self.seed) == self.number
        return require_some(samples.take(np.flatnonzero(inside == (self.part == "judge"))), where="fold")

"""The classes of a data set split into train, validation and test: no class is in two of them.

The classes are put in an order drawn from the seed, and the order is cut twice.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mapsto.kinds import Dataset, Samples
from mapsto.mapping import DataSource

__all__ = ["ClassSplit"]


class ClassSplit(Dataset):
    """All samples of some classes of a data set.

    >>> from mapsto.data.sets.digits import Digits
    >>> parts = [ClassSplit(data=Digits(), part=part).open().classes for part in ("train", "validation", "test")]
    >>> [len(names) for names in parts], len(set().union(*parts))
    ([6, 2, 2], 10)
    """

    data: DataSource
    """What to split: one class for each sample."""
    part: Literal["train", "validation", "test"] = "train"
    """Which part this is."""
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    """The parts' shares of the classes that have samples; they sum to 1."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides which class goes where."""

    def __post_init__(self) -> None:
        from mapsto.errors import SpecError

        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise SpecError(
                f"fractions must be 0 or more and sum to 1, got {self.fractions}",
                where="class_split.fractions",
                hint="for example (0.6, 0.2, 0.2)",
            )

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def open(self) -> Samples:
        import dataclasses

        import numpy as np

        from mapsto.data.checks import require_labelled, require_some
        from mapsto.data.io.fingerprint import dataset_of
        from mapsto.errors import DataError

        samples = require_some(dataset_of(self.data, where="class_split.data").open(), where="class_split.data")
        labels = require_labelled(samples, where="class_split.data")
        there = np.random.default_rng(self.seed).permutation(np.unique(labels))
        first = round(self.fractions[0] * len(there))
        second = max(first, round((self.fractions[0] + self.fractions[1]) * len(there)))
        bounds = {"train": (0, first), "validation": (first, second), "test": (second, len(there))}[self.part]
        numbers = np.sort(there[slice(*bounds)])
        if not len(numbers):
            raise DataError(
                f"no class is left for {self.part}: {len(there)} classes split by {self.fractions}",
                where="class_split.fractions",
                hint="raise its fraction, or give it data with more classes",
            )
        kept = samples.take(np.flatnonzero(np.isin(labels, numbers)))
        return dataclasses.replace(
            kept,
            labels=np.searchsorted(numbers, kept.labels),
            classes=tuple(samples.classes[i] for i in numbers.tolist()),
        )

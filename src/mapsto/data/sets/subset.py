"""A few labelled samples of each class of another data set, and the rest of them to test on.

The first samples of each class in an order drawn from (seed, class): five of them are among ten of them, and the rest
never holds a chosen one.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mapsto.kinds import Dataset, Samples
from mapsto.mapping import DataSource

__all__ = ["Subset"]


class Subset(Dataset):
    """Some classes of a data set, and some samples of each.

    >>> from mapsto.data.sets.digits import Digits
    >>> chosen = Subset(data=Digits(), classes=("3", "8"), per_class=5)
    >>> rest = Subset(data=Digits(), classes=("3", "8"), per_class=5, part="rest")
    >>> len(chosen.open()), len(rest.open()), rest.open().classes
    (10, 347, ('3', '8'))
    """

    data: DataSource
    """What to choose from: one class for each sample."""
    per_class: int | None = Field(default=None, ge=1)
    """How many samples of each class; all by default."""
    classes: tuple[str | int, ...] | None = Field(default=None, min_length=1)
    """The names of the classes, in the order of their new labels; all by default."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides which samples are chosen."""
    part: Literal["chosen", "rest"] = "chosen"
    """The chosen samples, or all others of the same classes."""

    def __post_init__(self) -> None:
        from mapsto.errors import SpecError

        if self.part == "rest" and self.per_class is None:
            raise SpecError("the rest of all samples is empty", where="subset.per_class", hint="set per_class")

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def open(self) -> Samples:
        import dataclasses

        import numpy as np

        from mapsto.data.checks import require_labelled, require_some
        from mapsto.data.io.fingerprint import dataset_of
        from mapsto.data.stratify import first_of_each_class
        from mapsto.errors import DataError

        samples = require_some(dataset_of(self.data, where="subset.data").open(), where="subset.data")
        labels = require_labelled(samples, where="subset.data")
        numbers = _numbers(samples.classes, self.classes)
        among = np.isin(labels, numbers)
        if self.per_class is not None:
            counts = np.bincount(labels, minlength=len(samples.classes))
            short = [i for i in numbers if counts[i] < self.per_class]
            if short:
                raise DataError(
                    f"class '{samples.classes[short[0]]}' has {counts[short[0]]} samples, fewer than {self.per_class}",
                    where="subset.per_class",
                    hint="lower per_class, or leave that class out",
                )
            chosen = first_of_each_class(labels, self.per_class, self.seed)
            among &= chosen if self.part == "chosen" else ~chosen
        new = np.full(len(samples.classes), -1)
        new[numbers] = np.arange(len(numbers))
        kept = samples.take(np.flatnonzero(among))
        names = tuple(samples.classes[i] for i in numbers)
        return require_some(dataclasses.replace(kept, labels=new[kept.labels], classes=names), where="subset")


def _numbers(known: tuple[str, ...], wanted: tuple[str | int, ...] | None) -> list[int]:
    from mapsto.errors import SpecError, nearest

    names = known if wanted is None else tuple(str(name) for name in wanted)
    for name in names:
        if name not in known:
            raise SpecError(f"the data has no class '{name}'", where="subset.classes", hint=nearest(name, known))
    if len(set(names)) < len(names):
        raise SpecError("a class is named twice", where="subset.classes", hint="name each class once")
    return [known.index(name) for name in names] if wanted is not None else list(range(len(known)))

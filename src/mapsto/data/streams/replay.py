"""A data set as a stream: its samples one after the other, as they stand or in an order drawn once.

For experiments: a stream of known content, with labels that come at once or late.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.data.streams._indexed import Indexed
from mapsto.data.streams._samples import EventSamples
from mapsto.kinds import ColumnType, Task
from mapsto.mapping import DataSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Replay"]


class Replay(Indexed):
    """The samples of `data`: rows as columns x0, x1, … or by their names, images as one column `image`.

    >>> from mapsto import datasets
    >>> block = next(Replay(data=datasets.digits(size=8)).open(size=2))
    >>> block.x["image"].shape, list(block.y)
    ((2, 1, 8, 8), ['0', '1'])
    """

    contract: ClassVar[dict[str, Any]] = {
        "data": {"subset": {"data": {"digits": {"size": 8}}, "per_class": 12}},
        "order": "shuffled",
        "label_delay": 200,
    }

    data: DataSource
    """The labelled samples: of classes, or with one number each to predict, which the stream's labels then are."""
    order: Literal["given", "shuffled", "by_class"] = "given"
    """As they stand, in an order drawn by `seed`, or one class after the other (numbers: from the least to the largest)."""
    seed: int = Field(default=0, ge=0)
    """Of the order."""

    @property
    def task(self) -> Task:
        return self._samples.task

    def identity(self) -> str:
        return self.fingerprint()

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def columns(self) -> Mapping[str, ColumnType]:
        return self._samples.columns

    def size(self) -> int:
        return len(self._samples)

    def rows(self, start: int, stop: int) -> tuple[Mapping[str, NDArray[Any]], NDArray[Any]]:
        return self._samples.take(self._order[start:stop])

    @cached_property
    def _samples(self) -> EventSamples:
        from mapsto.data.io.fingerprint import dataset_of

        return EventSamples(dataset_of(self.data, where="replay: data").open(), where="replay: data")

    @cached_property
    def _order(self) -> NDArray[Any]:
        import numpy as np

        if self.order == "given":
            return np.arange(len(self._samples))
        if self.order == "by_class":
            return np.argsort(self._samples.numbers, kind="stable")
        return np.random.default_rng(self.seed).permutation(len(self._samples))

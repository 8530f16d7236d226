"""A data set as a stream: its samples one after the other, as they stand or in an order drawn once.

For experiments: a stream of known content, with labels that come at once or late.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.data.streams._indexed import Indexed
from mapsto.errors import DomainError
from mapsto.kinds import ColumnType, Samples, Task
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
        return "values" if self._samples.labels.dtype.kind == "f" else "classes"

    def identity(self) -> str:
        return self.fingerprint()

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def columns(self) -> Mapping[str, ColumnType]:
        return {} if self._samples.inputs.ndim > 2 else dict.fromkeys(self._names, "number")

    def size(self) -> int:
        return len(self._samples)

    def rows(self, start: int, stop: int) -> tuple[Mapping[str, NDArray[Any]], NDArray[Any]]:
        import numpy as np

        chosen = self._order[start:stop]
        inputs = self._samples.inputs[chosen]
        labels = self._labels[chosen]
        if self.task == "classes":
            labels = np.array(self._samples.classes, dtype=object)[labels]
        if inputs.ndim > 2:
            return {"image": inputs}, labels
        return {name: inputs[:, place].astype(np.float64) for place, name in enumerate(self._names)}, labels

    @cached_property
    def _samples(self) -> Samples:
        from mapsto.data.io.fingerprint import dataset_of

        samples = dataset_of(self.data, where="replay: data").open()
        labels = samples.labels
        if not (labels.ndim == 1 and labels.dtype.kind in "iu") and not (
            labels.dtype.kind == "f" and labels.shape[1:] in ((), (1,))
        ):
            raise DomainError(
                f"its labels of shape {labels.shape} are not one class or number each",
                where="replay: data",
                hint="give data with one target",
            )
        return samples

    @cached_property
    def _labels(self) -> NDArray[Any]:
        """(N,), class numbers or the numbers to predict as float64."""
        import numpy as np

        labels = self._samples.labels
        return labels if self.task == "classes" else labels.reshape(-1).astype(np.float64)

    @cached_property
    def _order(self) -> NDArray[Any]:
        import numpy as np

        if self.order == "given":
            return np.arange(len(self._samples))
        if self.order == "by_class":
            return np.argsort(self._labels, kind="stable")
        return np.random.default_rng(self.seed).permutation(len(self._samples))

    @property
    def _names(self) -> list[str]:
        width = self._samples.inputs.shape[1]
        columns = self._samples.preprocessing.columns
        if columns and len(columns) == width:
            return [column.name for column in columns]
        return [f"x{place}" for place in range(width)]

"""A data set whose classes become frequent and rare: events are samples drawn by the weights of their classes, which change over time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mapsto.data.streams._generated import Drawn, Generated
from mapsto.data.streams._samples import EventSamples
from mapsto.errors import SpecError
from mapsto.kinds import ColumnType
from mapsto.mapping import DataSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LabelShift"]

_Weights = tuple[Annotated[float, Field(ge=0)], ...]


class LabelShift(Generated):
    """Samples of `data`, drawn with replacement: a class by the weights of the time, then any of its samples.

    Raises `SpecError` where weights do not fit the classes.

    >>> from mapsto import datasets
    >>> weights = ((1, 0, 0, 0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0, 0, 0, 1))
    >>> block = next(LabelShift(data=datasets.digits(size=8), weights=weights, concept=3).open(size=6))
    >>> list(block.y)
    ['0', '0', '0', '9', '9', '9']
    """

    contract: ClassVar[dict[str, Any]] = {
        "data": {"subset": {"data": {"digits": {"size": 8}}, "per_class": 3}},
        "weights": [[1, 1, 1, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]],
        "events": 60,
        "concept": 20,
    }

    data: DataSource
    """The labelled samples, of classes."""
    weights: tuple[_Weights, ...] = Field(min_length=1)
    """A weight for each class in the data's order, for each concept in turn."""
    concept: int = Field(default=2500, ge=1)
    """Events of a concept; after the last the first comes again."""
    gradual: bool = False
    """Whether weights move evenly from one concept's to the next one's, and not at once."""

    def columns(self) -> Mapping[str, ColumnType]:
        return self._samples.columns

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Drawn:
        import numpy as np

        concepts, within = rows // self.concept, rows % self.concept / self.concept
        table = np.array(self.weights, np.float64)
        table /= table.sum(axis=1, keepdims=True)
        weights = table[concepts % len(table)]
        if self.gradual:
            weights = weights + within[:, None] * (table[(concepts + 1) % len(table)] - weights)
        draws = rng.random((len(rows), 2))
        edges = np.cumsum(weights, axis=1)
        labels = (draws[:, :1] * edges[:, -1:] >= edges).sum(axis=1)
        places = [self._places[label] for label in labels.tolist()]
        chosen = [each[int(draw * len(each))] for each, draw in zip(places, draws[:, 1].tolist(), strict=True)]
        return self._samples.take(np.array(chosen, np.int64))

    @cached_property
    def _samples(self) -> EventSamples:
        from mapsto.data.io.fingerprint import dataset_of

        samples = EventSamples(dataset_of(self.data, where="label_shift: data").open(), where="label_shift: data")
        if samples.task != "classes":
            raise SpecError("labels are numbers", where="label_shift: data", hint="give data of classes")
        for each in self.weights:
            if len(each) != len(samples.classes) or not sum(each):
                raise SpecError(
                    f"{len(each)} weights with the sum {sum(each):g} for {len(samples.classes)} classes",
                    where="label_shift: weights",
                    hint="give each class one, and not 0 to all",
                )
        return samples

    @cached_property
    def _places(self) -> list[NDArray[np.int64]]:
        """The samples of each class."""
        import numpy as np

        places = [np.flatnonzero(self._samples.numbers == label) for label in range(len(self._samples.classes))]
        empty = [
            name
            for place, name in enumerate(self._samples.classes)
            if not len(places[place]) and any(each[place] for each in self.weights)
        ]
        if empty:
            raise SpecError(
                f"class '{empty[0]}' has a weight and no samples", where="label_shift: weights", hint="give it 0"
            )
        return places

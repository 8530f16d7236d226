"""The samples of a data set as columns and labels of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mapsto.errors import DomainError
from mapsto.kinds import ColumnType, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Samples

__all__ = ["EventSamples"]


class EventSamples:
    """Opened data, each sample of which can be an event: rows as columns x0, x1, … or by their names, images as one column `image`.

    Raises `DomainError` where samples have no single label. `where` is what messages call the data.
    """

    def __init__(self, samples: Samples, *, where: str) -> None:
        import numpy as np

        labels = samples.labels
        of_classes = labels.ndim == 1 and labels.dtype.kind in "iu"
        if not of_classes and not (labels.dtype.kind == "f" and labels.shape[1:] in ((), (1,))):
            raise DomainError(
                f"its labels of shape {labels.shape} are not one class or number each",
                where=where,
                hint="give data with one target",
            )
        self.task: Task = "classes" if of_classes else "values"
        self.classes = samples.classes
        self.numbers: NDArray[Any] = labels if of_classes else labels.reshape(-1).astype(np.float64)
        """(N,), class numbers or the numbers to predict as float64."""
        self._inputs = samples.inputs
        width = samples.inputs.shape[1]
        columns = samples.preprocessing.columns
        self._names = [f"x{place}" for place in range(width)]
        if columns and len(columns) == width:
            self._names = [column.name for column in columns]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def columns(self) -> Mapping[str, ColumnType]:
        """What rows hold; nothing is said of images."""
        return {} if self._inputs.ndim > 2 else dict.fromkeys(self._names, "number")

    def take(self, chosen: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """The columns and labels of the samples at these places."""
        import numpy as np

        inputs, labels = self._inputs[chosen], self.numbers[chosen]
        if self.task == "classes":
            labels = np.array(self.classes, dtype=object)[labels]
        if inputs.ndim > 2:
            return {"image": inputs}, labels
        return {name: inputs[:, place].astype(np.float64) for place, name in enumerate(self._names)}, labels

"""Streams whose events can be made from their number: their position is that number, and labels may come late."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field

from mapsto.kinds import Block, Json, Stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Indexed"]


class Indexed(Stream):
    """Rows 0 to N - 1, each an event; with a delay each is a question first, and its label an event of its own."""

    label_delay: int = Field(default=0, ge=0, description="Questions that come before the label of one; 0: with it.")

    @abstractmethod
    def size(self) -> int:
        """N."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> tuple[Mapping[str, NDArray[Any]], NDArray[Any]]:
        """The columns and labels of the rows from `start` up to `stop`."""

    def times(self, numbers: NDArray[Any]) -> NDArray[np.float64]:
        """When the rows of these numbers happened, seconds: a row a second where a stream does not say otherwise."""
        return numbers.astype("float64")

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        at, end = 0 if position is None else cast("int", position), self.size() * (2 if self.label_delay else 1)
        while at < end:
            stop = min(at + size, end)
            yield self._late(at, stop) if self.label_delay else self._at_once(at, stop)
            at = stop

    def _at_once(self, start: int, stop: int) -> Block:
        import numpy as np

        x, y = self.rows(start, stop)
        there = np.ones(stop - start, np.bool_)
        return Block(
            times=self.times(np.arange(start, stop)),
            ids=_names(range(start, stop)),
            x=x,
            has_x=there,
            y=y,
            has_y=there,
            next=stop,
        )

    def _late(self, start: int, stop: int) -> Block:
        """Questions and labels take turns once the first label is due, and only labels are left in the end."""
        import numpy as np

        count = self.size()
        first = min(self.label_delay, count)
        events = np.arange(start, stop)
        turn = events - first
        is_label = (turn >= 0) & ((turn % 2 == 0) | (turn >= 2 * (count - first)))
        labels = np.where(turn < 2 * (count - first), turn // 2, turn - (count - first))
        numbers = np.where(is_label, labels, np.where(turn < 0, events, first + turn // 2))
        # the rows that are needed lie in two ranges: those asked about, and those whose labels come
        x: dict[str, NDArray[Any]] = {}
        y: NDArray[Any] | None = None
        for wanted in (~is_label, is_label):
            if not wanted.any():
                continue
            low, high = int(numbers[wanted].min()), int(numbers[wanted].max()) + 1
            columns, targets = self.rows(low, high)
            places = numbers[wanted] - low
            if y is None:
                y = np.empty(len(events), targets.dtype)
                x = {name: _empty(len(events), column) for name, column in columns.items()}
            y[wanted] = targets[places]
            if wanted is not is_label and not is_label[wanted].any():
                for name, column in columns.items():
                    x[name][wanted] = column[places]
        due = numbers + np.where(is_label, self.label_delay, 0)
        last = np.minimum(due, count - 1)
        return Block(
            times=self.times(last) + (due - last),
            ids=_names(numbers.tolist()),
            x=x,
            has_x=~is_label,
            y=y,
            has_y=is_label,
            next=stop,
        )


def _names(numbers: Any) -> NDArray[Any]:
    import numpy as np

    return np.array([str(number) for number in numbers], dtype=object)


def _empty(count: int, like: NDArray[Any]) -> NDArray[Any]:
    """A column without values."""
    import numpy as np

    if like.dtype.kind in "OUS":
        return np.full((count, *like.shape[1:]), "", dtype=object)
    if like.dtype.kind == "f":
        return np.full((count, *like.shape[1:]), np.nan, dtype=like.dtype)
    return np.zeros((count, *like.shape[1:]), dtype=like.dtype)

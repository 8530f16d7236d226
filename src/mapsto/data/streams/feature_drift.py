"""Any stream whose columns come and go: one appears at an event, one vanishes, as when a sensor is added or breaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mapsto.data.streams._cursor import missing_like, stream_of
from mapsto.data.streams._derived import Derived
from mapsto.errors import DataError, SpecError, nearest
from mapsto.kinds import Block, Json, Stream
from mapsto.mapping import StreamSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FeatureDrift"]

_Event = Annotated[int, Field(ge=0)]


class FeatureDrift(Derived):
    """The events of `stream`, in which values of a column are missing before it appears and after it has vanished.

    Raises `SpecError` for a column that the stream has not.

    >>> from mapsto import streams
    >>> stream = FeatureDrift(stream=streams.sea(), appear={"x1": 2}, vanish={"x2": 3})
    >>> block = next(stream.open(size=4))
    >>> [[bool(value == value) for value in block.x[name]] for name in ("x1", "x2")]
    [[False, False, True, True], [True, True, True, False]]
    """

    contract: ClassVar[dict[str, Any]] = {
        "stream": {"agrawal": {"events": 80, "label_delay": 10}},
        "appear": {"car": 30},
        "vanish": {"age": 100},
    }

    stream: StreamSource
    """What events come from."""
    appear: dict[str, _Event] = Field(default_factory=dict)
    """Columns → the event, counted from 0, at which each has its first value."""
    vanish: dict[str, _Event] = Field(default_factory=dict)
    """Columns → the event from which on each is missing."""

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        begin, inner = _place(position)
        for block in self._inner.open(inner, size=size):
            x = {name: self._masked(name, values, begin) for name, values in block.x.items()}
            begin += len(block)
            yield replace(block, x=x, next=[begin, block.next])

    def _masked(self, name: str, values: NDArray[Any], before: int) -> NDArray[Any]:
        """A column of a block after so many events."""
        import numpy as np

        first, last = self.appear.get(name, 0), self.vanish.get(name)
        count = len(values)
        if first <= before and (last is None or before + count <= last):
            return values
        events = np.arange(before, before + count)
        gone = (events < first) | (events >= (before + count if last is None else last))
        masked = values.copy()
        masked[gone] = missing_like(values, int(gone.sum()))
        return masked

    def source(self) -> Stream:
        stream = stream_of(self.stream, where="feature_drift: stream")
        known = stream.columns()
        for name in (*self.appear, *self.vanish):
            if known and name not in known:
                raise SpecError(f"the stream has no column '{name}'", where="feature_drift", hint=nearest(name, known))
        return stream


def _place(position: Json) -> tuple[int, Json]:
    """The number of the next event, and the place in the stream."""
    if position is None:
        return 0, None
    if isinstance(position, list) and len(position) == 2 and isinstance(position[0], int):
        return position[0], position[1]
    raise DataError(f"{position} is no position of feature_drift", hint="start another store")

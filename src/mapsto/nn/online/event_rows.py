"""Raw events as rows of numbers whose width grows with what is met: a new column or category adds an input, and none ever moves.

A number is scaled by the mean and standard deviation of all values up to it, ``z = (x - mean) / std``; a missing value is 0, its mean. A
word is 1 at the input of its category. Input 0 is the bias, always 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mapsto.errors import DomainError
from mapsto.kinds import Block, ColumnType, EventColumn

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EventRows", "Prepared"]

_LARGEST = 1e100
"""A number beyond it counts as infinite: so would its square."""
_LEAST_SHARE = 1e-12
"""A variance below this share of the mean square is rounding: the column has been constant so far."""
_OTHERS = "\0others"
"""The category of all words of a column for which there is no input of their own."""


class Prepared(NamedTuple):
    """A run of events in which nothing new is met, as rows."""

    start: int
    """The number of its first event in the block."""
    rows: NDArray[np.float64]
    """(n, inputs)."""


class EventRows:
    """Turns blocks into rows, and grows.

    Parameters
    ----------
    types
        Columns whose type is known; others get theirs when they are first met.
    most_categories
        How many words of a column get an input of their own; those that come later share one.

    >>> from mapsto.data.streams.sea import Sea
    >>> rows, block = EventRows({}, most_categories=10), next(Sea().open(size=3))
    >>> [part.rows.shape for part in rows.prepare(block, {}, learn=True)]
    [(3, 4)]
    >>> [column.name for column in rows.columns]
    ['x1', 'x2', 'x3']
    """

    def __init__(self, types: Mapping[str, ColumnType], *, most_categories: int) -> None:
        self._types: dict[str, ColumnType] = dict(types)
        self._most = most_categories
        self._order: dict[str, ColumnType] = {}
        self._places: dict[str, int] = {}
        self._words: dict[str, dict[str, int]] = {}
        self._scale = _Scale()
        self.width = 1
        """Inputs."""

    @property
    def columns(self) -> tuple[EventColumn, ...]:
        """What has been met, in order."""
        return tuple(
            EventColumn(name=name, type=kind, categories=tuple(self._words.get(name, ())))
            for name, kind in self._order.items()
        )

    def prepare(self, block: Block, aside: dict[int, str], *, learn: bool) -> Iterator[Prepared]:
        """The events as rows, cut wherever one of them brings something new.

        Parameters
        ----------
        block
            The events.
        aside
            Events that are set aside, each with the reason; those with an infinite number, or a word where numbers are, are added.
        learn
            Whether it grows and its scales move. What an event brings is added before its row is made, after the rows before it were handed
            out. Otherwise nothing changes, and what is new has no input.

        Raises
        ------
        DomainError
            A column holds arrays.
        """
        columns = self._read(block, aside, learn=learn)
        start, count = 0, len(block)
        while start < count:
            if learn:
                self._grow(columns, start)
            stop = self._first_new(columns, start + 1, count) if learn else count
            yield Prepared(start, self._rows(columns, start, stop, learn=learn))
            start = stop

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state besides `columns` and `width`: inputs and scales of the number columns, inputs of all categories in order."""
        words = [place for name in self._words for place in self._words[name].values()]
        return {
            "number_inputs": np.array(list(self._places.values()), np.int64),
            "category_inputs": np.array(words, np.int64),
            "scales": self._scale.sums.copy(),
        }

    def restore(self, columns: tuple[EventColumn, ...], arrays: Mapping[str, NDArray[Any]], width: int) -> None:
        """Go on from another's `columns`, `arrays` and `width`."""
        numbers, words = iter(arrays["number_inputs"].tolist()), iter(arrays["category_inputs"].tolist())
        self.width = width
        self._scale.sums = arrays["scales"].copy()
        for column in columns:
            self._types[column.name] = self._order[column.name] = column.type
            if column.type == "number":
                self._places[column.name] = next(numbers)
            else:
                self._words[column.name] = {word: next(words) for word in column.categories}

    # -- private

    def _read(self, block: Block, aside: dict[int, str], *, learn: bool) -> dict[str, Any]:
        """Each column by its type, as float64 with NaN or as a list of words; nothing is left of events that are set aside."""
        found: dict[str, Any] = {}
        for name, values in block.x.items():
            if values.ndim != 1:
                raise DomainError(
                    f"column '{name}' holds arrays of shape {values.shape[1:]}, not numbers or words",
                    hint="give the features that an encoder makes of them",
                )
            of_words = values.dtype.kind in "OUS"
            kind = self._types.get(name)
            if kind is None:
                if not learn or not _holds(values):
                    continue
                kind = self._types[name] = "word" if of_words else "number"
            if kind == "word":
                found[name] = values.tolist() if of_words else [_word(value) for value in values.tolist()]
            else:
                numbers = _parsed(values, name, aside) if of_words else values
                beyond = np.abs(numbers) > _LARGEST
                if beyond.any():
                    for event in np.flatnonzero(beyond).tolist():
                        aside.setdefault(event, f"an infinite number in column '{name}'")
                found[name] = numbers
        empty = list(aside)
        if not block.has_x.all():
            empty += np.flatnonzero(~block.has_x).tolist()
        return {name: _without(values, empty) for name, values in found.items()} if empty else found

    def _is_new(self, name: str, value: Any) -> bool:
        words = self._words.get(name)
        if words is not None:
            return value != "" and value not in words and len(words) <= self._most
        if name in self._places:
            return False
        return value != "" if isinstance(value, str) else not math.isnan(value)

    def _first_new(self, columns: Mapping[str, Any], start: int, stop: int) -> int:
        """The first event from `start` on that brings a new column or category; `stop` without one."""
        for name, values in columns.items():
            if name in self._places:
                continue
            words = self._words.get(name, {})
            for event in range(start, stop):
                if values[event] not in words and self._is_new(name, values[event]):
                    stop = event
                    break
        return stop

    def _grow(self, columns: Mapping[str, Any], event: int) -> None:
        for name, values in columns.items():
            value = values[event]
            if name in self._places or not self._is_new(name, value):
                continue
            kind = self._order.setdefault(name, self._types[name])
            if kind == "number":
                self._places[name] = self._next()
                self._scale.add(float(value))
            else:
                words = self._words.setdefault(name, {})
                words[value if len(words) < self._most else _OTHERS] = self._next()

    def _next(self) -> int:
        self.width += 1
        return self.width - 1

    def _rows(self, columns: Mapping[str, Any], start: int, stop: int, *, learn: bool) -> NDArray[np.float64]:
        rows = np.zeros((stop - start, self.width))
        rows[:, 0] = 1.0
        if self._places:
            missing = np.full(stop - start, np.nan)
            values = [columns[name][start:stop] if name in columns else missing for name in self._places]
            rows[:, list(self._places.values())] = self._scale.scaled(np.array(values, np.float64).T, learn=learn)
        for name, words in self._words.items():
            if name not in columns:
                continue
            others = words.get(_OTHERS, -1)
            for row, value in enumerate(columns[name][start:stop]):
                place = words.get(value, others) if value != "" else -1
                if place >= 0:
                    rows[row, place] = 1.0
        return rows


class _Scale:
    """Running means and standard deviations of number columns.

    Attributes
    ----------
    sums
        (columns, 4): how many values, the first of them, and the sums of the values less the first, and of their squares.
    """

    def __init__(self) -> None:
        self.sums = np.zeros((0, 4))

    def add(self, first: float) -> None:
        """Another column, whose first value is about to come."""
        self.sums = np.vstack([self.sums, [0.0, first, 0.0, 0.0]])

    def scaled(self, values: NDArray[np.float64], *, learn: bool) -> NDArray[np.float64]:
        """Values (n, columns), NaN for a missing one, scaled; where it learns, each by the sums that it has entered."""
        counts, first, totals, squares = self.sums.T
        there = ~np.isnan(values)
        moved = np.where(there, values - first, 0.0)
        if learn:
            counts = _running(counts, there)
            totals = _running(totals, moved)
            squares = _running(squares, moved * moved)
            self.sums = np.stack([counts[-1], first, totals[-1], squares[-1]], axis=1)
        known = np.maximum(counts, 1.0)
        mean, of_squares = totals / known, squares / known
        variance = of_squares - mean * mean
        varies = variance > _LEAST_SHARE * of_squares
        return np.where(there & varies, (moved - mean) / np.sqrt(np.where(varies, variance, 1.0)), 0.0)


def _running(before: NDArray[np.float64], values: NDArray[Any]) -> NDArray[np.float64]:
    """Sums (n, columns) after each of `values`: added one after the other, so that a block gives what its events one by one give."""
    if len(values) == 1:
        return (before + values[0])[None]
    return np.cumsum(np.concatenate([before[None], values]), axis=0)[1:]


def _word(value: Any) -> str:
    """A number in a column of words."""
    return "" if isinstance(value, float) and math.isnan(value) else str(value)


def _holds(values: NDArray[Any]) -> bool:
    return bool((values != "").any()) if values.dtype.kind in "OUS" else not bool(np.isnan(values).all())


def _parsed(values: NDArray[Any], name: str, aside: dict[int, str]) -> NDArray[np.float64]:
    """Cells of a column of numbers in which something else stands."""
    numbers = np.full(len(values), np.nan)
    for event, cell in enumerate(values.tolist()):
        try:
            numbers[event] = float(cell) if cell != "" else math.nan
        except ValueError:
            aside.setdefault(event, f"a word in the column of numbers '{name}'")
    return numbers


def _without(values: Any, events: list[int]) -> Any:
    """A column with nothing in the places of `events`."""
    if isinstance(values, list):
        gone = set(events)
        return ["" if place in gone else value for place, value in enumerate(values)]
    values = values.copy()
    values[events] = np.nan
    return values

"""Raw events as a matrix of numbers: a column each, words by the number of their category, NaN where a value is missing.

What `EventRows` is to learners in Python, this is to learners in native code: whole blocks at once, values as they came. Blocks are cut
where an event brings a new column, so that what is made of an event does not depend on how many a block holds.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mapsto.errors import DomainError
from mapsto.kinds import Block, ColumnType, EventColumn
from mapsto.kinds.model import RowType
from mapsto.nn.online.event_rows import LARGEST, OTHERS, beyond

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EventMatrix", "Part"]


class Part(NamedTuple):
    """Events of a block, all of the same columns."""

    start: int
    stop: int
    x: NDArray[np.float64]
    """(stop - start, width); NaN for what is missing, and in all of a row without features."""
    new: tuple[bool, ...]
    """The inputs that these events are the first to have: whether each is of words."""


class EventMatrix:
    """Turns blocks into matrices, and grows.

    Parameters
    ----------
    types
        Columns whose type is known; others get theirs when they are first met.
    most_categories
        How many words of a column have a number of their own; those that come later share one.

    >>> from mapsto.data.streams.sea import Sea
    >>> matrix, block = EventMatrix({}, most_categories=10), next(Sea().open(size=3))
    >>> [(part.x.shape, part.new) for part in matrix.parts(block, {}, learn=True)]
    [((1, 3), (False, False, False)), ((2, 3), ())]
    """

    def __init__(self, types: Mapping[str, ColumnType], *, most_categories: int) -> None:
        self._types: dict[str, RowType] = dict(types)
        self._order = {name: place for place, name in enumerate(types)}
        self._most = most_categories
        self._places: dict[str, tuple[int, int]] = {}
        """Of each column that was met: its first input, and how many it has."""
        self._categories: dict[str, dict[str, int]] = {}
        self._has_vectors = False
        self.width = 0
        """Inputs."""

    @property
    def columns(self) -> tuple[EventColumn, ...]:
        """What has been met, in order."""
        return tuple(
            EventColumn(name=name, type=self._types[name], categories=tuple(self._categories.get(name, ())))
            for name in self._places
        )

    @property
    def inputs(self) -> list[str]:
        """The column of each input."""
        return [name for name, (_, length) in self._places.items() for _ in range(length)]

    @property
    def unmet(self) -> list[list[str]]:
        """Columns, each with its type, of which no value has come yet."""
        return [[name, kind] for name, kind in self._types.items() if name not in self._places]

    @property
    def crowded(self) -> list[str]:
        """The columns that have met more words than have a number of their own."""
        return [name for name, known in self._categories.items() if OTHERS in known]

    def lengths(self) -> list[int]:
        """How many inputs each column has."""
        return [length for _, length in self._places.values()]

    def parts(self, block: Block, aside: dict[int, str], *, learn: bool) -> Iterator[Part]:
        """The events in their order, cut where one brings a new column.

        Parameters
        ----------
        block
            The events.
        aside
            Events that are set aside, each with the reason: their rows say nothing. Those with an infinite number, a word where numbers
            are, or a vector of another length are added before the part that they are in is given.
        learn
            Whether what is new becomes a column or a category. Otherwise nothing changes, and the block is not cut.

        Raises
        ------
        DomainError
            A column holds images, token ids or other arrays that are no vectors of numbers.
        """
        whole = self._whole(block)
        if whole is not None and not aside:
            yield Part(0, len(block), whole, ())
            return
        names = sorted(block.x, key=lambda name: (self._order.get(name, len(self._order)), name))
        cells = {name: _cells(name, block.x[name]) for name in names}
        start, count = 0, len(block)
        while start < count:
            stop = self._first_new(cells, block, start, aside) if learn else count
            if stop > start:
                yield self._part(cells, block, start, stop, aside, (), learn=learn)
            if stop < count:
                before = self.width
                self._meet(cells, stop, aside)
                new = tuple(of_words for _, of_words in self._inputs())[before:]
                yield self._part(cells, block, stop, stop + 1, aside, new, learn=True)
                stop += 1
            start = stop

    def one(self, block: Block) -> array[float] | None:
        """The row of a block's one event, which has features; None where anything of it is new or odd: then ask for its parts.

        It is what `parts` gives, and quicker.
        """
        if block.x.keys() != self._places.keys() or self._has_vectors or not self.width:
            return None
        cells: list[Any] = [*chain.from_iterable([block.x[name].tolist() for name in self._places])]
        try:
            for name, known in self._categories.items():
                place = self._places[name][0]
                word = cells[place]
                code = known.get(word)
                cells[place] = math.nan if code is None and word == "" else code
            for cell in cells:
                if cell > LARGEST or cell < -LARGEST:
                    return None
            return array("d", cells)
        except (TypeError, OverflowError):  # a new word, one among numbers, or a vector
            return None

    def _whole(self, block: Block) -> NDArray[np.float64] | None:
        """The matrix of a block without anything odd: numbers of all columns that were met and of no other, none of them infinite."""
        if block.x.keys() != self._places.keys() or not block.has_x.all():
            return None
        columns = [block.x[name] for name in self._places]
        if any(self._types[name] != "number" for name in self._places) or any(
            column.dtype != np.float64 or column.ndim > 1 for column in columns
        ):
            return None
        x = np.array(columns, np.float64).reshape(len(columns), len(block)).T
        return None if (np.abs(x) > LARGEST).any() else x

    # -- state

    def restore(self, columns: tuple[EventColumn, ...], lengths: list[int], unmet: list[list[Any]]) -> None:
        """Go on from another's `columns`, `lengths` and `unmet`. Raises `ValueError` where these do not fit together."""
        if len(lengths) != len(columns) or len({column.name for column in columns}) < len(columns):
            raise ValueError("another number of lengths than of columns, or two columns of a name")
        for name, kind in unmet:
            self._types.setdefault(name, kind)
            self._order.setdefault(name, len(self._order))
        for column, length in zip(columns, lengths, strict=True):
            if (
                column.type not in ("number", "word", "vector")
                or not length >= 1
                or (column.type != "vector" and length > 1)
            ):
                raise ValueError("a column of another type, or of no inputs")
            if len(set(column.categories)) < len(column.categories):
                raise ValueError("a category stands there twice")
            self._types[column.name] = column.type
            self._add(column.name, length)
            if column.type == "word":
                self._categories[column.name] = {word: code for code, word in enumerate(column.categories)}

    def of_words(self) -> tuple[bool, ...]:
        """Of each input, whether it is of words."""
        return tuple(of_words for _, of_words in self._inputs())

    # -- private

    def _inputs(self) -> Iterator[tuple[str, bool]]:
        for name, (_, length) in self._places.items():
            for _ in range(length):
                yield name, self._types[name] == "word"

    def _add(self, name: str, length: int) -> None:
        self._places[name] = (self.width, length)
        self.width += length
        self._has_vectors |= self._types[name] == "vector"

    def _first_new(self, cells: Mapping[str, Any], block: Block, start: int, aside: Mapping[int, str]) -> int:
        """The first event from `start` on that has a value of a column that was not met; the block's length where none has."""
        first = len(block)
        for name, column in cells.items():
            if name in self._places:
                continue
            for event in range(start, first):
                if block.has_x[event] and event not in aside and not _is_missing(column[event]):
                    first = event
                    break
        return first

    def _meet(self, cells: Mapping[str, Any], event: int, aside: dict[int, str]) -> None:
        """Make columns of what an event brings, unless it is to be set aside."""
        found: dict[str, tuple[RowType, int]] = {}
        for name, column in cells.items():
            cell, kind = column[event], self._types.get(name)
            reason: str | None = None
            if isinstance(cell, np.ndarray):
                reason = self._misfit(name, cell)
                kind = "vector"
            elif kind == "vector":
                reason = _no_vector(name)
            elif kind is None and not _is_missing(cell):
                kind = "word" if isinstance(cell, str) else "number"
            missing = _is_missing(cell)
            if kind == "number":
                value, reason = _number(name, cell)
                missing = math.isnan(value)
            if reason is not None:
                aside[event] = reason
                return
            if name not in self._places and kind is not None and not missing:
                found[name] = (kind, len(cell) if kind == "vector" else 1)
        for name, (kind, length) in found.items():
            self._types[name] = kind
            self._add(name, length)
            if kind == "word":
                self._categories[name] = {}

    def _misfit(self, name: str, vector: NDArray[Any]) -> str | None:
        """Why a vector cannot be an event's part, if it cannot."""
        place = self._places.get(name)
        if place is not None and (self._types[name] != "vector" or place[1] != len(vector)):
            return f"a vector of another length, or where there was none before, in column '{name}'"
        if not (np.abs(vector.astype(np.float64)) <= LARGEST).all():
            return f"NaN or infinity in a vector of column '{name}'"
        return None

    def _part(
        self,
        cells: Mapping[str, Any],
        block: Block,
        start: int,
        stop: int,
        aside: dict[int, str],
        new: tuple[bool, ...],
        *,
        learn: bool,
    ) -> Part:
        x = np.full((stop - start, self.width), np.nan)
        has = block.has_x[start:stop]
        for name, column in cells.items():
            kind, place = self._types.get(name), self._places.get(name)
            if kind == "word" and not isinstance(column, np.ndarray):
                continue
            values, reasons = self._numbers(name, column, start, stop)
            for event, reason in reasons.items():
                if has[event]:
                    aside.setdefault(start + event, reason)
            if place is not None and kind != "word":
                x[:, place[0] : place[0] + place[1]] = values
        taken = [bool(there) and start + event not in aside for event, there in enumerate(has.tolist())]
        for name, column in cells.items():
            place = self._places.get(name)
            if self._types.get(name) == "word" and place is not None:
                x[:, place[0]] = self._codes(name, column, start, taken, learn=learn)
        if not all(taken):
            x[~np.array(taken)] = np.nan
        return Part(start, stop, x, new)

    def _numbers(self, name: str, column: Any, start: int, stop: int) -> tuple[NDArray[np.float64], dict[int, str]]:
        """The values of a column of numbers (n, 1) or vectors (n, L); why events are to be set aside, by a column of any type."""
        reasons: dict[int, str] = {}
        if self._types.get(name) == "vector":
            _, length = self._places[name]
            values = np.full((stop - start, length), np.nan)
            for event in range(stop - start):
                cell = column[start + event]
                is_vector = isinstance(cell, np.ndarray)
                reason = self._misfit(name, cell) if is_vector else _no_vector(name)
                if reason is not None:
                    reasons[event] = reason
                else:
                    values[event] = cell
            return values, reasons
        values = np.full((stop - start, 1), np.nan)
        if isinstance(column, np.ndarray) and column.ndim == 1:
            if self._types.get(name) == "word":
                return values, reasons
            values[:, 0] = column[start:stop]
            for event in np.flatnonzero(~(np.abs(values[:, 0]) <= LARGEST) & ~np.isnan(values[:, 0])).tolist():
                reasons[event] = beyond(name, values[event, 0])
            return values, reasons
        known = name in self._types
        for event in range(stop - start):
            cell = column[start + event]
            if isinstance(cell, np.ndarray):
                reason = self._misfit(name, cell)
            elif known or not isinstance(cell, str):
                values[event, 0], reason = _number(name, cell)
            else:
                continue
            if reason is not None:
                reasons[event] = reason
        return values, reasons

    def _codes(self, name: str, column: Any, start: int, taken: list[bool], *, learn: bool) -> list[float]:
        known = self._categories[name]
        cells = column[start : start + len(taken)]
        codes: list[float] = []
        for cell, is_taken in zip(cells.tolist() if isinstance(cells, np.ndarray) else cells, taken, strict=True):
            word = _word(cell) if is_taken else ""
            code = known.get(word) if word else None
            if code is None and word:
                others = OTHERS in known
                if learn and len(known) - others < self._most:
                    code = known[word] = len(known)
                elif learn and not others:
                    code = known[OTHERS] = len(known)
                else:
                    code = known.get(OTHERS)
            codes.append(math.nan if code is None else float(code))
        return codes


def _cells(name: str, values: NDArray[Any]) -> Any:
    """A column by event: an array of numbers, a list where there are words among them, vectors (N, L)."""
    if values.ndim == 2 and values.dtype.kind == "f":
        return values
    if values.ndim != 1:
        raise DomainError(
            f"column '{name}' holds arrays of shape {values.shape[1:]} and type {values.dtype}, not numbers or words",
            hint="give the learner an encoder, a network or a package, as its input; or give the features of one",
        )
    if values.dtype.kind in "fiub":
        return values
    cells: list[Any] = values.tolist()
    return [cell if cell is None or isinstance(cell, (str, float, int)) else str(cell) for cell in cells]


def _no_vector(name: str) -> str:
    return f"no vector in the column of vectors '{name}'"


def _is_missing(cell: Any) -> bool:
    return not isinstance(cell, np.ndarray) and (cell is None or cell == "" or cell != cell)  # noqa: PLR0124 - NaN


def _number(name: str, cell: Any) -> tuple[float, str | None]:
    """A cell of a column of numbers; why its event is to be set aside."""
    try:
        value = math.nan if cell is None or cell == "" else float(cell)
    except (TypeError, ValueError):
        return math.nan, f"a word in the column of numbers '{name}'"
    if not -LARGEST <= value <= LARGEST and not math.isnan(value):
        return math.nan, beyond(name, value)
    return value, None


def _word(cell: Any) -> str:
    if isinstance(cell, str):
        return cell
    return "" if _is_missing(cell) else str(cell)

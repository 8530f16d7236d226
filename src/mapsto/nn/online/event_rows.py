"""Raw events as rows of numbers whose width grows with what is met: a new column or category adds an input, and none ever moves.

A number is scaled by the mean and standard deviation of all values up to it, ``z = (x - mean) / std``; a missing value is 0, its mean. A
word is 1 at the input of its category. A vector, as an encoder gives it, counts by its direction, ``z = v √D / |v|``: no scale has to be
known before its first event. Input 0 is the bias, always 1.
"""

from __future__ import annotations

import ctypes
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from mapsto.errors import DomainError
from mapsto.kinds import Block, ColumnType, EventColumn
from mapsto.kinds.model import RowType
from mapsto.nn.online.head import RowColumn

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LARGEST", "OTHERS", "Columns", "EventRows", "WholeBlock", "beyond"]

LARGEST = 1e100
"""A number beyond it counts as infinite: so would its square."""
_LEAST_SHARE = 1e-12
"""A variance below this share of the mean square is rounding: the column has been constant so far."""
OTHERS = "\0others"
"""The category of all words of a column for which there is no input of their own."""


def beyond(name: str, value: float) -> str:
    """Why an event with this number, infinite or beyond `LARGEST`, is set aside."""
    return f"{'an infinite number' if math.isinf(value) else f'a number beyond {LARGEST:g}'} in column '{name}'"


@dataclass(eq=False)
class Columns:
    """The columns of blocks, in their order, as native code makes rows of them; those of which no value was met are left out."""

    names: tuple[str, ...]
    """With those that are left out."""
    met: tuple[int, ...]
    unmet: tuple[int, ...]
    words: tuple[tuple[int, int, _Words], ...]
    """Of each column of words: which of `met` it is, its place in the order in which new ones grow, and itself."""
    sums: Any
    """A pointer each: to a number's sums, null for words."""
    places: Any
    """An int32 each: a number's input."""
    x: NDArray[np.float64]
    """Room for the last block."""
    address: int = 0

    def room(self, count: int) -> tuple[NDArray[np.float64], int]:
        """Room for so many events (columns count,), and its address; it is used again and again."""
        if len(self.x) != len(self.met) * count:
            self.x = np.empty(len(self.met) * count)
            self.address = self.x.ctypes.data
        return self.x, self.address


class WholeBlock(NamedTuple):
    """A block without anything odd, whose events native code may take at once."""

    columns: Columns
    events: int
    x: NDArray[np.float64]
    """(columns events,), column by column: a number as it is, a word as the input of its category, NaN where it is missing."""
    address: int
    new: Sequence[tuple[int, int, _Words, str, int]]
    """Words that have no input yet: the event, the column's place in the order of growth, itself, the word, and its place in `x`."""


class EventRows:
    """Turns events into rows, one by one, and grows.

    Parameters
    ----------
    types
        Columns whose type is known; others get theirs when they are first met. What an event brings that is new gets its inputs in this
        order, then by name, however the columns of its block are ordered.
    most_categories
        How many words of a column get an input of their own; those that come later share one.
    scaled
        Whether numbers and vectors are scaled; otherwise they stay as they are, and a missing number is the mean so far.

    >>> from mapsto.data.streams.sea import Sea
    >>> rows, block = EventRows({}, most_categories=10), next(Sea().open(size=3))
    >>> [row.shape for _, row in rows.rows(block, {}, learn=True)]
    [(4,), (4,), (4,)]
    >>> [column.name for column in rows.columns]
    ['x1', 'x2', 'x3']
    """

    def __init__(self, types: Mapping[str, ColumnType], *, most_categories: int, scaled: bool = True) -> None:
        self._types: dict[str, RowType] = dict(types)
        self._order = {name: place for place, name in enumerate(types)}
        self._most, self._scaled = most_categories, scaled
        self._columns: dict[str, _Numbers | _Words | _Vector] = {}
        self._sorted: tuple[tuple[str, ...], list[str]] = ((), [])
        """The columns of the last block, and their order."""
        self._whole: tuple[tuple[str, ...], Columns | None] = ((), None)
        """The columns of the last block, and what native code needs of them; None where it cannot take such blocks."""
        self.width = 1
        """Inputs."""

    @property
    def columns(self) -> tuple[EventColumn, ...]:
        """What has been met, in order."""
        return tuple(
            EventColumn(
                name=name,
                type=column.type,
                categories=tuple(column.places) if isinstance(column, _Words) else (),
            )
            for name, column in self._columns.items()
        )

    @property
    def layout(self) -> tuple[RowColumn, ...]:
        """Where the columns stand in a row, and how their values come there, at present."""
        return tuple(column.placed(name) for name, column in self._columns.items())

    @property
    def unmet(self) -> list[list[str]]:
        """Columns, each with its type, of which no value has come yet."""
        return [[name, kind] for name, kind in self._types.items() if name not in self._columns]

    @property
    def crowded(self) -> list[str]:
        """The columns that have met more words than get an input of their own."""
        return [
            name for name, column in self._columns.items() if isinstance(column, _Words) and OTHERS in column.places
        ]

    def rows(
        self, block: Block, aside: dict[int, str], *, learn: bool
    ) -> Iterator[tuple[int, NDArray[np.float64] | None]]:
        """Each event's number in the block and its row (inputs,); None without features.

        Parameters
        ----------
        block
            The events.
        aside
            Events that are set aside, each with the reason, and passed over; those with an infinite number, a word where numbers are, or
            a vector of another length are added.
        learn
            Whether what an event brings that is new gets an input, and scales move, before its row is made. Otherwise nothing changes.

        Raises
        ------
        DomainError
            A column holds images, token ids or other arrays that are no vectors of numbers.
        """
        columns = [(name, self._cells(name, block.x[name])) for name in self._ordered(tuple(block.x))]
        for event, has in enumerate(block.has_x.tolist()):
            if event in aside:
                continue
            if not has:
                yield event, None
                continue
            given = {name: cells[event] for name, cells in columns}
            reason = self._read(given)
            if reason is not None:
                aside[event] = reason
                continue
            if learn:
                self._grow(given)
            yield event, self._row(given, learn=learn)

    def one(self, block: Block) -> tuple[Columns, array[float]] | None:
        """An event as `whole` gives it, where all of it is known: its columns, and a number each. It is the same, and quicker."""
        names = tuple(block.x)
        if names != self._whole[0]:
            self._whole = (names, self._found(names))
        columns = self._whole[1]
        if columns is None or columns.unmet:
            return None
        cells: list[Any] = [*chain.from_iterable(map(np.ndarray.tolist, block.x.values()))]
        try:
            for place, _, words in columns.words:
                word = cells[place]
                known = words.places.get(word)
                cells[place] = math.nan if known is None and word == "" else known
            return columns, array("d", cells)
        except (TypeError, OverflowError):  # a new word, one among numbers, or a vector
            return None

    def whole(self, block: Block, *, learn: bool) -> WholeBlock | None:
        """The block as native code takes it; None where it is not of known columns, numbers and words alone. Nothing grows yet.

        Whether a number counts as infinite is not looked at.
        """
        names = tuple(block.x)
        if names != self._whole[0]:
            self._whole = (names, self._found(names))
        columns = self._whole[1]
        if columns is None or b"\0" in block.has_x.tobytes():
            return None
        cells: list[Any] = list(block.x.values())
        if columns.unmet:
            if not all(_is_empty(cells[place]) for place in columns.unmet):
                return None
            cells = [cells[place] for place in columns.met]
        count = len(block)
        new: list[tuple[int, int, _Words, str, int]] = []
        for place, order, words in columns.words:
            codes = words.codes(cells[place])
            if codes is None:
                return None
            cells[place] = np.array(codes.inputs, np.float64)
            new += [(event, order, words, word, place * count + event) for event, word in codes.new]
        if learn:
            x, address = columns.room(count)
        else:
            x = np.empty(len(cells) * count)
            address = x.ctypes.data
        try:
            np.concatenate(cells, out=x, casting="no")
        except (TypeError, ValueError):  # another type, or of more dimensions
            return None
        return WholeBlock(columns, count, x, address, new)

    def settle(self, block: WholeBlock, *, learn: bool) -> None:
        """Give new words their inputs, event by event, where it learns; otherwise those of all others, if there are."""
        for _, _, words, word, at in sorted(block.new, key=lambda each: each[:2]):
            if learn:
                self._add_word(words, word)
            place = words.places.get(word) or words.places.get(OTHERS)
            block.x[at] = math.nan if place is None else place

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state besides `columns`, `unmet` and `width`: inputs and sums of the number columns, inputs of all categories in order,
        first inputs and lengths of the vectors.
        """
        columns = self._columns.values()
        numbers = [column for column in columns if isinstance(column, _Numbers)]
        words = [column for column in columns if isinstance(column, _Words)]
        vectors = [(column.place, column.length) for column in columns if isinstance(column, _Vector)]
        sums = [column.sums.tolist() for column in numbers]
        return {
            "number_inputs": np.array([column.place for column in numbers], np.int64),
            "category_inputs": np.array([place for column in words for place in column.places.values()], np.int64),
            "scales": np.array(sums, np.float64).reshape(-1, 4),
            **({"vector_inputs": np.array(vectors, np.int64)} if vectors else {}),
        }

    def restore(
        self,
        columns: tuple[EventColumn, ...],
        arrays: Mapping[str, NDArray[Any]],
        width: int,
        unmet: list[list[Any]],
    ) -> None:
        """Go on from another's `columns`, `arrays`, `width` and `unmet`. Raises `ValueError` where these do not fit together."""
        self._require_fit(columns, arrays, width)
        for name, kind in unmet:
            self._types.setdefault(name, kind)
            self._order.setdefault(name, len(self._order))
        places, sums = iter(arrays["number_inputs"].tolist()), iter(arrays["scales"].tolist())
        words, vectors = iter(arrays["category_inputs"].tolist()), iter(_vectors(arrays).tolist())
        self.width, self._whole = width, ((), None)
        for column in columns:
            self._types[column.name] = column.type
            if column.type == "number":
                self._columns[column.name] = _Numbers(next(places), next(sums))
            elif column.type == "vector":
                self._columns[column.name] = _Vector(*next(vectors))
            else:
                self._columns[column.name] = _Words({word: next(words) for word in column.categories})

    # -- private

    @staticmethod
    def _require_fit(columns: tuple[EventColumn, ...], arrays: Mapping[str, NDArray[Any]], width: int) -> None:
        numbers, words, vectors = arrays["number_inputs"], arrays["category_inputs"], _vectors(arrays)
        scales = arrays["scales"]
        kinds = [column.type for column in columns]
        categories = [column.categories for column in columns if column.type == "word"]
        if any(each.dtype.kind != "i" for each in (numbers, words, vectors)):
            raise ValueError("inputs that are no whole numbers")
        if {*kinds} - {"number", "word", "vector"} or len({column.name for column in columns}) < len(columns):
            raise ValueError("columns of another type, or two of a name")
        if any(len(set(each)) < len(each) for each in categories):
            raise ValueError("a category stands there twice")
        if (numbers.shape, words.shape) != ((kinds.count("number"),), (sum(map(len, categories)),)):
            raise ValueError("another number of inputs than of columns and categories")
        if vectors.shape != (kinds.count("vector"), 2) or not ((vectors >= 0) & (vectors <= width)).all():
            raise ValueError("another number of vectors, or one of more inputs than there are")
        if len(numbers) + len(words) + sum(vectors[:, 1].tolist()) != width - 1:
            raise ValueError(f"another number of inputs than {width}")
        of_vectors = [place + at for place, length in vectors.tolist() for at in range(length)]
        if sorted([*numbers.tolist(), *words.tolist(), *of_vectors]) != list(range(1, width)):
            raise ValueError(f"the inputs are not 1 to {width - 1}, each once")
        if scales.shape != (len(numbers), 4) or not np.isfinite(scales).all() or (scales[:, 0] < 1).any():
            raise ValueError(f"scales of shape {scales.shape}, or of no values, or with NaN")

    def _found(self, names: tuple[str, ...]) -> Columns | None:
        """What native code needs of columns; None where it cannot take their blocks."""
        met = [place for place, name in enumerate(names) if name in self._columns]
        columns = [self._columns[names[place]] for place in met]
        unmet = tuple(place for place, name in enumerate(names) if name not in self._columns)
        if not columns or not self._scaled or any(isinstance(column, _Vector) for column in columns):
            return None
        if any(self._types.get(names[place]) == "vector" for place in unmet):
            return None
        order = {name: place for place, name in enumerate(self._ordered(names))}
        numbers = [column if isinstance(column, _Numbers) else None for column in columns]
        words = [
            (at, order[names[place]], column)
            for at, (place, column) in enumerate(zip(met, columns, strict=True))
            if isinstance(column, _Words)
        ]
        sums = (ctypes.c_void_p * len(met))(*(each and each.sums.buffer_info()[0] for each in numbers))
        places = (ctypes.c_int32 * len(met))(*(each.place if each else 0 for each in numbers))
        return Columns(names, tuple(met), unmet, tuple(words), sums, places, np.empty(0))

    def _ordered(self, names: tuple[str, ...]) -> list[str]:
        """Columns in the stream's order, others by name: in which new ones get their inputs."""
        if names != self._sorted[0]:
            last = len(self._order)
            self._sorted = (names, sorted(names, key=lambda name: (self._order.get(name, last), name)))
        return self._sorted[1]

    @staticmethod
    def _cells(name: str, values: NDArray[Any]) -> list[Any]:
        if values.ndim == 2 and values.dtype.kind == "f":
            return list(values)
        if values.ndim != 1:
            raise DomainError(
                f"column '{name}' holds arrays of shape {values.shape[1:]} and type {values.dtype}, not numbers or words",
                hint="give the learner an encoder, a network or a package, as its input; or give the features of one",
            )
        cells: list[Any] = values.tolist()
        if values.dtype == object:
            return [
                cell if isinstance(cell, (str, float, int)) else "" if cell is None else str(cell) for cell in cells
            ]
        return cells

    def _read(self, given: dict[str, Any]) -> str | None:
        """Give each cell the type of its column, NaN or empty for a missing one; why the event is to be set aside, if it is."""
        for name, cell in given.items():
            kind = self._types.get(name)
            if isinstance(cell, np.ndarray):
                reason = self._misfit(name, cell)
                if reason is not None:
                    return reason
                continue
            if kind == "vector":
                return f"no vector in the column of vectors '{name}'"
            if kind == "number" or (kind is None and not isinstance(cell, str)):
                if isinstance(cell, str):
                    try:
                        cell = given[name] = float(cell) if cell else math.nan  # noqa: PLW2901
                    except ValueError:
                        return f"a word in the column of numbers '{name}'"
                if not -LARGEST <= cell <= LARGEST and not math.isnan(cell):
                    return beyond(name, cell)
            elif not isinstance(cell, str):
                given[name] = "" if math.isnan(cell) else str(cell)
        return None

    def _misfit(self, name: str, vector: NDArray[Any]) -> str | None:
        """Why a vector cannot be a row's part, if it cannot."""
        column = self._columns.get(name)
        if column is not None and not (isinstance(column, _Vector) and column.length == len(vector)):
            return f"a vector of another length, or where there was none before, in column '{name}'"
        if not (np.abs(vector.astype(np.float64)) <= LARGEST).all():
            return f"NaN or infinity in a vector of column '{name}'"
        return None

    def _grow(self, given: Mapping[str, Any]) -> None:
        for name, cell in given.items():
            column = self._columns.get(name)
            if isinstance(cell, np.ndarray):
                if column is None:
                    self._types[name] = "vector"
                    self._columns[name] = _Vector(self.width, len(cell))
                    self.width += len(cell)
                    self._whole = ((), None)
                continue
            if isinstance(column, _Numbers) or cell == "" or cell != cell:  # noqa: PLR0124 - NaN
                continue
            if column is None:
                kind = self._types.setdefault(name, "word" if isinstance(cell, str) else "number")
                column = self._columns[name] = (
                    _Words({}) if kind == "word" else _Numbers(self._next(), (0.0, float(cell), 0.0, 0.0))
                )
                self._whole = ((), None)
            if isinstance(column, _Words):
                self._add_word(column, cell)

    def _add_word(self, column: _Words, word: str) -> None:
        """Give a word an input, its own or that of all others, unless it has one."""
        if word in column.places:
            return
        others = OTHERS in column.places
        if len(column.places) - others < self._most:
            column.places[word] = self._next()
        elif not others:
            column.places[OTHERS] = self._next()

    def _next(self) -> int:
        self.width += 1
        return self.width - 1

    def _row(self, given: Mapping[str, Any], *, learn: bool) -> NDArray[np.float64]:
        row = [0.0] * self.width
        row[0] = 1.0
        vectors: list[tuple[_Vector, NDArray[Any]]] = []
        for name, cell in given.items():
            column = self._columns.get(name)
            if isinstance(column, _Numbers):
                scaled = column.scaled(cell, learn=learn)
                row[column.place] = scaled if self._scaled else column.raw(cell)
            elif isinstance(column, _Vector):
                vectors.append((column, cell))
            elif column is not None and cell != "":
                place = column.places.get(cell) or column.places.get(OTHERS)
                if place is not None:
                    row[place] = 1.0
        made = np.array(row)
        for column, cell in vectors:
            made[column.place : column.place + column.length] = _directed(cell) if self._scaled else cell
        return made


def _vectors(arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """First inputs and lengths of the vectors (V, 2)."""
    return arrays.get("vector_inputs", np.zeros((0, 2), np.int64))


def _directed(vector: NDArray[Any]) -> NDArray[np.float64]:
    """A vector (D,) at length √D; zeros stay."""
    values = vector.astype(np.float64)
    most = float(np.abs(values).max(initial=0.0))
    if most == 0.0:
        return values
    values /= most
    values *= math.sqrt(len(values) / float(values.dot(values)))
    return values


def _is_empty(cells: NDArray[Any]) -> bool:
    """Whether all cells of a column of numbers or words are missing."""
    if cells.ndim != 1:
        return False
    if cells.dtype == np.float64:
        return bool(np.isnan(cells).all())
    return all(isinstance(cell, str) and not cell for cell in cells.tolist())


class _Vector:
    """A column of vectors: the first of its inputs, and how many there are."""

    __slots__ = ("length", "place")
    type: ClassVar[RowType] = "vector"

    def __init__(self, place: int, length: int) -> None:
        self.place, self.length = place, length

    def placed(self, name: str) -> RowColumn:
        return RowColumn(name=name, type=self.type, places=tuple(range(self.place, self.place + self.length)))


class _Codes(NamedTuple):
    """Cells of a column of words (n,): the input of each, NaN for a missing one and for a new word; the new ones by event."""

    inputs: Sequence[float]
    new: Sequence[tuple[int, str]]


class _Words:
    """A column of words: the input of each category."""

    __slots__ = ("places",)
    type: ClassVar[RowType] = "word"

    def __init__(self, places: dict[str, int]) -> None:
        self.places = places

    def codes(self, cells: NDArray[Any]) -> _Codes | None:
        """None where there are others than words among them."""
        given: list[Any] = cells.tolist()
        try:
            inputs: list[Any] = list(map(self.places.get, given))
        except TypeError:  # what cannot be hashed
            return None
        new: list[tuple[int, str]] = []
        if None in inputs:
            for event, place in enumerate(inputs):
                if place is None:
                    word = given[event]
                    if not isinstance(word, str):
                        return None
                    if word:
                        new.append((event, word))
                    inputs[event] = math.nan
        return _Codes(inputs, new)

    def placed(self, name: str) -> RowColumn:
        return RowColumn(
            name=name,
            type=self.type,
            places=tuple(self.places.values()),
            categories=tuple(self.places),
            crowded=OTHERS in self.places,
        )


class _Numbers:
    """A column of numbers: its input, and `sums`: how many values it had, the first, and those of the values less the first and of their
    squares. Native code is shown where they lie, and moves them as `scaled` does.
    """

    __slots__ = ("place", "sums")
    type: ClassVar[RowType] = "number"

    def __init__(self, place: int, sums: Sequence[float]) -> None:
        self.place = place
        self.sums = array("d", sums)

    def scaled(self, value: float, *, learn: bool) -> float:
        """A value, scaled; 0 for NaN and while the column is constant. Where it learns, the value enters the sums first."""
        sums = self.sums
        moved = value - sums[1]
        if moved != moved:  # noqa: PLR0124 - NaN
            return 0.0
        if learn:
            sums[0] += 1.0
            sums[2] += moved
            sums[3] += moved * moved
        mean, std = self._scale()
        return (moved - mean) / std if std else 0.0

    def _scale(self) -> tuple[float, float]:
        """Mean of the values less the first, and their standard deviation; 0 while the column is constant."""
        count, _, total, squares = self.sums
        mean, of_squares = total / count, squares / count
        variance = of_squares - mean * mean
        return mean, math.sqrt(variance) if variance > _LEAST_SHARE * of_squares else 0.0

    def placed(self, name: str) -> RowColumn:
        mean, std = self._scale()
        return RowColumn(name=name, type=self.type, places=(self.place,), mean=self.sums[1] + mean, std=std)

    def raw(self, value: float) -> float:
        """A value as it is; the mean for NaN."""
        return value if value == value else self.sums[1] + self.sums[2] / self.sums[0]  # noqa: PLR0124 - NaN

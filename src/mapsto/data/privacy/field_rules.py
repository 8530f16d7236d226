"""Fields of tables as they may be stored: without a value, coarser, or under another name.

A rule is for the fields that its pattern names, as `fnmatch` reads it; of several the first one counts. It is applied to prepared rows,
what a network is given, so that rows which come prepared are kept to it too.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.errors import SpecError
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.data.privacy.pseudonyms import Pseudonyms
    from mapsto.data.privacy.settings import FieldAction
    from mapsto_runtime.signature import Column

__all__ = ["FieldRules", "require_fields"]


class FieldRules:
    """Rules for the columns of a table.

    Parameters
    ----------
    rules
        Pattern of names → what becomes of them.
    pseudonyms
        Under whose key categories are exchanged; None is allowed where no rule is ``hash``.

    Raises
    ------
    SpecError
        A column holds nothing that its rule can be applied to.

    >>> from mapsto.data.privacy.settings import Coarsen
    >>> from mapsto_runtime.signature import Column
    >>> columns = [Column(name="age", mean=40.0, std=10.0), Column(name="income", mean=3.0)]
    >>> rules = FieldRules({"age": Coarsen(coarsen=20), "inc*": "drop"}, columns)
    >>> rules.applied(np.array([[0.7, 9.0], [np.nan, 1.0]], np.float32)).tolist()  # 47 and no age
    [[0.0, 0.0], [nan, 0.0]]
    """

    def __init__(
        self,
        rules: Mapping[str, FieldAction],
        columns: Sequence[Column],
        pseudonyms: Pseudonyms | None = None,
    ) -> None:
        self._pseudonyms = pseudonyms
        self.patterns: set[str] = set()
        """Those that name a column."""
        self.hashed: list[str] = []
        """Columns whose categories are exchanged."""
        self._parts: list[tuple[slice, Column, FieldAction]] = []
        start = 0
        for column in columns:
            place = slice(start, start + column.width)
            start = place.stop
            matching = [pattern for pattern in rules if fnmatchcase(column.name, pattern)]
            self.patterns |= set(matching)
            if matching:
                _require_possible(column, rules[matching[0]])
                self._parts.append((place, column, rules[matching[0]]))
                if rules[matching[0]] == "hash":
                    self.hashed.append(column.name)
        self._codes = {column.name: self._other_codes(column, action) for _, column, action in self._parts}

    def __bool__(self) -> bool:
        return bool(self._parts)

    def applied(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Prepared rows (N, D) as they may be stored; what is missing stays missing."""
        if not self._parts:
            return rows
        found = rows.copy()
        for place, column, action in self._parts:
            part = rows[:, place].astype(np.float64)
            if action == "drop":
                part = np.broadcast_to(_without(column), part.shape)
            elif column.type == "numbers" and not isinstance(action, str):
                step = float(action.coarsen)
                raw = part * column.std + column.mean
                part = (np.round(raw / step) * step - column.mean) / column.std
            else:
                part = self._exchanged(part, column)
            found[:, place] = part
        return found

    # -- private

    def _exchanged(self, part: NDArray[np.float64], column: Column) -> NDArray[np.float64]:
        """Another category in the place of each. What is none of them, as an average that fills a gap, stays."""
        codes = self._codes[column.name]
        raw = part * column.std + column.mean
        if column.encode == "one_hot":
            numbers = np.where(np.isclose(raw, 1.0, atol=1e-3).sum(axis=1) == 1, np.nan_to_num(raw).argmax(axis=1), -1)
            own = numbers >= 0
            raw[own] = (codes[numbers[own]][:, None] == np.arange(column.width)).astype(np.float64)
        else:
            own = np.isclose(raw, np.round(raw), atol=1e-3) & (raw > -0.5) & (raw < len(codes) - 0.5)
            raw[own] = codes[np.round(raw[own]).astype(np.int64)]
        return (raw - column.mean) / column.std

    def _other_codes(self, column: Column, action: FieldAction) -> NDArray[np.int64]:
        """Of each category the one that stands in its place."""
        words = column.categories
        if column.type == "numbers" or action == "drop":
            return np.arange(len(words))
        if action == "hash":
            if self._pseudonyms is None:
                raise SpecError(
                    "categories are exchanged under a key, and none is given", where=f"fields.{column.name}"
                )
            names = self._pseudonyms
            order = sorted(range(len(words)), key=lambda code: names.of(f"FIELD {column.name}", words[code]))
            return np.array(order, np.int64)
        first: dict[str, int] = {}
        spans = [_span(word, str(action.coarsen)) if not isinstance(action, str) else None for word in words]
        return np.array(
            [code if span is None else first.setdefault(span, code) for code, span in enumerate(spans)], np.int64
        )


def require_fields(rules: Mapping[str, FieldAction], columns: Mapping[str, Sequence[Column]]) -> None:
    """Raises `SpecError` where a rule names no field of any model, given each model's columns."""
    names = [column.name for own in columns.values() for column in own]
    for pattern in rules:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise SpecError(
                f"fields: '{short(pattern)}' names no field of {few([f'{each!r}' for each in columns])}",
                where="privacy",
                hint=f"their fields are {few(list(dict.fromkeys(names)))}"
                if names
                else "they take no table: leave fields out",
            )


def _require_possible(column: Column, action: FieldAction) -> None:
    where = f"fields.{column.name}"
    if action == "drop":
        return
    if column.type == "numbers":
        if action == "hash":
            raise SpecError("a number has no pseudonym", where=where, hint="drop it, or give {coarsen: STEP}")
        if isinstance(action.coarsen, str):
            raise SpecError("the field holds numbers", where=where, hint="give a step, as {coarsen: 10}")
    elif action != "hash":
        if not isinstance(action.coarsen, str):
            raise SpecError("the field holds words", where=where, hint="drop or hash it; dates take month or year")
        if not any(_span(word, action.coarsen) for word in column.categories):
            raise SpecError("none of the field's words is a date", where=where, hint="dates are as 2026-11-30; drop it")


def _without(column: Column) -> NDArray[np.float64]:
    """What is stored in a field's place: as a gap is filled, else the mean of the rows trained on."""
    fill = np.array(column.fill or [math.nan] * column.width, np.float64)
    return np.nan_to_num((fill - column.mean) / column.std)


def _span(word: str, unit: str) -> str | None:
    """The month or year of a date as ISO 8601 has it; None for what is none."""
    try:
        moment = datetime.datetime.fromisoformat(word)
    except ValueError:
        return None
    return f"{moment:%Y}" if unit == "year" else f"{moment:%Y-%m}"

"""What a table's columns are, learnt from its train rows; how they become numbers is in `mapsto_runtime.preprocessing.tables`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from mapsto.data.checks import names_alike
from mapsto.errors import DataError, SpecError, nearest
from mapsto.kinds import Column, Preprocessing
from mapsto_runtime.preprocessing.json_lines import WrittenNumber
from mapsto_runtime.preprocessing.raw_tables import MISSING, RawTable, read_raw, unit_of
from mapsto_runtime.preprocessing.tables import encoded, encoded_column, values_of
from mapsto_runtime.shown import few, short

__all__ = [
    "Doubtful",
    "Learnt",
    "Target",
    "cells_of",
    "doubtful",
    "encoded_rows",
    "is_there",
    "parsed_columns",
    "relearnt_rows",
    "learnt_columns",
    "read_table",
    "target_of",
]

_CODE = re.compile(r"[+-]?0\d+")
"""``007``: a number that begins with a zero is a code, whose zeros count."""
_CODES = re.compile(r"^[+-]?0\d+$", re.MULTILINE)
_DATE = re.compile(
    r"(\d{4}-\d\d?-\d\d?|\d{4}/\d\d?/\d\d?|\d\d?[./-]\d\d?[./-](\d{4}|\d\d))([T ]\d\d?:\d\d.*)?|\d\d?:\d\d(:\d\d(\.\d+)?)?"
)
_BARE = frozenset("0123456789.+-")
_TWO_LETTERS = re.compile(r"[A-Z]{2}")
_ID_NAME = re.compile(r"(.*[_\s.-])?(id|ids|uuid|guid|index|idx|key|nr|no|row)|unnamed.*|", re.I)
_FEWEST_ROWS: Final = 10
"""In fewer rows every number may differ from the others by chance."""
_FEW_ODD: Final = 3
_MANY_NUMBERS: Final = 20
"""Among so many different numbers a few odd words are gaps or slips, not categories."""
_EXACT = 2**53
"""Up to here a float tells every whole number from the next."""
_MANY_WORDS: Final = 50
"""So many different words, and in more than half of the rows another one, are names or remarks, not categories."""
_MOSTLY: Final = 0.9
"""The share of numbers from which a column of words looks like one of numbers with a slip."""


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """The columns of a table, and what was found about them."""

    columns: tuple[Column, ...]
    warnings: tuple[str, ...]
    """What may spoil a result, with its remedy."""
    notes: tuple[str, ...]
    """How columns were understood where that is not plain."""


@dataclass(frozen=True, kw_only=True)
class Doubtful:
    """Columns that cannot be predicted from, or hardly should be."""

    unfit: dict[str, str]
    """Of no type that can be predicted from → what it holds, as ``dates``."""
    empty: tuple[str, ...]
    """Without any value."""
    constant: tuple[str, ...]
    """With the same value in every row that has one: to drop where other columns are left."""
    ids: dict[str, str]
    """Those that only tell the rows apart → how, in words that follow the name."""

    def said_of_unfit(self) -> list[str]:
        """A sentence on each kind of column of no type that can be predicted from."""
        found: list[str] = []
        for kind in dict.fromkeys(self.unfit.values()):
            advice = "; where they matter, add columns of numbers, as of the weekday" if kind == "dates" else ""
            names = [name for name, held in self.unfit.items() if held == kind]
            found.append(f"{_called(names, 'holds', 'hold')} {kind}, which are not predicted from{advice}")
        return found

    def said_of_empty(self) -> list[str]:
        """A sentence on columns without a value."""
        return (
            [f"{_called(self.empty, 'holds', 'hold')} no value, and nothing is predicted from it"] if self.empty else []
        )

    def said_of_constant(self) -> list[str]:
        """A sentence on columns of one value."""
        if not self.constant:
            return []
        return [
            f"{_called(self.constant, 'holds one value', 'hold one value each')}, which tells nothing, and nothing is predicted from it"
        ]

    def said_of_ids(self, then: Callable[[str], str]) -> list[str]:
        """A sentence on each way in which columns tell the rows apart; `then` gives its second half, of the first column's name."""
        found: list[str] = []
        for how in dict.fromkeys(self.ids.values()):
            names = [name for name, way in self.ids.items() if way == how]
            quoted = [f"'{short(name)}'" for name in names]
            which = "column" if len(names) == 1 else "each of the columns"
            found.append(f"{which} {few(quoted)} {how}, {then(names[0])}")
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """What the column to predict holds, row by row."""

    name: str
    words: tuple[str | None, ...]
    """None where there is no value."""
    values: NDArray[np.float64]
    """NaN where there is no number."""
    kind: Literal["numbers", "words"]
    """Numbers where all values are some, or all but a few odd words among many numbers."""
    odd: tuple[int, ...]
    """Rows that hold a word where the others hold numbers."""
    unit: str = ""
    """A currency or percent sign beside the numbers."""

    @property
    def kept_gaps(self) -> tuple[str, ...]:
        """Words that elsewhere stand for a missing value, and are classes here."""
        return tuple(sorted({word for word in self.words if word in MISSING}))

    @property
    def distinct(self) -> int:
        """How many different values it holds."""
        if self.kind == "numbers":
            return len(np.unique(self.values[np.isfinite(self.values)]))
        return len({word for word in self.words if word is not None})

    @property
    def fraction(self) -> float | None:
        """The first number that is not whole; None where all are."""
        finite = self.values[np.isfinite(self.values)]
        parts = finite[finite % 1 != 0]
        return float(parts[0]) if self.kind == "numbers" and len(parts) else None

    def labels(self, *, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """A class for each row, -1 where there is no value, and the classes' names: words by alphabet, numbers by size.

        Raises `DataError` for numbers that are not whole.
        """
        exact = not (np.abs(self.values[np.isfinite(self.values)]) > _EXACT).any()  # else different ones may be one
        if self.kind == "numbers" and not self.odd and (exact or self.fraction is not None):
            if self.fraction is not None:
                raise DataError(
                    f"column '{short(self.name)}' holds fractions, such as {self.fraction:.15g}, so it is not one of classes",
                    where=where,
                    hint="set task: values",
                )
            there = np.isfinite(self.values)
            known, codes = np.unique(self.values[there], return_inverse=True)
            names = tuple(str(int(value)) for value in known)
        else:
            there = np.array([word is not None for word in self.words])
            unique, codes = np.unique(
                np.array([w for w in self.words if w is not None], dtype=str), return_inverse=True
            )
            names = tuple(unique.tolist())
        labels = np.full(len(self.words), -1)
        labels[there] = codes
        return labels.astype(np.int64), names

    def numbers(self, *, where: str) -> NDArray[np.float32]:
        """A number for each row, NaN where there is none. Raises `DataError` for a column of words."""
        if self.kind == "words":
            row = next((row for row, value in enumerate(self.values) if np.isnan(value) and self.words[row]), 0)
            raise DataError(
                f"column '{short(self.name)}' holds words, not numbers (row {row + 1}: '{short(self.words[row] or '')}')",
                where=where,
                hint="set task: classes",
            )
        return np.where(np.isinf(self.values), np.nan, self.values).astype(np.float32)

    def missing(self, task: Literal["classes", "values"]) -> NDArray[np.bool_]:
        """Which rows hold no class, or no number."""
        if task == "values" or (self.kind == "numbers" and not self.odd):
            return ~np.isfinite(self.values)
        return np.array([word is None for word in self.words], np.bool_)


def read_table(path: Path, needed: Sequence[str]) -> RawTable:
    """The cells of a CSV, TSV or Parquet file with a header.

    Raises
    ------
    DataError
        The file is not a whole table of its kind, or two columns have one name.
    SpecError
        A column that is needed is not there.
    """
    where = str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"not a whole table: {error}", where=where, hint="give a .csv, .tsv, .jsonl or .parquet file"
        ) from error
    if not content.strip():
        raise DataError(
            "not a whole table: it is empty", where=where, hint="give a .csv, .tsv, .jsonl or .parquet file"
        )
    table = read_raw(content, where)
    for row, what in table.ragged.items():
        count = f" ({len(table.ragged)} rows are like that)" if len(table.ragged) > 1 else ""
        raise DataError(f"not a whole table: row {row + 1} has {what}{count}", where=where, hint="mend or drop the row")
    names = [name.strip() for name in table.names or ()]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        places = [str(place + 1) for place, name in enumerate(names) if name == twice]
        what = f"are named '{short(twice)}'" if twice else "have no name"
        raise DataError(
            f"{len(places)} columns {what} ({few(places)} from the left)",
            where=where,
            hint="rename or remove all but one",
        )
    for name in needed:
        if name not in names:
            raise SpecError(
                f"there is no column '{short(name)}'",
                where=where,
                hint=nearest(name, names, most=20) + _headless(names),
            )
    return dataclasses.replace(table, names=tuple(names))


def _called(names: Sequence[str], one: str, several: str) -> str:
    """Columns by name, with the verb that fits their number."""
    which, verb = ("columns", several) if len(names) > 1 else ("column", one)
    quoted = [f"'{short(name)}'" for name in names]
    return f"{which} {few(quoted)} {verb}"


def _headless(names: Sequence[str]) -> str:
    """A word for a table whose first line looks like a row."""
    numbers, _ = values_of(np.array(names, object))
    return "; its first line has to hold the columns' names" if np.isfinite(numbers).any() else ""


def learnt_columns(
    table: RawTable,
    names: Sequence[str],
    train: NDArray[np.bool_],
    *,
    encode: Literal["one_hot", "ordinal"] = "one_hot",
    scale: bool = True,
    missing: Literal["refuse", "mean"] = "mean",
    where: str,
) -> Learnt:
    """What the columns of these names become, by the train rows alone (shape (N,)).

    Raises `DataError` for a column that is neither of numbers nor of words, or holds no value at all.
    """
    columns: list[Column] = []
    said = _Said()
    for name in names:
        cells, comma = cells_of(table, name, where=where)
        column = _typed(name, cells, train, comma, encode, where=where, said=said)
        columns.append(_measured(column, cells[train], comma, scale=scale, fill=missing == "mean", where=where))
        if _is_constant(cells[train]):
            said.note(
                "one value", name, "holds one value, which tells nothing", "hold one value each, which tells nothing"
            )
    return Learnt(columns=tuple(columns), warnings=tuple(said.warnings), notes=said.notes)


def encoded_rows(
    table: RawTable, preprocessing: Preprocessing, *, where: str, only: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Every row as a network's input, shape (N, D), or those of `only`, and what was done; `preprocessing` holds the columns.

    Raises `DataError` that names the first row that cannot be used, and counts them.
    """
    found = encoded(table, preprocessing, where)
    bad = [row for row in sorted(found.errors) if only is None or only[row]]
    for row in bad:
        error = found.errors[row]
        count = f" ({len(bad)} of {len(table)} rows are like that)" if len(bad) > 1 else ""
        raise DataError(error.what + count, where=where, hint=error.hint)
    return found.rows if only is None else found.rows[only[found.numbers]], found.notes


def parsed_columns(table: RawTable, columns: Sequence[Column], *, where: str) -> list[NDArray[np.float64]]:
    """What each column's cells are before they are filled and scaled, shape (N, width), NaN where there is no value."""
    found: list[NDArray[np.float64]] = []
    for column in columns:
        cells, comma = cells_of(table, column.name, where=where)
        found.append(encoded_column(dataclasses.replace(column, fill=(0.0,)), cells, comma)[0])
    return found


def relearnt_rows(
    parsed: Sequence[NDArray[np.float64]], columns: Sequence[Column], train: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Rows as a network's input, shape (N, D), filled and scaled by the train rows alone: as after `learnt_columns` from these.

    A word that no train row has counts as missing.
    """
    parts: list[NDArray[np.float64]] = []
    for column, given in zip(columns, parsed, strict=True):
        values = given
        if column.width > 1 or (column.type == "words" and column.encode == "one_hot"):
            unseen = np.nansum(values[train], axis=0) == 0
            values = np.where((values[:, unseen] == 1).any(axis=1, keepdims=True), np.nan, values)
        known = ~np.isnan(values[train])
        means = np.where(known, values[train], 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        filled = np.where(np.isnan(values), means, values)
        if column.type == "numbers" or column.encode == "ordinal":
            spread = filled[train].std()
            filled = (filled - means) / (1.0 if spread <= 1e-9 * abs(means[0]) else spread)
        parts.append(filled)
    return np.concatenate(parts, axis=1)


def doubtful(table: RawTable, names: Sequence[str]) -> Doubtful:
    """What of these columns cannot be predicted from, or hardly should be."""
    unfit: dict[str, str] = {}
    empty: list[str] = []
    constant: list[str] = []
    ids: dict[str, str] = {}
    for name in names:
        place = (table.names or ()).index(name)
        cells = table.columns[place]
        kind = _unfit(table, name)
        if kind is not None:
            unfit[name] = kind
        elif not any(is_there(cell) for cell in cells):
            empty.append(name)
        elif _is_constant([cell for cell in cells if is_there(cell)]):  # a gap is filled with that value
            constant.append(name)
        elif (how := _is_id(name, cells, place in table.decimal_commas)) is not None:
            ids[name] = how
    return Doubtful(unfit=unfit, empty=tuple(empty), constant=tuple(constant), ids=ids)


def target_of(table: RawTable, name: str, *, where: str) -> Target:
    """What the column to predict holds. Raises `DataError` where it is neither of numbers nor of words."""
    kind = _unfit(table, name)
    if kind is not None:
        raise DataError(
            f"column '{short(name)}' (the target) holds {kind}, which cannot be predicted",
            where=where,
            hint="choose another column, or write it as numbers or words",
        )
    place = (table.names or ()).index(name)
    cells, comma = table.columns[place], place in table.decimal_commas
    words = _words_of_target(cells)
    values, wrong = values_of(cells, comma)
    texts = [cell for cell in cells if isinstance(cell, str)]
    coded = any(_CODE.fullmatch(cell) for cell in texts) or any(cell.lower() in ("true", "false") for cell in texts)
    finite = values[np.isfinite(values)]
    slips = _are_slips(cells, values, wrong)
    numbers = len(finite) > 0 and not coded and (not wrong or slips)
    if any(cell in MISSING and words[row] is not None for row, cell in enumerate(cells) if isinstance(cell, str)):
        numbers = False  # a word that usually stands for a gap is a class here
    units = {unit_of(cell) for cell in texts} - {""} if numbers else set[str]()
    return Target(
        name=name,
        words=tuple(words),
        values=values,
        kind="numbers" if numbers else "words",
        odd=tuple(wrong) if numbers else (),
        unit=" and ".join(sorted(units)),
    )


def cells_of(table: RawTable, name: str, *, where: str) -> tuple[NDArray[Any], bool]:
    """The cells of a column, and whether its numbers have decimal commas.

    Raises `DataError` where they are neither numbers nor words.
    """
    kind = _unfit(table, name)
    if kind is not None:
        raise DataError(
            f"column '{short(name)}' holds {kind}, neither numbers nor words",
            where=where,
            hint="convert it, or leave it out of the columns to predict from",
        )
    place = (table.names or ()).index(name)
    return table.columns[place], place in table.decimal_commas


def is_there(cell: Any) -> bool:
    """Whether a cell holds a value."""
    return cell is not None and not (isinstance(cell, str) and cell in MISSING)


def _is_constant(cells: Sequence[Any] | NDArray[Any]) -> bool:
    return len(cells) > 1 and all(cell == cells[0] for cell in cells)


class _Said:
    """What is to be said of columns; what is true of several is said once."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self._notes: dict[str, tuple[str, str, list[str]]] = {}

    def note(self, kind: str, column: str, one: str, several: str) -> None:
        """What is true of a column, as a verb and what follows it, and the same of several."""
        self._notes.setdefault(kind, (one, several, []))[2].append(column)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(_called(names, one, several) for one, several, names in self._notes.values())


def _typed(
    name: str,
    cells: NDArray[Any],
    train: NDArray[np.bool_],
    comma: bool,
    encode: Literal["one_hot", "ordinal"],
    *,
    where: str,
    said: _Said,
) -> Column:
    decimal: Literal[".", ","] = "," if comma else "."
    if not _is_of_words(cells, comma):
        _say_units(name, cells, said)
        return Column(name=name, decimal=decimal)
    words = _words_of(cells)
    title = f"column '{short(name)}'"
    if "NA" in words:
        what = "NA as a code, as every word there is of two letters, not as a missing value"
        said.note("NA", name, f"has {what}", f"have {what}")
    codes = [word for word in words if word is not None and _CODE.fullmatch(word)]
    values, wrong = values_of(cells, comma)
    present = sum(word is not None for word in words)
    if not wrong and codes:
        what = f"codes such as '{codes[0]}', so that"
        said.note("codes", name, f"holds {what} it is one of words", f"hold {what} they are of words")
    elif _are_slips(cells, values, wrong) and not codes:
        odd = sorted({str(cells[row]) for row in wrong})
        called = " and ".join(f"'{short(word)}'" for word in odd)
        said.warnings.append(
            f"{title} is taken for one of numbers, so that {called} counts as a missing value "
            f"({len(wrong)} of {present} values, row {wrong[0] + 1} the first); mend them if that is not what they mean"
        )
        return Column(name=name, categories=tuple(odd), decimal=decimal)
    elif wrong and len(wrong) <= (1 - _MOSTLY) * present:
        said.warnings.append(
            f"{title} is taken for one of words, for row {wrong[0] + 1} holds '{short(str(cells[wrong[0]]))}' "
            f"({len(wrong)} of {present} values are no numbers); if it is one of numbers, mend them or leave those cells empty"
        )
    known = sorted({word for word, is_train in zip(words, train, strict=True) if is_train and word is not None})
    if not known:
        raise DataError(
            f"{title} has no value to learn from", where=where, hint="leave it out of the columns to predict from"
        )
    for alike in names_alike(known):
        said.warnings.append(f"{title}: {alike} count as different words; write them alike if they are one")
    return Column(name=name, type="words", categories=tuple(known), encode=encode)


def _say_units(name: str, cells: NDArray[Any], said: _Said) -> None:
    """A warning where the numbers of a column are in different units, which are all read alike."""
    there = [cell for cell in cells if isinstance(cell, str) and cell not in MISSING]
    marked = [cell for cell in there if cell[0] not in _BARE or cell[-1] not in _BARE]
    units = {unit_of(cell) for cell in marked} | ({""} if len(marked) < len(there) else set[str]())
    if len(units - {""}) > 1 or ("%" in units and len(units) > 1):
        named = " and ".join(f"'{unit}'" if unit else "no unit" for unit in sorted(units, reverse=True))
        said.warnings.append(
            f"column '{short(name)}' mixes {named}, which are read as plain numbers; bring them to one unit"
        )


def _measured(column: Column, cells: NDArray[Any], comma: bool, *, scale: bool, fill: bool, where: str) -> Column:
    """The column with what missing values become, its mean and its spread over these rows."""
    values, _, _ = encoded_column(dataclasses.replace(column, fill=(0.0,)), cells, comma)
    known = ~np.isnan(values)
    if not known.any(axis=0).all():
        raise DataError(
            f"column '{short(column.name)}' has no finite value to take the mean of",
            where=where,
            hint="leave it out of the columns to predict from",
        )
    means = np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)
    column = dataclasses.replace(column, fill=tuple(means.tolist()) if fill else ())
    if not scale or column.width != 1 or (column.type == "words" and column.encode == "one_hot"):
        return column
    spread = float(np.where(known, values, means).std())
    mean = float(means[0])
    constant = spread <= 1e-9 * abs(mean)
    return dataclasses.replace(column, mean=mean, std=1.0 if constant else spread)


def _is_of_words(cells: NDArray[Any], comma: bool) -> bool:
    """Whether a column is one of words: a value is no number, or is a code such as ``007``."""
    texts = [cell for cell in cells if isinstance(cell, str)]
    text = "\n".join(texts)
    if _CODES.search(text) is not None:
        return True
    values, wrong = values_of(cells, comma)
    if wrong:
        return True
    truths = sum(cell.lower() in ("true", "false") for cell in texts) if "e" in text.lower() else 0
    return 0 < truths < int((~np.isnan(values)).sum())


def _are_slips(cells: NDArray[Any], values: NDArray[np.float64], wrong: Sequence[int]) -> bool:
    """Whether a few odd words stand among many different numbers."""
    present = int((~np.isnan(values)).sum()) + len(wrong)
    return (
        0 < len(wrong) <= (1 - _MOSTLY) * present
        and len({str(cells[row]) for row in wrong}) <= _FEW_ODD
        and len(set(values[np.isfinite(values)])) >= _MANY_NUMBERS
    )


def _words_of(cells: NDArray[Any]) -> list[str | None]:
    """Each cell as a word, None where it holds none; among codes of two letters, as of countries, NA is one."""
    there = {cell for cell in cells if is_there(cell)}
    codes = bool(there) and all(isinstance(cell, str) and _TWO_LETTERS.fullmatch(cell) for cell in there)
    return [_word(cell) if is_there(cell) or (codes and cell == "NA") else None for cell in cells]


def _words_of_target(cells: NDArray[Any]) -> list[str | None]:
    """As `_words_of`; where there is one other word, and no cell is empty, a word such as ``null`` is a class and no gap."""
    words = _words_of(cells)
    gaps = {cell for cell, word in zip(cells, words, strict=True) if word is None}
    if len(gaps) == 1 and len({word for word in words if word is not None}) == 1:
        gap = gaps.pop()
        if isinstance(gap, str) and gap.isalpha():
            return [gap if word is None else word for word in words]
    return words


def _word(cell: Any) -> str:
    if isinstance(cell, WrittenNumber) and cell.written.lstrip("-").isdigit():
        return cell.written  # as a float a long number loses its last digits
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _unfit(table: RawTable, name: str) -> str | None:
    """What a column holds that is neither numbers nor words, as ``dates``; None where it holds these."""
    kind = table.odd.get(name)
    if kind is not None:
        return "dates" if kind.startswith(("date", "time")) else f"values of type {short(kind)}"
    found = False
    for cell in table.columns[(table.names or ()).index(name)]:
        if is_there(cell):
            if not isinstance(cell, str) or _DATE.fullmatch(cell) is None:
                return None
            found = True
    return "dates" if found else None


def _is_id(name: str, cells: NDArray[Any], comma: bool) -> str | None:
    """How a column tells the rows apart; None where it does more, or that cannot be said.

    What is different in every row is one where it is called so, is text, or counts the rows from 0 or 1: a year, a dose or a price
    may be different in every row too.
    """
    there = [cell for cell in cells if is_there(cell)]
    values, wrong = values_of(cells, comma)
    words = len(wrong) > len(there) / 2
    different = len(set(there))
    if words and different > max(_MANY_WORDS, len(there) / 2) and different < len(cells):
        return f"holds {different} different words in {len(there)} rows"
    if different < len(cells):
        return None
    enough = len(cells) >= _FEWEST_ROWS
    named = _ID_NAME.fullmatch(name) is not None or name.endswith(("Id", "ID"))
    if words or any(isinstance(cell, str) and _CODE.fullmatch(cell) for cell in cells):
        return "holds another word in every row" if enough else None
    if wrong or not np.isfinite(values).all() or (values % 1).any():
        return None
    counts = len(values) > 1 and values[0] in (0, 1) and bool((np.diff(values) == 1).all())
    return "numbers the rows" if (counts and (named or enough)) or (named and enough) else None

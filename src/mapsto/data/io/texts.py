"""The texts of a file and, where it is a table, its other columns; which texts are repeated, and which contradict each other."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.data.io.tables import read_table
from mapsto.errors import DataError, SpecError, nearest
from mapsto_runtime.preprocessing.json_lines import is_json_lines, json_objects
from mapsto_runtime.preprocessing.raw_tables import RawTable, decoded
from mapsto_runtime.preprocessing.text_files import TABLES, columns_of_texts, texts_in
from mapsto_runtime.preprocessing.texts import is_unicode
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BROKEN", "TextRows", "conflicts", "left_out", "like", "lists_in", "read_texts", "repeats", "seen_before"]

BROKEN = "it is no text: half of a pair of surrogates stands in it"

_MOST_LISTED = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class TextRows:
    """The rows of a file."""

    texts: NDArray[np.object_]
    """(N,), or of pairs (N, 2); empty where there is none."""
    table: RawTable | None
    """None for a file of lines."""
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Which rows lack a text, or one of a pair."""
        rows = self.texts.reshape(len(self.texts), -1)
        return np.array([not all(text.strip() for text in row) for row in rows], np.bool_)

    @property
    def broken(self) -> NDArray[np.bool_]:
        """Which rows have half of a pair of surrogates in a text."""
        rows = self.texts.reshape(len(self.texts), -1)
        return np.array([not all(map(is_unicode, row)) for row in rows], np.bool_)


def read_texts(path: Path, columns: Sequence[str], targets: Sequence[str]) -> TextRows:
    """The rows of a file of texts.

    Raises
    ------
    DataError
        The file is not whole, or it is no table and targets are asked for.
    SpecError
        There is no such column.
    """
    where, parts = str(path), len(columns)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror})", where=where, hint="give a .csv, .tsv, .parquet or .jsonl file"
        ) from error
    if not content.strip():
        raise DataError("it is empty", where=where, hint="give a table with a column of texts, or one text a line")
    if not _is_table(content, path):
        if targets:
            raise DataError(
                f"it has no columns, so that there is no '{short(targets[0])}'",
                where=where,
                hint="give a .csv, .tsv, .parquet or .jsonl table",
            )
        found = texts_in(content, where, parts=parts)
        lines = tuple(text for text in found.texts if any(text))  # what is blank between lines says nothing to learn
        return TextRows(texts=_array(lines, parts), table=None, notes=found.notes)
    table = read_table(path, targets)
    if not len(table):
        raise DataError("holds no rows", where=where, hint="give one text a row below the header")
    missing = [column for column in columns if column not in (table.names or ())]
    if missing:
        raise SpecError(
            f"there is no column '{short(missing[0])}'",
            where=where,
            hint=nearest(missing[0], table.names or (), most=20),
        )
    for column in columns:
        if column in table.odd:
            raise DataError(
                f"column '{short(column)}' holds {table.odd[column]}, not texts",
                where=where,
                hint="name another column",
            )
    texts, _ = columns_of_texts(table, where, columns=columns, parts=parts)
    return TextRows(texts=_array(texts, parts), table=table, notes=table.notes)


def lists_in(path: Path, column: str) -> list[tuple[str, ...] | None]:
    """The cells of a column of lists of words, of a JSON Lines or Parquet file; None where a row has no list.

    Raises `DataError` for a cell that is no list of words.
    """
    content = path.read_bytes()
    cells: list[Any]
    if content.startswith(b"PAR1"):
        import pyarrow.parquet as pq

        cells = pq.read_table(path, columns=[column]).column(0).to_pylist()
    else:
        cells = [row.get(column) for row in json_objects(decoded(content, str(path))[0], str(path))]
    found: list[tuple[str, ...] | None] = []
    for row, cell in enumerate(cells):
        if cell is not None and not (isinstance(cell, list) and all(isinstance(word, str) for word in cell)):
            raise DataError(
                f"row {row + 1}: '{short(column)}' holds {short(str(cell))}, no list of words",
                where=str(path),
                hint='write it as ["red", "fruit"]',
            )
        found.append(None if cell is None else tuple(cell))
    return found


def _is_table(content: bytes, path: Path) -> bool:
    return (
        path.suffix.lower() in TABLES
        or content.startswith(b"PAR1")
        or is_json_lines(content.lstrip().partition(b"\n")[0].decode("utf-8-sig", errors="ignore"))
    )


def _array(texts: Sequence[Any], parts: int) -> NDArray[np.object_]:
    found = np.empty((len(texts), parts), object)
    for row, pieces in enumerate(texts):
        found[row] = [pieces] if parts == 1 else list(pieces)
    return found[:, 0] if parts == 1 else found


def repeats(rows: TextRows, labels: NDArray[Any], among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows have the text and the target of one before them."""
    found = np.zeros(len(rows), np.bool_)
    places = np.flatnonzero(among)
    found[places] = seen_before([(_key(rows, row), labels[row].tobytes()) for row in places.tolist()])
    return found


def seen_before(keys: Sequence[Hashable]) -> NDArray[np.bool_]:
    """Which keys stand there before.

    >>> seen_before(["a", "b", "a"]).tolist()
    [False, False, True]
    """
    seen: set[Hashable] = set()
    found = np.zeros(len(keys), np.bool_)
    for place, key in enumerate(keys):
        found[place] = key in seen
        seen.add(key)
    return found


def left_out(rows: NDArray[np.bool_], why: str, *, what: str = "row") -> list[str]:
    """A warning of rows that are left out; none where there is none."""
    count = int(rows.sum())
    if not count:
        return []
    first = f"{what} {int(rows.argmax()) + 1}"
    are, which = ("is", first) if count == 1 else ("are", f"{first} the first")
    return [f"{count} of {len(rows)} {what}s {are} left out, for {why} ({which})"]


def conflicts(rows: TextRows, labels: NDArray[np.int64], classes: Sequence[str], among: NDArray[np.bool_]) -> list[str]:
    """A warning that lists equal texts with different classes; none where there is none."""
    by_text: dict[Any, list[int]] = {}
    for row in np.flatnonzero(among).tolist():
        by_text.setdefault(_key(rows, row), []).append(row)
    found = [same for same in by_text.values() if len(set(labels[same].tolist())) > 1]
    if not found:
        return []

    def said(same: list[int]) -> str:
        shown = " | ".join(np.atleast_1d(rows.texts[same[0]]).tolist())
        as_what = few([f"'{short(classes[label])}' (row {row + 1})" for row, label in _first_of_each(same, labels)])
        return f"'{short(shown)}' as {as_what}"

    listed = "; ".join(said(same) for same in found[:_MOST_LISTED])
    more = f"; and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
    texts = "a text stands" if len(found) == 1 else f"{len(found)} texts stand"
    return [
        f"{texts} there with different classes, so that one of them must be wrong: {listed}{more}; mend or drop the rows"
    ]


def _first_of_each(rows: list[int], labels: NDArray[np.int64]) -> list[tuple[int, int]]:
    found: dict[int, int] = {}
    for row in rows:
        found.setdefault(int(labels[row]), row)
    return [(row, label) for label, row in found.items()]


def _key(rows: TextRows, row: int) -> Any:
    return tuple(like(str(text)) for text in np.atleast_1d(rows.texts[row]))


def like(text: str) -> str:
    """A text without what a tokenizer hardly tells: case and blanks."""
    return " ".join(text.casefold().split())

"""The texts in a file: a column of a CSV, TSV, Parquet or JSON Lines table, else one text a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from mapsto_runtime.errors import DataError, nearest
from mapsto_runtime.preprocessing.json_lines import WrittenNumber, is_json_lines
from mapsto_runtime.preprocessing.lines import lines_of
from mapsto_runtime.preprocessing.raw_tables import RawTable, decoded, read_raw
from mapsto_runtime.preprocessing.texts import Text
from mapsto_runtime.shown import few, short

__all__ = ["TABLES", "TextsInFile", "columns_of_texts", "texts_in"]

TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
"""Endings of files that hold a table."""


@dataclass(frozen=True, kw_only=True)
class TextsInFile:
    """What a file holds."""

    texts: tuple[Text, ...]
    """Of a cell without a value, and of a blank line before others, an empty one: so each stays in its place."""
    notes: tuple[str, ...] = ()
    """What is not as usual with the file, and which column was read."""


def texts_in(content: bytes, name: str, *, columns: Sequence[str] = (), parts: int = 1) -> TextsInFile:
    """The texts in the bytes of a file.

    Parameters
    ----------
    name
        What messages call it; by its ending a table is told from lines of text. Standard input is a table where its first line names
        the columns, or it is Parquet or JSON Lines.
    columns
        The columns that training read; where the table has others, its only one or two are taken.
    parts
        2 for pairs of texts: of a file of lines the two are separated by a tab.

    Raises
    ------
    DataError
        The file is no text, or which columns to read cannot be told.
    """
    parquet = content.startswith(b"PAR1")
    if not parquet:
        text, notes = decoded(content, name)
        ending = PurePath(name).suffix.lower()
        first = next((line for line in lines_of(text) if line.strip()), "")
        titled = bool(columns) and all(column in first for column in columns) and ending not in (".txt", ".text")
        if ending not in TABLES and not titled and not is_json_lines(text):
            lines = [line.strip() for line in lines_of(text)]
            while lines and not lines[-1]:
                lines.pop()
            if not lines:
                raise DataError("holds no texts", where=name, hint="give one text a line")
            return TextsInFile(texts=tuple(_pieces(line, parts) for line in lines), notes=tuple(notes))
    table = read_raw(content, name)
    for row, what in table.ragged.items():
        raise DataError(
            f"row {row + 1} has {what}", where=name, hint="put texts that hold the separator in double quotes"
        )
    if not len(table):
        raise DataError("holds no rows below its header", where=name, hint="give one text a row")
    found, more = columns_of_texts(table, name, columns=columns, parts=parts)
    return TextsInFile(texts=found, notes=(*table.notes, *more))


def columns_of_texts(
    table: RawTable, name: str, *, columns: Sequence[str], parts: int
) -> tuple[tuple[Text, ...], tuple[str, ...]]:
    """The texts of a table's columns, and a note where others than those that are wanted are read."""
    titles = [title.strip() for title in table.names or ()]
    notes: tuple[str, ...] = ()
    wanted = columns or (("text",) if parts == 1 else ())
    places = [titles.index(column) for column in wanted if column in titles]
    if len(places) != parts:
        places = list(range(len(titles)))
        if len(places) != parts:
            missing = next((column for column in wanted if column not in titles), "text")
            raise DataError(
                f"there is no column '{short(missing)}'",
                where=name,
                hint=f"{nearest(missing, titles, most=20)}; a table of {'one column' if parts == 1 else f'{parts} columns'} needs no name",
            )
        notes = (f"column {few([f'{short(title)!r}' for title in titles])} is read as the text",) if columns else ()
    cells = [[_text(cell) for cell in table.columns[place]] for place in places]
    return (tuple(cells[0]) if parts == 1 else tuple(zip(*cells, strict=True))), notes


def _pieces(line: str, parts: int) -> Text:
    if parts == 1:
        return line
    return tuple(piece.strip() for piece in line.split("\t")) if line else ("",) * parts


def _text(cell: object) -> str:
    """A cell as text: a number as it was written where that is known, else a whole one without its fraction."""
    if cell is None:
        return ""
    if isinstance(cell, WrittenNumber):
        return cell.written
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else ("" if cell != cell else str(cell))  # noqa: PLR0124 - NaN
    return str(cell)

"""A CSV file as a stream: a line is an event, and its position is the byte that it begins at, so that going on costs no reading again.

A line without a value of the target is a question; one with an id and a target alone is a label that comes late. Cells are understood as
those of a table are: decimal commas and Windows-1252 are found by themselves, and ``007`` is a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from mapsto.data.streams._csv_reader import CsvReader
from mapsto.data.streams._sources import Source
from mapsto.data.streams._text_file import TextFile

__all__ = ["Csv"]


class Csv(TextFile):
    r"""The lines of a file with a header, features as numbers where the first 100 rows hold nothing else, else as words.

    A column without a value there is what its first value is. What is no event, such as a line with a cell too many, is set aside.

    Raises `DataError` for a file without a header or that is shortened, replaced or removed while it is followed, `SpecError` for a column
    that it has not.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "doors.csv"
    >>> _ = file.write_text("width,colour,open\n0.8,red,yes\n1.2,,no\n")
    >>> block = next(Csv(file=str(file), target="open").open())
    >>> block.x["width"].tolist(), block.x["colour"].tolist(), block.y.tolist(), block.next
    ([0.8, 1.2], ['red', ''], ['yes', 'no'], 38)
    """

    version: ClassVar[int] = 4

    separator: Literal[",", ";", "\t", "|"] | None = None
    """What stands between cells; by default what is most frequent in the header."""

    @staticmethod
    def contract_fields(folder: Path) -> dict[str, Any]:
        """A file with questions, late labels, gaps, quotes and a broken line."""
        file = folder / "doors.csv"
        lines = [f'{n},{n / 4 if n % 5 else ""},"red, {n % 3}",{"yes" if n % 2 else ""}' for n in range(40)]
        lines[20] = "20,1.5"
        lines += [f"{n},,,no" for n in range(0, 20, 2)]
        file.write_text("\n".join(["number,width,colour,open", *lines]) + "\n", encoding="utf-8")
        return {"file": str(file), "target": "open", "id": "number"}

    def _reader(self, source: Source) -> CsvReader:
        return CsvReader(source, self.roles, separator=self.separator)

"""A file of JSON objects, one a line, as a stream: a line is an event, its keys are columns, and its position is its first byte.

An object without the target's key is a question; one with an id and a target alone is a label that comes late. A key that was not there
before is a column that appears, and an object within an object has dotted ones: ``door.width``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from mapsto.data.streams._jsonl_reader import JsonlReader
from mapsto.data.streams._sources import Source
from mapsto.data.streams._text_file import TextFile

__all__ = ["Jsonl"]


class Jsonl(TextFile):
    r"""The objects of a file, features as numbers where the first 100 lines hold nothing else, else as words.

    Truth values are numbers, 1 and 0; null and a missing key are missing values. An object within an object gives columns with
    dotted names, ``door.width``. Keys that hold lists are left out, which is said once. What is no object is set aside.

    Raises `DataError` for a file that is shortened, replaced or removed while it is followed, `SpecError` for a key that it has not.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "doors.jsonl"
    >>> _ = file.write_text('{"width": 0.8, "open": true}\n{"width": null, "colour": "red", "open": false}\n')
    >>> block = next(Jsonl(file=str(file), target="open").open())
    >>> block.x["width"].tolist(), block.x["colour"].tolist(), block.y.tolist()
    ([0.8, nan], ['', 'red'], ['true', 'false'])
    """

    version: ClassVar[int] = 2

    @staticmethod
    def contract_fields(folder: Path) -> dict[str, Any]:
        """A file with questions, late labels, gaps, a broken line and a key that appears after the first 100 lines."""
        import json

        file = folder / "doors.jsonl"
        events = [{"number": n, "width": n / 4 if n % 5 else None, "colour": f"red {n % 3}"} for n in range(40)]
        lines = [json.dumps({**event, "open": "yes"} if n % 2 else event) for n, event in enumerate(events)]
        lines[20] = '{"number": 20, "width":'
        lines += [json.dumps({"number": n, "open": "no"}) for n in range(0, 20, 2)]
        lines += [
            json.dumps({"number": n, "width": 1, **({"new": n} if n > 110 else {}), "open": "yes"})
            for n in range(40, 130)
        ]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {"file": str(file), "target": "open", "id": "number"}

    def _reader(self, source: Source) -> JsonlReader:
        return JsonlReader(source, self.roles)

"""What is given to ``mapsto stream`` as a stream: by the file's ending, and whether its target holds classes or values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from mapsto import discovery
from mapsto.errors import DataError, SpecError, nearest
from mapsto.kinds import Stream
from mapsto.recipe.nodes import data_from_node
from mapsto_runtime.shown import short

__all__ = ["another", "node_of_file", "size_of", "stream_of", "task_of", "times_in"]

_BY_ENDING = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".data": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_FOLDER = "folder"
_MOST_CLASSES = 20
"""Whole numbers of more different values than these are taken for values, as by ``mapsto adapt``."""
_HEAD = 1000


def node_of_file(file: str, form: str | None, fields: dict[str, Any]) -> dict[str, Any]:
    """The stream as in a recipe: ``{csv: {file: doors.csv, target: open}}``. Raises `DataError` or `SpecError` for what is none."""
    name = form or _form(file)
    known = discovery.entries("streams")
    if name not in known:
        raise SpecError(f"there is no stream '{name}'", where=file, hint=nearest(name, known))
    place = "folder" if name == _FOLDER else "file"
    return {name: {place: file, **{key: value for key, value in fields.items() if value not in (None, False, ())}}}


def stream_of(node: dict[str, Any]) -> Stream:
    """The stream of a node."""
    return cast("Stream", data_from_node(node))


def task_of(stream: Stream, say: Callable[[str], None]) -> str:
    """Whether the target holds classes or values, by its first labels. Says it where that leaves room for doubt."""
    import numpy as np

    block = next(iter(stream.open(size=_HEAD)), None)
    labels = [] if block is None else block.y[block.has_y].tolist()
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return "classes"
    numbers = [number for number in numbers if np.isfinite(number)]
    different = len(set(numbers))
    fraction = next((number for number in numbers if number != int(number)), None)
    if different <= 2:
        return "classes"
    name = short(str(getattr(stream, "target", "the target")))
    if fraction is not None:
        say(
            f"'{name}' holds fractions, such as {fraction:.15g}, so that values are learnt; for classes: --task classes"
        )
        return "values"
    if different > _MOST_CLASSES:
        say(f"'{name}' holds {different} different numbers, so that values are learnt; for classes: --task classes")
        return "values"
    say(f"'{name}' holds {different} different whole numbers, which are taken for classes; for values: --task values")
    return "classes"


def times_in(stream: Stream) -> list[str]:
    """The columns of words that hold times in each of the first events that have a value there."""
    from mapsto.data.streams._cells import seconds_of

    block = next(iter(stream.open(size=_HEAD)), None)
    found: list[str] = []
    for name, cells in {} if block is None else block.x.items():
        words = [cell for cell in cells.tolist() if cell != ""] if cells.dtype == object else []
        if words and all(isinstance(word, str) and seconds_of(word) is not None for word in words):
            found.append(name)
    return found


def size_of(file: str, *, follow: bool) -> int | None:
    """Bytes of a file whose end is known; None for what has none."""
    if file == "-" or follow or _BY_ENDING.get(Path(file).suffix.lower()) not in ("csv", "jsonl"):
        return None
    from mapsto.data.io.download import locate

    try:
        return locate(file, what="the stream").stat().st_size
    except (DataError, OSError):  # which whoever reads it will say
        return None


def another(file: str, form: str | None) -> str:
    """What stands in a hint for another stream of the same kind: ``FILE.csv``."""
    kind = form or _form(file)
    return "FOLDER" if kind == _FOLDER else f"FILE.{kind}"


def _form(file: str) -> str:
    """The stream that reads it."""
    if file == "-":
        return "csv"
    path = Path(file)
    if path.is_dir():
        return _FOLDER
    ending = path.suffix.lower()
    if ending in _BY_ENDING:
        return _BY_ENDING[ending]
    if not path.exists():
        raise DataError("there is no such file", where=file, hint="check the path")
    raise SpecError(
        f"what '{ending or path.name}' holds is not known",
        where=file,
        hint="name it: --format csv or --format jsonl",
    )

"""What is given to ``mapsto stream`` as a stream: by its address or the file's ending, and whether its target holds classes or values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from mapsto import discovery
from mapsto.errors import DataError, SpecError, nearest
from mapsto.kinds import Stream
from mapsto.recipe.nodes import data_from_node
from mapsto_runtime.shown import short

__all__ = ["another", "node_of_file", "own_target", "says_its_task", "size_of", "stream_of", "task_of", "times_in"]

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
_FOLDER, _MOVIELENS = "folder", "movielens"
_KAFKA, _FEEDBACK = "kafka://", "feedback:"
_LABEL = "label"
"""What is learnt of feedback."""
_BYTES = "bytes"
_OF_MOVIELENS = ("u.data", "ratings.dat", "ratings.csv")
_MOST_CLASSES = 20
"""Whole numbers of more different values than these are taken for values, as by ``mapsto adapt``."""
_HEAD = 1000


def node_of_file(file: str, form: str | None, fields: dict[str, Any]) -> dict[str, Any]:
    """The stream as in a recipe: ``{csv: {file: doors.csv, target: open}}``. Raises `DataError` or `SpecError` for what is none.

    ``kafka://HOST:PORT/TOPIC`` is topics of a broker, ``feedback:MODEL@STATE`` what a service was told.
    """
    given = {key: value for key, value in fields.items() if value not in (None, False, ())}
    if form is None and file.startswith(_KAFKA):
        return {"kafka": {**_of_kafka(file), **given}}
    if form is None and file.startswith(_FEEDBACK):
        return {"feedback": {**_of_feedback(file), **_without_columns(given, file)}}
    name = form or _form(file)
    known = discovery.entries("streams")
    if name not in known:
        raise SpecError(f"there is no stream '{name}'", where=file, hint=nearest(name, known))
    if name == _MOVIELENS:
        return {name: {"file": file, **_of_movielens(file, fields)}}
    place = {_FOLDER: "folder", _BYTES: "files"}.get(name, "file")
    return {name: {place: [file] if name == _BYTES else file, **given}}


def own_target(file: str) -> str | None:
    """What is learnt of a stream that says it itself; None of others."""
    return _LABEL if file.startswith(_FEEDBACK) else None


def says_its_task(node: Mapping[str, Any]) -> bool:
    """Whether what a stream of the node learns is known without a look at its events."""
    return _MOVIELENS in node


def _of_movielens(file: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The target, which is all that can be chosen of MovieLens' files. Raises `SpecError` for others."""
    for role in ("features", "id", "time", "follow"):
        if fields.get(role):
            raise SpecError(
                "MovieLens' files have columns of their own",
                where=f"{file}, --{role}",
                hint="leave it out, or name another --format",
            )
    target = fields.get("target")
    if target not in (None, "rating", "item"):
        raise SpecError("MovieLens' files have no such column", where=f"--target {target}", hint="name rating or item")
    return {} if target is None else {"target": target}


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


def size_of(file: str, form: str | None, *, follow: bool) -> int | None:
    """Bytes of a file whose end is known; None for what has none."""
    if (
        file == "-"
        or follow
        or file.startswith((_KAFKA, _FEEDBACK))
        or (form or _BY_ENDING.get(Path(file).suffix.lower())) not in ("csv", "jsonl", _BYTES)
    ):
        return None
    from mapsto.data.io.download import locate

    try:
        return locate(file, what="the stream").stat().st_size
    except (DataError, OSError):  # which whoever reads it will say
        return None


def _has_columns_of_movielens(file: str) -> bool:
    """Whether the first line holds a user, an item, a rating and a time, or the header of ``ratings.csv``."""
    from mapsto.data.io.download import locate

    try:
        with locate(file, what="the stream").open(encoding="utf-8", errors="replace") as lines:
            first = lines.readline(1000).strip()
    except (DataError, OSError):  # which whoever reads it will say
        return False
    cells = re.split(r"\t|::|,", first)
    return len(cells) == 4 and (first == "userId,movieId,rating,timestamp" or all(_is_number(cell) for cell in cells))


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", cell) is not None


def another(file: str, form: str | None) -> str:
    """What stands in a hint for another stream of the same kind: ``FILE.csv``."""
    if file.startswith((_KAFKA, _FEEDBACK)):
        return f"{_KAFKA}HOST:PORT/TOPIC" if file.startswith(_KAFKA) else f"{_FEEDBACK}MODEL@STATE"
    kind = form or _form(file)
    return {_FOLDER: "FOLDER", _BYTES: "FILE.txt", _MOVIELENS: "FILE.csv"}.get(kind, f"FILE.{kind}")


def _form(file: str) -> str:
    """The stream that reads it."""
    if file == "-":
        return "csv"
    path = Path(file)
    if path.is_dir():
        return _FOLDER
    ending = path.suffix.lower()
    if path.name in _OF_MOVIELENS and _has_columns_of_movielens(file):
        return _MOVIELENS
    if ending in _BY_ENDING:
        return _BY_ENDING[ending]
    if not path.exists():
        raise DataError("there is no such file", where=file, hint="check the path")
    raise SpecError(
        f"what '{ending or path.name}' holds is not known",
        where=file,
        hint="name it: --format csv or --format jsonl",
    )


def _of_kafka(address: str) -> dict[str, Any]:
    """The fields in ``kafka://HOST:PORT,HOST:PORT/TOPIC,TOPIC?security.protocol=ssl``."""
    parts = urlsplit(address)
    topics = [topic for topic in parts.path.strip("/").split(",") if topic]
    if not parts.netloc or not topics or "/" in parts.path.strip("/"):
        raise SpecError(
            "names no topic of a broker",
            where=short(address),
            hint="as in kafka://HOST:PORT/TOPIC; several with commas",
        )
    if "@" in parts.netloc:
        raise SpecError(
            "a name and a password do not belong into the address",
            where=short(parts.netloc.rpartition("@")[2]),
            hint="kafka://HOST:PORT/TOPIC?sasl.username=NAME&sasl.password=env:VARIABLE",
        )
    security = dict(parse_qsl(parts.query))
    return {"brokers": parts.netloc, "topics": topics, **({"security": security} if security else {})}


def _of_feedback(address: str) -> dict[str, Any]:
    """The fields in ``feedback:MODEL@STATE``."""
    model, sign, state = address.removeprefix(_FEEDBACK).partition("@")
    if not sign or not model or not state:
        raise SpecError(
            "names no model of a service", where=short(address), hint="as in feedback:MODEL@service/state.sqlite"
        )
    return {"model": model, "state": state}


def _without_columns(fields: dict[str, Any], file: str) -> dict[str, Any]:
    """The fields of a stream that knows its columns. Raises `SpecError` where one is named."""
    named = [name for name in ("target", "features", "id", "time") if fields.get(name, _LABEL) != _LABEL]
    if named or fields.get("task") == "values":
        raise SpecError(
            "feedback has classes as labels, and ids and times of its own",
            where=short(file),
            hint=f"leave out --{named[0] if named else 'task'}",
        )
    return {name: value for name, value in fields.items() if name == "follow"}

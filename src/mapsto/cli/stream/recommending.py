"""``mapsto stream FILE --from MODEL --top 10``: the items that are recommended to each user of a table."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mapsto.errors import DataError, SpecError, trouble

if TYPE_CHECKING:
    from mapsto.kinds import Model, Stream

__all__ = ["recommend"]

_COLUMNS = ("event", "user", "place", "item", "worth")


def recommend(model: Model, source: Stream, most: int, path: Path | None, *, as_json: bool) -> int:
    """Write the best items of each event's user, a line an item, or a line of JSON an event; gives how many events there were.

    Parameters
    ----------
    model
        Of a learner that recommends.
    source
        Its column of users is read, and nothing else.
    most
        Items for each.
    path
        The file, ``.csv`` or ``.jsonl``; None is standard output.
    as_json
        Lines of JSON on standard output.

    Raises
    ------
    SpecError
        The model recommends nothing, or the stream has no column of users.
    DataError
        The file cannot be written.
    """
    learner: Any = model.open()
    if not hasattr(learner, "recommended"):
        raise SpecError(f"{model.learner} recommends nothing", where="--top", hint="learn with online.recommend")
    is_json = as_json if path is None else path.suffix.lower() in (".jsonl", ".ndjson")
    if path is None:
        return _write(sys.stdout, _rows(learner, source, most), is_json=is_json)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            return _write(file, _rows(learner, source, most), is_json=is_json)
    except OSError as error:
        what, remedy = trouble(error)
        raise DataError(f"cannot write recommendations: {what}", where=str(path), hint=remedy) from error


def _rows(learner: Any, source: Stream, most: int) -> Iterator[tuple[int, str, list[tuple[str, float]]]]:
    from mapsto.nn.online.recommend.known import name_of

    column, count = learner.signature.columns[0].name, 0
    for block in source.open():
        if column not in block.x and block.has_x.any():
            raise SpecError(
                f"has no column '{column}', which held users when the model learnt",
                where="--top",
                hint=f"it has {', '.join(block.x)}",
            )
        for event, cell in enumerate(block.x[column].tolist() if column in block.x else ()):
            if block.has_x[event]:
                name = name_of(cell) or ""
                yield count + event + 1, name, learner.recommended(name, most)
        count += len(block)


def _write(file: IO[str], rows: Iterator[tuple[int, str, list[tuple[str, float]]]], *, is_json: bool) -> int:
    count = 0
    if not is_json:
        file.write(",".join(_COLUMNS) + "\n")
    for count, (event, user, best) in enumerate(rows, 1):  # noqa: B007 - told in the end
        if is_json:
            items = [{"item": item, "worth": worth} for item, worth in best]
            file.write(json.dumps({"event": event, "user": user, "items": items}, ensure_ascii=False) + "\n")
            continue
        text = io.StringIO()
        lines = [(event, user, place, item, worth) for place, (item, worth) in enumerate(best, 1)]
        csv.writer(text, lineterminator="\n").writerows(lines)
        file.write(text.getvalue())
    return count

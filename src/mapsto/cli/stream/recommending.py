"""``mapsto stream FILE --from MODEL --top 10``: the items that are recommended to each user of a table."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mapsto.cli.app import print_note
from mapsto.errors import DataError, SpecError, trouble
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from mapsto.kinds import Model, Stream

__all__ = ["recommend"]

_COLUMNS = ("event", "user", "place", "item")
"""Then come the figures by which items are recommended, the last of which orders them."""


@dataclass(frozen=True)
class _Best:
    """What is recommended to the user of an event."""

    event: int
    user: str
    known: bool
    items: list[tuple[str, tuple[float, ...]]]


@dataclass
class _Odd:
    """Events whose user gets something else than most, each kind once in words."""

    nameless: list[str] = field(default_factory=list[str])
    """Numbers of events."""
    unknown: dict[str, None] = field(default_factory=dict[str, None])
    finished: dict[str, None] = field(default_factory=dict[str, None])
    """Users to whom nothing is left to recommend."""

    def say(self) -> None:
        if self.nameless:
            print_note(f"nothing is recommended where the user is missing: event {few(self.nameless, 5)}")
        if self.unknown:
            print_note(f"unknown users get what most users like: {few([*map(short, self.unknown)], 5)}")
        if self.finished:
            print_note(
                f"nothing is left to recommend to users who have had every item: {few([*map(short, self.finished)], 5)}"
            )


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
    names: tuple[str, ...] = learner.recommended_by
    odd = _Odd()
    if path is None:
        count = _write(sys.stdout, names, _rows(learner, source, most, odd), is_json=is_json)
    else:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8", newline="") as file:
                count = _write(file, names, _rows(learner, source, most, odd), is_json=is_json)
        except OSError as error:
            what, remedy = trouble(error)
            raise DataError(f"cannot write recommendations: {what}", where=str(path), hint=remedy) from error
    odd.say()
    return count


def _rows(learner: Any, source: Stream, most: int, odd: _Odd) -> Iterator[_Best]:
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
            name = name_of(cell)
            if name is None:
                odd.nameless.append(str(count + event + 1))
                continue
            best = _Best(count + event + 1, name, learner.knows(name), learner.ranking(name, most))
            if not best.known:
                odd.unknown[name] = None
            elif not best.items:
                odd.finished[name] = None
            yield best
        count += len(block)


def _write(file: IO[str], names: tuple[str, ...], rows: Iterator[_Best], *, is_json: bool) -> int:
    count = 0
    if not is_json:
        file.write(",".join((*_COLUMNS, *names)) + "\n")
    for count, best in enumerate(rows, 1):  # noqa: B007 - told in the end
        if is_json:
            items = [{"item": item, **dict(zip(names, figures, strict=True))} for item, figures in best.items]
            line = {"event": best.event, "user": best.user, "known": best.known, "items": items}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            continue
        text = io.StringIO()
        lines = [(best.event, best.user, at, item, *figures) for at, (item, figures) in enumerate(best.items, 1)]
        csv.writer(text, lineterminator="\n").writerows(lines)
        file.write(text.getvalue())
    return count

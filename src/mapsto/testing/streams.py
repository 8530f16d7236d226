"""What every stream and every online learner promises, checked on each that is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mapsto import discovery
from mapsto.context import Context
from mapsto.kinds import Block, Json, Model, Stream
from mapsto.process import Process
from mapsto.recipe.nodes import from_plain
from mapsto.store.codec import blob_bytes, encode
from mapsto.store.digest import digest_bytes, digest_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["StreamCase", "check_learner", "stream_cases"]

SIZES = (1, 7, 64, 256)
"""Events of a block."""
_MANY = 10_000


@dataclasses.dataclass(frozen=True)
class StreamCase:
    """One stream under contract."""

    name: str

    def __str__(self) -> str:
        return self.name

    def check(self, folder: Path) -> None:
        """Every promise in turn; `folder` is for files. Raises `AssertionError` with what broke it."""
        cls = discovery.find("streams", self.name)
        given = getattr(cls, "contract_fields", None)
        check_stream(from_plain(cls, given(folder) if given is not None else getattr(cls, "contract", {})))


def stream_cases(prefix: str = "") -> list[StreamCase]:
    """Every stream found whose name starts with `prefix`."""
    return [StreamCase(name) for name in discovery.entries("streams") if name.startswith(prefix)]


def check_stream(stream: Stream) -> None:
    """Two reads agree, whatever the size of blocks; opened at any block's `next`, it goes on; its columns are of the types it says."""
    whole = list(_events(stream, None, 256))
    _require(bool(whole), "it has no events")
    ends: list[Json] = []
    for size in SIZES:
        _require(list(_events(stream, None, size)) == whole, f"read in blocks of {size}, it gives other events")
        ends.append([block.next for block in stream.open(size=size)][-1])
    _require(all(end == ends[0] for end in ends), f"its last position depends on the size of blocks: {ends}")
    read = 0
    for block in stream.open(size=7):
        _require(len(block) <= 7, f"a block has {len(block)} events where 7 were asked for")
        read += len(block)
        if read % 3 == 0:
            _require(
                list(_events(stream, block.next, 64)) == whole[read:], f"opened after event {read}, it gives others"
            )
    first = next(stream.open())
    for name, kind in stream.columns().items():
        of_words = first.x[name].dtype.kind in "OUS"
        _require(of_words == (kind == "word"), f"column '{name}' is said to hold {kind}s")
    if stream.bounded:
        _require(stream.fingerprint() == stream.fingerprint(), "its fingerprint changes")


def check_learner(made: Process[Any, Model], value: Any, seed: int) -> None:
    """Blocks of any size give the same scores and the same model to the bit; `predict` changes nothing; the state is bounded."""
    stream = cast("Stream", made.items(value, Context(seed=seed)))
    learnt = [_learnt(made, value, stream, size, seed) for size in SIZES]
    _require(all(each == learnt[0] for each in learnt), f"blocks of {SIZES} do not agree to the bit")
    model = _advanced(made, value, stream, 64, seed)
    block = next(stream.open(size=64))
    one, other = model.open(), model.open()
    one.predict(block)
    _require(one.learn(block).tobytes() == other.learn(block).tobytes(), "a prediction changed what it learns")
    sizes = list(_sizes(made, value, seed))
    # trees of a window of events differ in size; what grows with the events doubles
    _require(sizes[-1] <= 1.25 * sizes[0] + 1024, f"its state grows with the events: {sizes} bytes")


def _learnt(made: Process[Any, Model], value: Any, stream: Stream, size: int, seed: int) -> tuple[str, list[bytes]]:
    """The digest of the model after blocks of a size, and the scores of every event."""
    learner = made.open(value, None, Context(seed=seed)).result().open()
    rows = [row.tobytes() for block in stream.open(size=size) for row in _trimmed(learner.learn(block))]
    return model_digest(_advanced(made, value, stream, size, seed)), rows


def _advanced(made: Process[Any, Model], value: Any, stream: Stream, size: int, seed: int) -> Model:
    live = made.open(value, None, Context(seed=seed))
    for block in stream.open(size=size):
        live.advance(block)
    return live.result()


def model_digest(model: Model) -> str:
    """The digest that a model has in any store."""
    return digest_json(encode(model, lambda blob: digest_bytes(blob_bytes(blob))))


def _sizes(made: Process[Any, Model], value: Any, seed: int) -> Iterator[int]:
    """Bytes of the model after half of many events, and after all."""
    given = getattr(made, "contract_stream", None)  # of a learner to which a table says nothing
    stream = given(_MANY) if given is not None else discovery.find("streams", "sea")(events=_MANY)
    longer = dataclasses.replace(cast("Any", made), stream=stream)
    live, seen, wanted = longer.open(value, None, Context(seed=seed)), 0, [_MANY // 2, _MANY]
    for block in stream.open(size=250):
        live.advance(block)
        seen += len(block)
        if wanted and seen >= wanted[0]:
            wanted.pop(0)
            yield _bytes(live.result())
    if wanted:
        yield _bytes(live.result())


def _bytes(model: Model) -> int:
    return sum(array.nbytes for array in model.arrays.values())


def _trimmed(scores: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Each event's scores without the zeros at their end: of classes that only later events of its block brought.

    None for an event that was set aside, whose NaN are as many as the classes that its block knows.
    """
    import numpy as np

    for row in scores:
        length = 0 if np.isnan(row[:1]).any() else len(row)
        while length and row[length - 1] == 0:
            length -= 1
        yield row[:length]


def _events(stream: Stream, position: Json, size: int) -> Iterator[tuple[Any, ...]]:
    known = stream.columns()
    for block in stream.open(position, size=size):
        yield from _rows(block, known)


def _rows(block: Block, known: Collection[str]) -> Iterator[tuple[Any, ...]]:
    """Each event as it can be compared. A missing value in a column that the stream has not said is as no such column."""
    cells = [
        [
            None if name not in known and _is_missing(value) else (name, kind, repr(value))
            for value in (column.tolist() if column.ndim == 1 else column)
        ]
        for name, column in block.x.items()
        for kind in [column.dtype.name]
    ]
    for event in range(len(block)):
        x = tuple(cell for column in cells if (cell := column[event]) is not None) if block.has_x[event] else ()
        y = str(block.y[event]) if block.has_y[event] else None
        yield repr(block.times[event]), str(block.ids[event]), x, y, block.broken.get(event)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value == "") or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN


def _require(kept: bool, message: str) -> None:
    if not kept:
        raise AssertionError(message)

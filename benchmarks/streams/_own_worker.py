"""A learner of mapsto over one stream, as `_peer_worker.py` runs the others.

python _own_worker.py online.tabular '{"preset": "fast"}' 256 0=STREAM.npz 1=STREAM.npz
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapsto import discovery
from mapsto.kinds import Block, ColumnType, Json, Stream


class Nothing(Stream):
    """A stream that ends before its first event: its model is a learner at its beginning."""

    def identity(self) -> str:
        return "nothing"

    def fingerprint(self) -> str:
        return "nothing"

    def columns(self) -> Mapping[str, ColumnType]:
        return {}

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        return iter(())


def blocks(x: NDArray[np.float64], y: NDArray[np.int64], size: int) -> list[Block]:
    """The events of two arrays."""
    labels = np.array([f"class {number}" for number in y.tolist()], dtype=object)
    found: list[Block] = []
    for start in range(0, len(y), size):
        part = slice(start, start + size)
        count = len(y[part])
        found.append(
            Block(
                times=np.arange(start, start + count, dtype=np.float64),
                ids=np.full(count, "", dtype=object),
                x={f"x{column}": np.ascontiguousarray(x[part, column]) for column in range(x.shape[1])},
                has_x=np.ones(count, np.bool_),
                y=labels[part],
                has_y=np.ones(count, np.bool_),
                next=start + count,
            )
        )
    return found


def main() -> None:
    name, fields, size, *files = sys.argv[1:]
    mapping: Any = discovery.find("mappings", name)
    for seed, _, file in (each.partition("=") for each in files):
        with np.load(file) as held:
            x, y = held["x"], held["y"]
        given = blocks(x, y, int(size))
        own = {"seed": int(seed)} if "seed" in mapping.__pydantic_fields__ else {}
        learner = mapping(stream=Nothing(), **json.loads(fields), **own)(None).open()
        gc.collect()
        began = time.thread_time(), time.process_time(), time.perf_counter()
        scores = [learner.learn(block) for block in given]
        thread, process, wall = (
            end - start
            for start, end in zip(began, (time.thread_time(), time.process_time(), time.perf_counter()), strict=True)
        )
        found = {"accuracy": 100 * right(scores, y) / len(y), "thread_s": thread, "process_s": process, "wall_s": wall}
        print("FOUND " + json.dumps({"seed": int(seed), "events": len(y), **found}), flush=True)


def right(scores: list[NDArray[np.float64]], y: NDArray[np.int64]) -> int:
    """Answers that were right; the first event of a class cannot be, since scores are then 0 for it."""
    at = count = 0
    for block in scores:
        labels = y[at : at + len(block)]
        answered = block.any(axis=1)
        count += int((answered & (block.argmax(axis=1) == labels)).sum())
        at += len(block)
    return count


if __name__ == "__main__":
    main()

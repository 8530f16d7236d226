"""What a stream costs: the executor's share of a block, events a second, opening a file in the middle, memory.

mapsto bench streams
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common

from mapsto import online, streams
from mapsto.context import Context
from mapsto.kinds import Block, ColumnType, Json, Model, Stream
from mapsto.mapping import StreamSource
from mapsto.process import Live, Process, Rows, State
from mapsto.run.executor import execute

MEMORY = """
import json, resource, sys, tempfile
from mapsto import online, streams
from mapsto.run.executor import execute
with tempfile.TemporaryDirectory() as folder:
    execute(online.softmax(stream=streams.sea(events=int(sys.argv[1]))), store=folder)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
"""


class Ready(Stream):
    """One block again and again, made beforehand."""

    blocks: int
    """How many."""

    def identity(self) -> str:
        return f"ready {self.blocks}"

    def fingerprint(self) -> str:
        return self.identity()

    def columns(self) -> Mapping[str, ColumnType]:
        return {}

    def open(self, position: Json = None, *, size: int = 256) -> Any:
        block = next(streams.sea(events=size).open(size=size))
        return iter([block] * self.blocks)


class Idle(Process[None, Model]):
    """Takes blocks and learns nothing."""

    stream: StreamSource
    """Which."""

    def items(self, value: None, ctx: Context) -> Stream:
        return ctx.resolve(self.stream, Stream)

    def open(self, value: None, state: State | None, ctx: Context) -> Live[Model]:
        return _Idling(self.stream)


class _Idling(Live[Model]):
    def __init__(self, stream: Any) -> None:
        self.step, self.total, self.done = 0, None, False
        self.model = online.softmax(stream=streams.sea(events=1))(None)

    def advance(self, item: Block) -> Rows:
        self.step += len(item)
        return ()

    def snapshot(self) -> State:
        return {"step": self.step}

    def result(self) -> Model:
        return self.model


def main(quick: bool = False) -> dict[str, Any]:
    rounds, events, most = (3, 2000, 10_000) if quick else (5, 50_000, 1_000_000)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        blocks = 2000 if quick else 50_000
        times = []
        for turn in range(rounds):
            run = execute(Idle(stream=Ready(blocks=blocks + turn)), store=place / "idle", block_size=1)
            times.append(run.steps[0].seconds / blocks * 1e6)
        rows.append({"what": "the executor's share of a block", "us": statistics.median(times)} | _range(times))

        for title, size in (("in blocks of 256", 256), ("one at a time", 1)):
            times = []
            for turn in range(rounds):
                learn = online.softmax(stream=streams.sea(events=events, seed=turn))
                began = time.process_time()  # on a busy machine wall time would say how busy it is
                execute(learn, store=place / f"sea {size}", block_size=size)
                times.append(events / (time.process_time() - began))
            what = f"online.softmax, 3 numbers, {title}"
            rows.append({"what": what, "events a CPU second": statistics.median(times)} | _range(times))

        file = place / "rows.csv"
        file.write_text("a,b,c,y\n" + "".join(f"{n / 7},{n % 11},word{n % 5},{n % 3}\n" for n in range(100_000)))
        stream = streams.csv(file=str(file), target="y")
        position = None
        for seen, block in enumerate(stream.open(size=1000), 1):
            position = block.next
            if seen == 90:
                break
        for title, at in (("at its beginning", None), ("at event 90,000", position)):
            times = []
            for _ in range(rounds * 4):
                began = time.perf_counter()
                next(streams.csv(file=str(file), target="y").open(at, size=1))
                times.append((time.perf_counter() - began) * 1e3)
            rows.append({"what": f"a CSV opened {title}", "ms": statistics.median(times)} | _range(times))

    memory = {count: _memory(count) for count in (most // 100, most // 10, most)}
    rows += [{"what": f"memory after {count:,} events", "MiB": size} for count, size in memory.items()]
    found = {row["what"]: row for row in rows}
    tree = common.result(
        "streams",
        conditions={"rounds": rounds, "events": events, "quick": quick},
        rows=rows,
        targets=[
            common.target("microseconds of the executor a block", "<= 15", rows[0]["us"]),
            common.target("events a CPU second in blocks", ">= 15000", rows[1]["events a CPU second"]),
            common.target("events a CPU second one at a time", ">= 8000", rows[2]["events a CPU second"]),
            common.target("ms to open a CSV at event 90,000", "<= 1.5", found["a CSV opened at event 90,000"]["ms"]),
            common.target(
                f"MiB more after {most:,} events than after a hundredth", "<= 10", memory[most] - memory[most // 100]
            ),
        ],
    )
    common.show(rows)
    if not quick:
        common.save(tree)
    return tree


def _range(values: list[float]) -> dict[str, float]:
    return {"low": min(values), "high": max(values)}


def _memory(events: int) -> float:
    """The most memory that a process had which learnt from so many events, in MiB."""
    done = subprocess.run([sys.executable, "-c", MEMORY, str(events)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main("--quick" in sys.argv)

"""`online.react` on streams whose concepts alternate: the first 100 events after a return, with and without recall.

mapsto bench recurring

Concepts are functions of Agrawal's generator, or thresholds of SEA's, each with its own seed, in turn, 1,000 or 2,000 events at a time; the
first turn of each concept is no return. Both sides are `online.react` as it comes, on the same learner: all of its reactions, and the same
without ``recall``; beside them the learner alone. Trials are kept in ``benchmarks/results/trials/recurring.json``.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import common
import numpy as np

from mapsto import discovery, streams
from mapsto.context import Context
from mapsto.kinds import Stream
from mapsto.report.build import t95

SEEDS = range(5)
FIRST = 100
"""Events after a return that count."""
TURNS = 4
"""Of each concept."""
STREAMS: Mapping[str, tuple[tuple[int, ...], int]] = {
    "Agrawal 1, 5": ((1, 5), 1000),
    "Agrawal 1, 2, 3": ((1, 2, 3), 1000),
    "Agrawal 4, 7, 9": ((4, 7, 9), 2000),
    "SEA 4, 14": ((4, 14), 1000),
}
"""Functions of Agrawal's generator, or thresholds of SEA's, and the events of a turn."""
LEARNERS: Mapping[str, Any] = {
    "tabular, fast": {"tabular": {"preset": "fast"}},
    "tabular": "tabular",
    "mlp": "mlp",
}
SIDES: Mapping[str, tuple[str, ...]] = {
    "with recall": ("warn", "challenge", "recall"),
    "without recall": ("warn", "challenge"),
    "alone": ("warn",),
}


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    file = common.RESULTS / "trials" / "recurring.json"
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() and not quick else {}
    react = discovery.find("mappings", "online.react")
    for seed in seeds or (SEEDS[:1] if quick else SEEDS):
        for name in list(STREAMS)[:1] if quick else STREAMS:
            for learner in list(LEARNERS)[:1] if quick else LEARNERS:
                for side in SIDES:
                    key = f"{name} | {learner} | {side} | {seed} | {react.version}"
                    if key in kept or only not in key:
                        continue
                    kept[key] = measured(name, LEARNERS[learner], SIDES[side], seed, 300 if quick else None)
                    print(key, kept[key], flush=True)
                    if not quick:
                        file.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")
    rows = [
        row_of(name, learner, side, kept, react.version) for name in STREAMS for learner in LEARNERS for side in SIDES
    ]
    gains = [gain for name in STREAMS for learner in LEARNERS if (gain := gain_of(rows, name, learner)) is not None]
    tree = common.result(
        "recurring",
        conditions={
            "turns of a concept": TURNS,
            "events that count after a return": FIRST,
            "settings": "those of online.react as it comes",
            "seeds": len(SEEDS),
            "quick": quick,
        },
        rows=rows,
        targets=[
            common.target(
                "points more in the first 100 events after a return, mean over streams and learners",
                ">= 5",
                statistics.mean(gains) if gains else None,
            ),
            common.target("the same, the worst stream and learner", ">= 5", min(gains, default=None)),
        ],
    )
    return common.finished(tree, quick=quick)


def stream_of(name: str, seed: int, period: int | None) -> tuple[Stream, int, int]:
    """The stream, its events of a turn, and how many concepts there are."""
    concepts, turn = STREAMS[name]
    turn = period or turn
    count = turn * TURNS
    if name.startswith("SEA"):
        parts = [
            streams.sea(thresholds=(float(each),), events=count, seed=10 * seed + at)
            for at, each in enumerate(concepts)
        ]
    else:
        parts = [
            streams.agrawal(functions=(each,), events=count, seed=10 * seed + at) for at, each in enumerate(concepts)
        ]
    return streams.drift(streams=tuple(parts), period=turn), turn, len(concepts)


def measured(name: str, learner: Any, reactions: Sequence[str], seed: int, period: int | None) -> dict[str, float]:
    stream, turn, concepts = stream_of(name, seed, period)
    mapping: Any = discovery.find("mappings", "online.react")
    live = mapping(stream=stream, learner=learner, reactions=reactions).open(None, None, Context(seed=seed))
    model = live.result().open()
    right: list[bool] = []
    began = time.thread_time()
    for block in stream.open(size=256):
        scores = model.learn(block)
        names = model.signature.classes
        best = [names[at] if row.max() > 0 else "" for at, row in zip(scores.argmax(1), scores, strict=True)]
        right += [answer == label for answer, label in zip(best, block.y.tolist(), strict=True)]
    spent = time.thread_time() - began
    after = [np.mean(right[at : at + FIRST]) for at in range(concepts * turn, len(right), turn)]
    return {
        "first": 100 * float(np.mean(after)),
        "accuracy": 100 * float(np.mean(right)),
        "us": 1e6 * spent / len(right),
    }


def row_of(name: str, learner: str, side: str, kept: Mapping[str, Any], version: int) -> dict[str, Any]:
    found = [each for seed in SEEDS if (each := kept.get(f"{name} | {learner} | {side} | {seed} | {version}"))]
    row: dict[str, Any] = {"concepts": name, "member": learner, "side": side}
    if not found:
        return {**row, "first 100 after a return": "not run"}
    first = [each["first"] for each in found]
    return {
        **row,
        "first 100 after a return": statistics.mean(first),
        "ci95 over seeds": t95(first),
        "accuracy of all": statistics.mean(each["accuracy"] for each in found),
        "CPU µs an event": statistics.median(each["us"] for each in found),
        "seeds": len(found),
    }


def gain_of(rows: Sequence[Mapping[str, Any]], name: str, learner: str) -> float | None:
    found = {
        row["side"]: row["first 100 after a return"]
        for row in rows
        if (row["concepts"], row["member"]) == (name, learner)
    }
    ours, others = found["with recall"], [found["without recall"], found["alone"]]
    if isinstance(ours, str) or any(isinstance(each, str) for each in others):
        return None
    return float(ours) - max(float(each) for each in others)

"""`online.select` beside each of its members alone, over the streams of `stream_tabular`: accuracy, and CPU time of one core.

mapsto bench selection
mapsto bench selection --only Bananas --seeds 0

Members and mixtures are those of `online.select` as it comes; with half of the cost of all members, and with one member an event, by
Thompson sampling and by LinUCB. All sides are given the same numbers in blocks of 256, answer each event before they learn it, and are
counted from the first event on. Each trial is kept in ``benchmarks/results/trials/selection.json``, and the same command goes on there, the
short streams first, until all have taken `BUDGET` CPU seconds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import common
from _environments import NotRunError
from _own_worker import Nothing, blocks, right
from _tables import GENERATED, SMALL, STREAMS, table

from mapsto import discovery
from mapsto.report.build import t95

BUDGET = 60 * 60
"""CPU seconds of all trials."""
SEEDS = range(3)
BLOCK = 256
MEMBERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "softmax": ("online.softmax", {}),
    "prototypes": ("online.prototypes", {}),
    "mlp": ("online.mlp", {}),
    "tabular, fast": ("online.tabular", {"preset": "fast"}),
    "tabular": ("online.tabular", {}),
}
OURS, HALF = "select, all members", "select, half of the cost"
SIDES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    OURS: ("online.select", {}),
    HALF: ("online.select", {"share": 0.5}),
    "select, Thompson sampling": ("online.select", {"how": "thompson"}),
    "select, LinUCB": ("online.select", {"how": "linucb"}),
    **MEMBERS,
}
UNSEEDED = ("softmax", "prototypes")
Trials = dict[str, dict[str, dict[str, dict[str, Any]]]]


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    file = common.RESULTS / "trials" / "selection.json"
    trials: Trials = json.loads(file.read_text(encoding="utf-8")) if file.is_file() and not quick else {}
    not_run: dict[str, str] = {}
    streams = ["SEA"] if quick else STREAMS
    for stream, side, seed in [("SEA", side, 0) for side in SIDES] if quick else plan(seeds):
        spent = sum(
            each["thread_s"] for sides in trials.values() for found in sides.values() for each in found.values()
        )
        kept = trials.setdefault(stream, {}).setdefault(side, {})
        version = version_of(side)
        done = str(seed) in kept and kept[str(seed)]["version"] == version
        if done or only not in f"{stream}: {side}" or (spent > BUDGET and not only and not seeds):
            continue
        try:
            x, y = table(stream, seed if stream in GENERATED else 0, 300 if quick else None)
        except NotRunError as error:
            not_run[stream] = str(error)
            continue
        kept[str(seed)] = {"version": version, "events": len(y), **measured(side, x, y, seed)}
        print(stream, side, seed, kept[str(seed)], flush=True)
        if not quick:
            file.write_text(json.dumps(trials, indent=0) + "\n", encoding="utf-8")
    tree = common.result(
        "selection",
        conditions={
            "streams": {
                name: next(iter(trials.get(name, {}).values()), {}).get("0", {}).get("events") for name in streams
            },
            "members": {name: dict(fields) for name, (_, fields) in MEMBERS.items()},
            "block": BLOCK,
            "settings": "those of online.select as it comes",
            "not run": not_run,
            "quick": quick,
        },
        rows=[row for stream in streams for row in rows_of(stream, trials.get(stream, {}))],
        targets=goals(streams, trials),
    )
    return common.finished(tree, quick=quick)


def plan(seeds: Sequence[int]) -> Iterator[tuple[str, str, int]]:
    """Streams, sides and seeds, what matters most first."""
    long = [stream for stream in STREAMS if stream not in SMALL]
    for streams, wanted in ((SMALL, SEEDS[:1]), (long, SEEDS[:1]), (SMALL, SEEDS[1:]), (tuple(GENERATED), SEEDS[1:])):
        for stream in streams:
            for side in SIDES:
                for seed in wanted:
                    varied = side not in UNSEEDED or stream in GENERATED
                    if (varied or seed == 0) and (not seeds or seed in seeds):
                        yield stream, side, seed


def version_of(side: str) -> str:
    """By which a trial of before is known: the versions of the mapping and, of a selection, of its members."""
    name, _ = SIDES[side]
    names = [name, *(each for each, _ in MEMBERS.values())] if name == "online.select" else [name]
    return " ".join(f"{each} {discovery.find('mappings', each).version}" for each in dict.fromkeys(names))


def measured(side: str, x: Any, y: Any, seed: int) -> dict[str, float]:
    name, fields = SIDES[side]
    mapping: Any = discovery.find("mappings", name)
    given = blocks(x, y, BLOCK)
    own: dict[str, Any] = {"seed": seed} if "seed" in mapping.__pydantic_fields__ else {}
    if name == "online.select":
        own["members"] = [
            {each.removeprefix("online."): {**of, **_seeded(each, seed)}} for each, of in MEMBERS.values()
        ]
    learner = mapping(stream=Nothing(), **fields, **own)(None).open()
    began = time.thread_time()
    scores = [learner.learn(block) for block in given]
    spent = time.thread_time() - began
    return {"accuracy": 100 * right(scores, y) / len(y), "thread_s": spent}


def _seeded(name: str, seed: int) -> dict[str, int]:
    fields: Any = discovery.find("mappings", name)
    return {"seed": seed} if "seed" in fields.__pydantic_fields__ else {}


def rows_of(stream: str, sides: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    best = best_member(sides)
    for side in SIDES:
        found = list(sides.get(side, {}).values())
        if not found:
            rows.append({"stream": stream, "learner": side, "accuracy": "not run", "seeds": 0})
            continue
        accuracies = [each["accuracy"] for each in found]
        rows.append(
            {
                "stream": stream,
                "learner": side,
                "accuracy": statistics.mean(accuracies),
                "ci95 over seeds": t95(accuracies),
                "points above the best member": None if best is None else statistics.mean(accuracies) - best,
                "events a CPU second": statistics.median(each["events"] / each["thread_s"] for each in found),
                "seeds": len(found),
            }
        )
    return rows


def mean_of(sides: Mapping[str, Mapping[str, Mapping[str, Any]]], side: str) -> float | None:
    found = list(sides.get(side, {}).values())
    return statistics.mean(each["accuracy"] for each in found) if found else None


def best_member(sides: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> float | None:
    found = [mean for side in MEMBERS if (mean := mean_of(sides, side)) is not None]
    return max(found) if len(found) == len(MEMBERS) else None


def goals(streams: Sequence[str], trials: Trials) -> list[dict[str, Any]]:
    """The worst of the streams decides."""
    behind: list[tuple[float, str]] = []
    lost: list[tuple[float, str]] = []
    costs: list[float] = []
    for stream in streams:
        sides = trials.get(stream, {})
        ours, half, best = mean_of(sides, OURS), mean_of(sides, HALF), best_member(sides)
        if ours is not None and best is not None:
            behind.append((best - ours, stream))
        if ours is not None and half is not None:
            lost.append((ours - half, stream))
            costs.append(seconds(sides, HALF) / seconds(sides, OURS))
    worst, most = max(behind, default=(None, "")), max(lost, default=(None, ""))
    return [
        common.target(f"points behind its best member, at most ({worst[1]})", "<= 0.5", worst[0]),
        common.target(f"points lost with half of the cost, at most ({most[1]})", "<= 0.3", most[0]),
        common.target(
            "CPU time with half of the cost, of all members, median over streams",
            "<= 0.5",
            statistics.median(costs) if costs else None,
        ),
    ]


def seconds(sides: Mapping[str, Mapping[str, Mapping[str, Any]]], side: str) -> float:
    return statistics.median(each["thread_s"] for each in sides[side].values())

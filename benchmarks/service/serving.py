"""What a request for inference costs the server: CPU time of its processes, beside five other ways to serve the same ONNX model.

mapsto bench serving
mapsto bench serving --only MLServer

An int8 network for 784 numbers answers over loopback. All servers run from the first to the last round, one worker each, and are loaded in
turn by a client in a process of its own, so that whatever else runs slows all alike; a ratio is the median over rounds. mapsto runs as
`mapsto serve` starts it: keys, metrics, batches, answers kept for their labels, a writer and a learner, whose CPU time all counts. The
others check no key. Peers are installed at the first use, each into an environment of its own; one that cannot be is not run.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import _environments
import _models
import _sides
import common
import numpy as np

PEERS = {
    "pure ASGI + msgspec": ">= 0.7",
    "FastAPI + pydantic": ">= 1.3",
    "MLServer": ">= 3",
    "LitServe": ">= 5",
    "BentoML": ">= 8",
}
"""Each with how many times mapsto's CPU time a request it should need."""
INSTALLED = ("MLServer", "LitServe", "BentoML")
OURS = "mapsto"
CONNECTIONS = 16
BESIDE = (1, 64, 256)
RATES = (200.0, 1000.0)
SHARE = 0.7
"""Of the capacity: the rate at which latency is called normal."""
MOST_WAIT = 0.01
"""Seconds that a request may be expected to wait, for the overload."""


def main(quick: bool = False, only: str = "") -> dict[str, Any]:
    rounds, seconds = (2, 0.4) if quick else (5, 1.5)
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as running:
        folder = Path(temporary)
        package = _models.student(folder / "student")
        sides, not_run = started(running, package, folder, quick=quick, only=only)
        bodies = [body(number) for number in range(8)]
        requests = {name: [side.request(each) for each in bodies] for name, side in sides.items()}

        def loaded(name: str, connections: int, rate: float | None = None) -> Callable[[], dict[str, Any]]:
            return lambda: _sides.load(sides[name], requests[name], connections=connections, seconds=seconds, rate=rate)

        found = in_turn({name: loaded(name, CONNECTIONS) for name in sides}, rounds)
        rows += [row_of(name, f"JSON, {CONNECTIONS} connections", found[name], found[OURS]) for name in found]
        not_run |= {name: "it answered something else than 200" for name in sides if name not in found}
        rows += [{"side": name, "load": "", "CPU ms a request": f"not run: {why}"} for name, why in not_run.items()]
        for name, goal in PEERS.items():
            times = ratio(found[name], found[OURS])["ratio"] if name in found else None
            targets.append(common.target(f"CPU time a request of {name}, times mapsto's", goal, times))
        for connections in BESIDE:
            both = [name for name in (OURS, "pure ASGI + msgspec") if name in sides]
            more = in_turn({name: loaded(name, connections) for name in both}, max(2, rounds // 2))
            rows += [row_of(name, f"JSON, {connections} connections", more[name], more[OURS]) for name in more]
        for rate in RATES:
            more = in_turn({name: loaded(name, 64, rate) for name in both}, max(2, rounds // 2))
            rows += [row_of(name, f"JSON, {rate:.0f} requests a second", more[name], more[OURS]) for name in more]
        binary = [binary_request(sides[OURS], number) for number in range(8)]
        two = in_turn(
            {
                OURS: loaded(OURS, CONNECTIONS),
                "binary": lambda: _sides.load(sides[OURS], binary, connections=CONNECTIONS, seconds=seconds),
            },
            max(2, rounds // 2),
        )
        rows.append(row_of(OURS, f"binary, {CONNECTIONS} connections", two["binary"], two[OURS]))
    over, judged = overloaded(2.0 * seconds, quick=quick)
    tree = common.result(
        "serving",
        conditions={
            "rounds": rounds,
            "seconds a round": seconds,
            "network": "int8, 20 thousand weights, 784 numbers as JSON",
            "workers": 1,
            "mapsto": "keys, metrics, batches, kept answers, a writer and a learner",
            "peers": {name: _environments.PINS[name.lower()][0] for name in INSTALLED},
            "overload": f"mapsto alone, --most-wait {MOST_WAIT}; normal is {SHARE:.0%} of the capacity, which is measured without that",
            "quick": quick,
        },
        rows=[*rows, *over],
        targets=[*targets, *judged],
    )
    return common.finished(tree, quick=quick)


def started(
    running: contextlib.ExitStack, package: Path, folder: Path, *, quick: bool, only: str
) -> tuple[dict[str, _sides.Side], dict[str, str]]:
    """The servers that run, and why the others do not."""
    sides = {OURS: running.enter_context(_sides.mapsto(package, folder / "mapsto"))}
    not_run: dict[str, str] = {}
    for name in PEERS:
        if only not in name:
            continue
        if quick and name in INSTALLED and not only:
            not_run[name] = "small settings"
            continue
        try:
            side = running.enter_context(_sides.peer(name, package / "model.onnx", folder / name.partition(" ")[0]))
            warm(side)
        except _environments.NotRunError as error:
            not_run[name] = str(error)
            continue
        sides[name] = side
    return sides, not_run


def warm(side: _sides.Side) -> None:
    """Until it answers. Raises `NotRunError`."""
    for _ in range(20):
        try:
            found = _sides.load(side, [side.request(body(0))], connections=1, seconds=0.5)
        except RuntimeError:
            continue
        if found["answered"] > 1:
            return
    raise _environments.NotRunError(f"{side.name} does not answer with 200")


def body(number: int) -> bytes:
    """A request of the protocol: 784 numbers of four digits."""
    data = numbers(number).tolist()
    item = {"name": "input", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": [round(each, 4) for each in data]}
    return json.dumps({"inputs": [item]}, separators=(",", ":")).encode()


def binary_request(side: _sides.Side, number: int) -> bytes:
    """The same with the binary extension, the answer too."""
    content = numbers(number).tobytes()
    item = {"name": "input", "shape": [1, 1, 28, 28], "datatype": "FP32"}
    item["parameters"] = {"binary_data_size": len(content)}
    text = json.dumps({"inputs": [item], "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    return side.request(text + content, headers=[f"inference-header-content-length: {len(text)}"])


def numbers(number: int) -> Any:
    return np.random.default_rng(number).random(784, np.float32)


def in_turn(sides: dict[str, Callable[[], dict[str, Any]]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What each measures, round by round, after a first one that does not count; without a peer that answered something else than 200."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in list(found):
            measured = sides[name]()
            if set(measured["statuses"]) != {"200"}:
                print(f"{name} answered {measured['statuses']}", flush=True)
                if name == OURS:
                    raise RuntimeError(f"mapsto answered {measured['statuses']}")
                del found[name]
            elif number:
                found[name].append(measured)
        said = (f"{name} {each[-1]['CPU ms']:.3f}" for name, each in found.items() if each)
        print(f"round {number} of {rounds}: {', '.join(said)}", flush=True)
    return found


def ratio(side: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]) -> dict[str, float]:
    return common.ratio([each["CPU ms"] for each in side], [each["CPU ms"] for each in base])


def row_of(name: str, load: str, found: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]]) -> dict[str, Any]:
    times = ratio(found, ours)
    return {
        "side": name,
        "load": load,
        "CPU ms a request": statistics.median(each["CPU ms"] for each in found),
        "times mapsto's": times["ratio"],
        "low": times["low"],
        "high": times["high"],
        "requests a second": statistics.median(each["answered"] / each["seconds"] for each in found),
        "p50 ms": statistics.median(each["p50 ms"] for each in found),
        "p99 ms": statistics.median(each["p99 ms"] for each in found),
        "rounds": len(found),
    }


def overloaded(seconds: float, *, quick: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Twice as many requests as can be answered: rows and goals."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        package = _models.student(folder / "student")
        with (
            _sides.mapsto(package, folder / "patient") as patient,
            _sides.mapsto(package, folder / "mapsto", "--most-wait", MOST_WAIT) as side,
        ):

            def at(side: _sides.Side, rate: float | None, connections: int) -> dict[str, Any]:
                requests = [side.request(body(number)) for number in range(8)]
                return _sides.load(side, requests, connections=connections, seconds=seconds, rate=rate)

            for each in (patient, side):
                at(each, None, 32)
            tries: list[tuple[dict[str, Any], dict[str, Any], float]] = []
            for _ in range(1 if quick else 3):
                full = at(patient, None, 32)
                capacity = full["answered"] / full["seconds"]
                tries.append((at(side, SHARE * capacity, 256), at(side, 2 * capacity, 256), capacity))
    for what, number in ((f"{SHARE:.0%} of the capacity", 0), ("twice the capacity", 1)):
        chosen = [each[number] for each in tries if isinstance(each[number], dict)]
        rows.append(
            {
                "side": OURS,
                "load": what,
                "CPU ms a request": statistics.median(each["CPU ms"] for each in chosen),
                "requests a second": statistics.median(each["answered"] / each["seconds"] for each in chosen),
                "refused": statistics.median(1 - each["answered"] / sum(each["statuses"].values()) for each in chosen),
                "p50 ms": statistics.median(each["p50 ms"] for each in chosen),
                "p99 ms": statistics.median(each["p99 ms"] for each in chosen),
                "rounds": len(chosen),
            }
        )
    late = statistics.median(over["p99 ms"] / normal["p99 ms"] for normal, over, _ in tries)
    goodput = statistics.median(100 * over["answered"] / over["seconds"] / capacity for _, over, capacity in tries)
    return rows, [
        common.target("at twice the capacity: p99 of what was accepted, times the normal p99", "< 2", late),
        common.target("at twice the capacity: answers, % of the capacity", ">= 60", goodput),
    ]

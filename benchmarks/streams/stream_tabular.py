"""`online.tabular` beside river's and MOA's learners, one event after the other over whole streams: accuracy, and CPU time of one core.

mapsto bench stream_tabular
mapsto bench stream_tabular --only Bananas --seeds 0,1

Every side is given the same numbers (`_tables.py`), in a process of its own on one core, answers each event before it learns it, and is
counted from the first event on. Peers live in environments of their own (`_environments.py`). Each trial is kept as it is done, in
``benchmarks/results/trials/stream_tabular``, so that the same command goes on where it stopped, the important ones first, until all have
taken `BUDGET` CPU seconds; chosen ones (``--only``, ``--seeds``) run beyond that. What was not run is printed as "not run".
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import common
import numpy as np
from _environments import PINS, NotRunError, python_of
from _tables import GENERATED, SMALL, STREAMS, table

from mapsto import discovery
from mapsto.report.build import t95

BUDGET = 100 * 60
"""CPU seconds of all trials."""
SEEDS = range(10)
BLOCK = 256
"""Events of a block, where they are not one at a time: the executor's default. It decides no answer."""


@dataclass(frozen=True)
class Learner:
    """One side. `seeded`: whether it draws; one that does not answers the same each time."""

    name: str
    seeded: bool = True
    mapping: str = ""
    """Of mapsto; empty for a peer's."""
    fields: str = "{}"
    size: int = BLOCK
    slow: bool = False
    judged: bool = True
    """Whether it counts among the peers; not where it shows a rate alone."""

    @property
    def environment(self) -> str:
        return "mapsto" if self.mapping else "moa" if self.name.startswith("MOA") else "river"

    @property
    def version(self) -> str:
        """A trial of another one is measured again."""
        if self.mapping:
            return f"{self.mapping} {discovery.find('mappings', self.mapping).version}"
        return PINS[self.environment][0]


OURS = Learner("mapsto tabular", mapping="online.tabular")
FAST = Learner("mapsto tabular, fast", mapping="online.tabular", fields='{"preset": "fast"}')
VARIANTS = (
    OURS,
    Learner("mapsto tabular, no label members", mapping="online.tabular", fields='{"labels": false}'),
    FAST,
    Learner(
        "mapsto tabular, fast, no label members", mapping="online.tabular", fields='{"preset": "fast", "labels": false}'
    ),
)
ONE_BY_ONE = Learner("mapsto tabular, one at a time", seeded=False, mapping="online.tabular", size=1)
LINEAR = (
    Learner("mapsto softmax, one at a time", seeded=False, mapping="online.softmax", size=1),
    Learner("mapsto softmax, in blocks", seeded=False, mapping="online.softmax"),
)
LINEAR_PEERS = (
    Learner("river softmax", seeded=False),
    Learner("river logistic, learn_many", seeded=False, judged=False),
)
PEERS = (
    *LINEAR_PEERS,
    Learner("river HAT"),
    Learner("MOA ARF-10"),
    Learner("MOA SRP-10"),
    Learner("MOA SAM-kNN", seeded=False),
    Learner("river kNN", seeded=False, slow=True),
    Learner("river ARF-10", slow=True),
    Learner("river AMF-10", slow=True),
    Learner("river AMF-10, unscaled", slow=True),
    Learner("river SRP-10", slow=True),
)
LEARNERS = (*VARIANTS, ONE_BY_ONE, *LINEAR, *PEERS)
Trial = dict[str, Any]


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder) if quick else common.RESULTS / "trials" / "stream_tabular")
        arrays = Path(folder)
        if quick:
            for learner in (*VARIANTS, *LINEAR, LINEAR_PEERS[0]):
                trials.measure("SEA", learner, [0, 1], arrays, rows=400, python=sys.executable)
        else:
            for stream, learner, wanted in plan():
                if only in f"{stream}: {learner.name}" and (only or seeds or trials.seconds < BUDGET):
                    trials.measure(stream, learner, [seed for seed in wanted if not seeds or seed in seeds], arrays)
    streams = ["SEA"] if quick else STREAMS
    tree = common.result(
        "stream_tabular",
        conditions={
            "streams": {name: trials.events(name) for name in streams},
            "cores": "each side in a process of one thread; MOA's, which has more, bound to one core",
            "given": "numbers alone, words as codes; a generator's seed is the learner's",
            "mapsto": f"in blocks of {BLOCK} events unless it says one at a time; the answers are the same",
            "river": "softmax and kNN behind a standard scaler, AMF with split_pure, behind a min-max scaler and without",
            "MOA": "through CapyMOA; the time of its threads for compiling and collecting garbage is in process_s alone",
            "not run": trials.not_run,
            "quick": quick,
        },
        rows=[row for stream in streams for row in rows_of(stream, trials)],
        targets=[goal for stream in streams for goal in goals(stream, trials)] + [*overall(streams, trials)],
    )
    return common.finished(tree, quick=quick)


def plan() -> Iterator[tuple[str, Learner, Sequence[int]]]:
    """Streams, learners and seeds, what matters most first: all sides a little, then those of the three small streams often."""
    long = [stream for stream in STREAMS if stream not in SMALL]
    quick = [each for each in LEARNERS if not each.slow]
    slow = [each for each in LEARNERS if each.slow]
    rounds = (
        (SMALL, VARIANTS, SEEDS),
        (SMALL, quick, SEEDS[:3]),
        (SMALL, slow, SEEDS[:1]),
        (long, quick, SEEDS[:1]),
        (SMALL, slow, SEEDS[:3]),
        (SMALL, LEARNERS, SEEDS),
        (long, slow, SEEDS[:1]),
        (long, VARIANTS, SEEDS),
        (tuple(GENERATED), [each for each in quick if each.judged], SEEDS[:5]),
    )
    for streams, learners, seeds in rounds:
        for stream in streams:
            for learner in learners:
                varied = learner.seeded or (stream in GENERATED and learner in PEERS)
                yield stream, learner, seeds if varied else SEEDS[:1]


class Trials:
    """What was measured: a file a stream, of each learner a list with an entry a seed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, dict[str, list[Trial]]] = {}
        for stream in STREAMS:
            file = self._file(stream)
            self._held[stream] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        self.not_run: dict[str, str] = {}
        """Why."""

    @property
    def seconds(self) -> float:
        """CPU seconds of all."""
        return sum(trial["process_s"] for held in self._held.values() for each in held.values() for trial in each)

    def of(self, stream: str, learner: Learner) -> list[Trial]:
        """The trials of a learner's present version."""
        found = self._held[stream].get(learner.name, [])
        return [trial for trial in found if trial["version"] == learner.version]

    def events(self, stream: str) -> int | None:
        return next((trial["events"] for each in self._held[stream].values() for trial in each), None)

    def measure(
        self,
        stream: str,
        learner: Learner,
        seeds: Sequence[int],
        arrays: Path,
        *,
        rows: int | None = None,
        python: str | None = None,
    ) -> None:
        """Measure the seeds that were not, and keep each."""
        missing = [seed for seed in seeds if seed not in [trial["seed"] for trial in self.of(stream, learner)]]
        if not missing:
            return
        try:
            files = {seed: _arrays(arrays, stream, seed if stream in GENERATED else 0, rows) for seed in missing}
            for trial in _run(learner, files, python):
                print(stream, learner.name, trial, flush=True)
                self._keep(stream, learner, trial)
        except NotRunError as why:
            self.not_run[f"{stream}: {learner.name}"] = str(why)

    def _keep(self, stream: str, learner: Learner, trial: Trial) -> None:
        kept = self.of(stream, learner)
        kept = [each for each in kept if each["seed"] != trial["seed"]] + [trial | {"version": learner.version}]
        self._held[stream][learner.name] = sorted(kept, key=lambda each: each["seed"])
        self._folder.mkdir(parents=True, exist_ok=True)
        whole = self._file(stream).with_suffix(".tmp")
        whole.write_text(json.dumps(self._held[stream], indent=0) + "\n", encoding="utf-8")
        whole.replace(self._file(stream))

    def _file(self, stream: str) -> Path:
        return self._folder / f"{stream.replace(' ', '_')}.json"


@cache
def _arrays(folder: Path, stream: str, seed: int, rows: int | None) -> Path:
    """The file of a stream's arrays."""
    x, y = table(stream, seed, rows)
    file = folder / f"{stream.replace(' ', '_')}-{seed}.npz"
    np.savez(file, x=x, y=y)
    return file


def _run(learner: Learner, files: Mapping[int, Path], python: str | None) -> Iterator[Trial]:
    """Run a learner with each seed in one process. Raises `NotRunError` where it fails."""
    here = Path(__file__).parent
    if learner.mapping:
        command = [sys.executable, str(here / "_own_worker.py"), learner.mapping, learner.fields, str(learner.size)]
    else:
        command = [python or str(python_of(learner.environment)), str(here / "_peer_worker.py"), learner.name]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if not learner.mapping:
        environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryFile("w+") as errors:
        command += [f"{seed}={file}" for seed, file in files.items()]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        for line in run.stdout or ():
            if line.startswith("FOUND "):
                yield json.loads(line.removeprefix("FOUND "))
        if run.wait():
            errors.seek(0)
            raise NotRunError((errors.read().strip().splitlines() or ["it was ended"])[-1][:200])


# ------------------------------------------------------------------------------------------------------------------ figures


def rows_of(stream: str, trials: Trials) -> list[dict[str, Any]]:
    """A row for each learner: means over seeds, with the least and the most."""
    rows: list[dict[str, Any]] = []
    for learner in LEARNERS:
        found = trials.of(stream, learner)
        row: dict[str, Any] = {"stream": stream, "learner": learner.name, "seeds": len(found)}
        if not found:
            rows.append(row | {"accuracy": "not run"})
            continue
        accuracies = [trial["accuracy"] for trial in found]
        above = differences(stream, learner, trials) if learner in PEERS else []
        rows.append(
            row
            | {
                "accuracy": statistics.mean(accuracies),
                "ci95 over seeds": t95(accuracies),
                "low": min(accuracies),
                "high": max(accuracies),
                "points of ours above it": statistics.mean(above) if above else None,
                "ci95 of the points": t95(above) if above else None,
                "events a CPU second": rate(found),
                "events a second": statistics.median(trial["events"] / trial["wall_s"] for trial in found),
                "CPU seconds with the process's other threads": statistics.median(
                    trial["process_s"] for trial in found
                ),
            }
        )
    return rows


def rate(found: Sequence[Trial]) -> float:
    """Events a second of the thread's CPU time."""
    return statistics.median(trial["events"] / trial["thread_s"] for trial in found)


def differences(stream: str, learner: Learner, trials: Trials) -> list[float]:
    """Points of ours above a peer's, seed by seed; one that does not draw is the same for every seed of a given stream."""
    ours = {trial["seed"]: trial["accuracy"] for trial in trials.of(stream, OURS)}
    peer = {trial["seed"]: trial["accuracy"] for trial in trials.of(stream, learner)}
    if peer and not learner.seeded and stream not in GENERATED:
        peer = dict.fromkeys(ours, peer[0])
    return [ours[seed] - peer[seed] for seed in sorted(ours) if seed in peer]


def best_peer(stream: str, trials: Trials) -> tuple[Learner, list[float]] | None:
    """The peer that ours is least ahead of, and by how much, seed by seed; None until all that can run here have."""
    peers = [each for each in PEERS if each.judged and (each.environment != "moa" or shutil.which("java"))]
    found = [(each, differences(stream, each, trials)) for each in peers]
    if not all(values for _, values in found):
        return None
    return min(found, key=lambda entry: statistics.mean(entry[1]))


def goals(stream: str, trials: Trials) -> list[dict[str, Any]]:
    best, own = best_peer(stream, trials), trials.of(stream, OURS)
    small = stream in SMALL
    what, points = f"{stream}: points above the best peer", None
    if best is not None:
        what += f", {best[0].name}, {len(best[1])} seed{'s' if len(best[1]) > 1 else ''}"
        half = t95(best[1]) if small else 0.0
        points = None if half is None else statistics.mean(best[1]) - half
    what += "; lower end of the paired 95 % interval" if small else ""
    return [
        common.target(what, "> 0" if small else ">= -0.3", points),
        common.target(f"{stream}: events a CPU second", f">= {5000 if small else 4000}", rate(own) if own else None),
    ]


def overall(streams: Sequence[str], trials: Trials) -> Iterator[dict[str, Any]]:
    """Goals over all streams."""
    bests = [best_peer(stream, trials) for stream in streams if stream not in SMALL]
    ahead = [statistics.mean(best[1]) > 0 for best in bests if best is not None]
    share = 100 * statistics.mean(ahead) if ahead else None
    yield common.target(f"% of the {len(ahead)} other streams on which it is above the best peer", "> 50", share)
    for learner, peer, goal in (
        (LINEAR[0], LINEAR_PEERS[0], ">= 2"),
        (LINEAR[1], LINEAR_PEERS[0], ">= 20"),
        (LINEAR[1], LINEAR_PEERS[1], ">= 1"),
    ):
        pairs = [(trials.of(stream, learner), trials.of(stream, peer)) for stream in streams]
        ratios = [rate(own) / rate(their) for own, their in pairs if own and their]
        what = f"{learner.name}: times the events a CPU second of {peer.name}, median of {len(ratios)} streams"
        yield common.target(what, goal, statistics.median(ratios) if ratios else None)


if __name__ == "__main__":
    main("--quick" in sys.argv)

"""A stream that is learnt, killed at random moments and gone on with, beside the same without a stop; and memory over a million events.

mapsto bench resume
mapsto bench resume --only late

The stream is a CSV of SEA events whose rule changes, once with each label beside its event, and once with every label 200 questions late.
`online.tabular` learns it through the executor in a process of its own, which is killed (SIGKILL) at random moments, a fifth of them from
its start on and the others after its first block; the same run is then begun again with blocks of another size. In the end answers, log
and model must be those of a run that nobody disturbed, to the bit, and each event must have been answered once. What was found is kept
after each run to the end, in ``benchmarks/results/trials/resume``, and the same command goes on there. What was found is kept after
each run to the end, in ``benchmarks/results/trials/resume``, and the same command goes on there.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import common

from mapsto import streams

SIZES = (1, 7, 64, 256, 1000)
DELAY = 200
"""Questions between one and its label."""
MARKS = (10_000, 100_000, 250_000, 500_000, 1_000_000)
WORKER = Path(__file__).parent / "_resume_worker.py"


def main(quick: bool = False, only: str = "") -> dict[str, Any]:
    events, kills = (4000, 5) if quick else (10_000, 50)
    marks = (2000, 20_000) if quick else MARKS
    rows: list[dict[str, Any]] = []
    memory: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept" if quick else common.RESULTS / "trials" / "resume"
        kept.mkdir(parents=True, exist_ok=True)
        for late, name in ((False, "labels at once"), (True, "labels late")):
            wanted = kills if only in name else 0
            row = killed(Path(folder) / name, kept / f"{name.replace(' ', '_')}.json", events, late=late, kills=wanted)
            rows.append({"what": f"{name}, {events:,} events", **row})
        memory = resident(Path(folder) / "memory", kept / "memory.json", marks if only in "memory" else ())
    targets = [
        common.target(f"{row['what']}: {figure}", goal, row[figure] if row["kills"] >= kills else None)
        for row in rows
        for figure, goal in (
            ("kills after which all was equal to the bit", f">= {kills}"),
            ("events answered more or less than once", "<= 0"),
        )
    ]
    more = memory[marks[-1]] - memory[marks[-1] // 10] if memory else None
    targets.append(common.target(f"MiB more after {marks[-1]:,} events than after a tenth", "<= 10", more))
    rows += [{"what": f"resident memory after {count:,} events", "MiB": size} for count, size in memory.items()]
    tree = common.result(
        "resume",
        conditions={
            "sizes of blocks": list(SIZES),
            "label delay": DELAY,
            "checkpoint every, seconds": 0.2,
            "memory": "online.tabular, preset fast, on SEA events",
            "quick": quick,
        },
        rows=rows,
        targets=targets,
    )
    return common.finished(tree, quick=quick)


def killed(folder: Path, kept: Path, events: int, *, late: bool, kills: int) -> dict[str, Any]:
    """Kill a run so often; where it ends before, it is compared and begun anew."""
    found: dict[str, Any] = {
        "kills": 0,
        "different places": 0,
        "runs to the end": 0,
        "kills after which all was equal to the bit": 0,
        "events answered more or less than once": 0,
        "questions pending at a kill, at most": DELAY if late else 0,
    }
    found |= json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    if found["kills"] >= kills:
        return found
    folder.mkdir()
    file = folder / "events.csv"
    write(file, events, late=late)
    start(folder / "undisturbed", file, block=256).communicate()
    wanted = outcome(folder / "undisturbed")
    while found["kills"] < kills:
        rng = random.Random(2 * found["kills"] + late)
        run, since = folder / f"killed after {found['kills']}", 0
        places: set[int] = set()
        """How much was answered at each kill."""
        process = start(run, file, block=rng.choice(SIZES))
        while found["kills"] + since < kills and _kill(process, rng):
            since += 1
            places.add((run / "answers.csv").stat().st_size if (run / "answers.csv").is_file() else 0)
            process = start(run, file, block=rng.choice(SIZES))
        process.communicate()
        ended = outcome(run)
        found["kills"] += since
        found["different places"] += len(places)
        found["runs to the end"] += 1
        found["events answered more or less than once"] += off(ended, wanted)
        if ended == wanted and all(wanted.values()):
            found["kills after which all was equal to the bit"] += since
        kept.write_text(json.dumps(found) + "\n", encoding="utf-8")
        differ = [name for name in wanted if ended.get(name) != wanted[name]]
        print("late" if late else "at once", found, "differ:", differ, flush=True)
    return found


def write(file: Path, events: int, *, late: bool) -> None:
    """A CSV of events, each with an id; with late labels a line that holds an id and a label alone comes after."""
    stream = streams.sea(events=events, concept=events // 4, seed=3, label_delay=DELAY if late else 0)
    with file.open("w", encoding="utf-8") as out:
        out.write("event,x1,x2,x3,label\n")
        for block in stream.open(size=1000):
            columns = [block.x[name].tolist() for name in ("x1", "x2", "x3")]
            rows = zip(
                block.ids.tolist(), block.has_x.tolist(), block.has_y.tolist(), block.y.tolist(), *columns, strict=True
            )
            for name, has_x, has_y, label, *values in rows:
                cells = [repr(value) if has_x else "" for value in values]
                out.write(",".join([name, *cells, label if has_y else ""]) + "\n")


def start(folder: Path, file: Path, *, block: int) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    csv = {"file": str(file), "target": "label", "id": "event"}
    return _worker({"folder": str(folder), "block": block, "stream": {"csv": csv}, "fields": {"every": 500}})


def _worker(asked: dict[str, Any]) -> subprocess.Popen[str]:
    environment = os.environ | {"MAPSTO_CHECKPOINT_SECONDS": "0.2", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(WORKER), json.dumps(asked)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def _kill(process: subprocess.Popen[str], rng: random.Random) -> bool:
    """Whether it was killed before it ended by itself: soon after its start, or after its first block."""
    if rng.random() < 0.2:
        wait = rng.uniform(0.0, 5.0)
    else:
        for line in process.stdout or ():
            if line.startswith("BEGAN"):
                break
        wait = rng.uniform(0.0, 1.0)
    try:
        process.wait(timeout=wait)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    return False


def outcome(folder: Path) -> dict[str, str]:
    """What a run leaves: its answers and log, and the digest of its model."""
    files = [folder / "answers.csv", folder / "digest", *sorted((folder / "logs").rglob("metrics.csv"))]
    return {file.name: file.read_text(encoding="utf-8") if file.is_file() else "" for file in files}


def off(found: dict[str, str], wanted: dict[str, str]) -> int:
    """Events that were not answered once."""
    counts, right = (
        Counter(line.partition(",")[0] for line in each["answers.csv"].splitlines()[1:]) for each in (found, wanted)
    )
    return sum(counts[event] != right[event] for event in counts.keys() | right.keys())


def resident(folder: Path, kept: Path, marks: tuple[int, ...]) -> dict[int, float]:
    """Resident MiB of one process after so many events; what was kept where there are none to measure."""
    if kept.is_file() or not marks:
        known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else []
        return {int(count): float(size) for count, size in known}
    folder.mkdir()
    stream = {"sea": {"events": marks[-1]}}
    asked = {"folder": str(folder), "block": 256, "stream": stream, "fields": {"preset": "fast"}, "marks": marks}
    out, _ = _worker(asked | {"answers": False}).communicate()
    found = [json.loads(line.removeprefix("MEMORY")) for line in out.splitlines() if line.startswith("MEMORY")]
    kept.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return {int(count): float(size) for count, size in found}


if __name__ == "__main__":
    main("--quick" in sys.argv)

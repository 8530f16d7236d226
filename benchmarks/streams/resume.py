"""A stream that is learnt, killed at random moments and gone on with, beside the same without a stop; and memory over a million events.

mapsto bench resume

The stream is a CSV of SEA events whose rule changes, once with each label beside its event, and once with every label 200 questions late.
`online.tabular` learns it through the executor in a process of its own, which is killed (SIGKILL) at random moments, a fifth of them from
its start on and the others after its first block; the same run is then begun again with blocks of another size. In the end answers, log
and model must be those of a run that nobody disturbed, to the bit, and each event must have been answered once.
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


def main(quick: bool = False) -> dict[str, Any]:
    events, kills = (4000, 5) if quick else (20_000, 50)
    marks = (2000, 20_000) if quick else MARKS
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for late in (False, True):
            rows.append(killed(Path(folder) / f"late {late}", events, late=late, kills=kills))
            print(rows[-1], flush=True)
        memory = resident(Path(folder) / "memory", marks)
    rows += [{"what": f"resident memory after {count:,} events", "MiB": size} for count, size in memory.items()]
    most = marks[-1]
    targets = [
        common.target(f"{row['what']}: {figure}", goal, row[figure])
        for row in rows[:2]
        for figure, goal in (
            ("kills after which all was equal to the bit", f">= {kills}"),
            ("events answered more or less than once", "<= 0"),
        )
    ]
    targets.append(
        common.target(f"MiB more after {most:,} events than after a tenth", "<= 10", memory[most] - memory[most // 10])
    )
    tree = common.result(
        "resume",
        conditions={
            "events": events,
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


def killed(folder: Path, events: int, *, late: bool, kills: int) -> dict[str, Any]:
    """Kill a run so often; where it ends before, it is compared and begun anew."""
    folder.mkdir()
    file = folder / "events.csv"
    write(file, events, late=late)
    rng = random.Random(int(late))
    base = start(folder / "undisturbed", file, block=256)
    base.communicate()
    wanted = outcome(folder / "undisturbed")
    done = equal = wrong = runs = since = 0
    while done < kills or since:
        run = folder / f"killed-{runs}"
        process = start(run, file, block=rng.choice(SIZES))
        if done < kills and _kill(process, rng):
            done, since = done + 1, since + 1
            continue
        process.communicate()
        found = outcome(run)
        if found == wanted and all(wanted.values()):
            equal += since
        wrong += off(found, wanted)
        runs, since = runs + 1, 0
    return {
        "what": f"{'late labels' if late else 'labels at once'}, {events:,} events",
        "kills": done,
        "runs to the end": runs,
        "kills after which all was equal to the bit": equal,
        "events answered more or less than once": wrong,
        "questions pending at a kill": DELAY if late else 0,
    }


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
    """Whether it was killed before it ended by itself."""
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


def resident(folder: Path, marks: tuple[int, ...]) -> dict[int, float]:
    """Resident MiB of one process after so many events."""
    folder.mkdir()
    stream = {"sea": {"events": marks[-1]}}
    asked = {"folder": str(folder), "block": 256, "stream": stream, "fields": {"preset": "fast"}, "marks": marks}
    out, _ = _worker(asked | {"answers": False}).communicate()
    found = [json.loads(line.removeprefix("MEMORY")) for line in out.splitlines() if line.startswith("MEMORY")]
    return {int(count): float(size) for count, size in found}


if __name__ == "__main__":
    main("--quick" in sys.argv)

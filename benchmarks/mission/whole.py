"""The whole as one: a learner is trained, made small, served, adapted over HTTP; the world drifts, it learns, an alert comes, then advice.

mapsto bench whole
mapsto bench whole --only mapsto
mapsto bench whole --quick

The recipe `whole` in a process of its own on an empty store, with a row for the chain without each of its parts; then ``mapsto serve``
with keys, under Prometheus and Alertmanager where they are installed. Five drawings of each digit are sent to be adapted to; a thousand
upright digits are asked, then the camera turns by a quarter; labels come fifty digits late. The last two hundred of the turned digits say
what online learning gives: they are asked once more of the version that did not learn. At the end ``mapsto advise`` proposes the next
recipe for digits that were labelled on the job. Beside it the same chain by separate libraries, `whole_by_separate_libraries.py`. What was
made lies in ``$MAPSTO_BENCH/whole``, and the same command goes on there; remove it to begin anew. `scripts/recording.py` draws it.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import common
from _digits_that_turn import QUICK, Counts, events
from _recording import Recording
from _served import served
from _trained import MAPSTO, environment, trained

PILLARS = {
    "augmentation": "without_augmentation",
    "distillation": "without_distillation",
    "pruning": "without_pruning",
    "quantization": "without_quantization",
}
"""Part of the chain → the step of the recipe that is the small learner without it."""
LABELLED_A_CLASS = 20


def main(quick: bool = False, only: str = "") -> dict[str, Any]:
    place = Path(os.environ.get("MAPSTO_BENCH", "runs/bench")).resolve() / ("whole_quick" if quick else "whole")
    place.mkdir(parents=True, exist_ok=True)
    counts = QUICK if quick else Counts()
    recording = Recording(place / "output.jsonl")
    chain = trained(place, recording, quick=quick)
    service = once(place / "served.json", lambda: served(place, recording, counts))
    advice = once(place / "advice.json", lambda: advised(place, recording, counts))
    separate = place / "separate.json"
    if only in "separate libraries":
        once(separate, lambda: by_separate_libraries(place, quick=quick))
    peer = json.loads(separate.read_text(encoding="utf-8")) if separate.is_file() else None
    minutes = sum(part["seconds"] for part in (chain, service, advice)) / 60
    goals = goals_of(chain["figures"], service, minutes)
    recording.drop("goal")
    recording.say(f"# {minutes:.1f} minutes from the first step to the next recipe", "goal")
    for goal in goals:
        verdict = {True: "met", False: "NOT met", None: "not run"}[goal["met"]]
        recording.say(f"# {goal['what']}: {common.text_of(goal['measured'])} (goal {goal['goal']}): {verdict}", "goal")
    tree = common.result(
        "whole",
        conditions={
            "drift": "the digits turn by a quarter",
            "labels": "come 50 digits after the answer",
            "upright": counts.upright,
            "turned": counts.turned,
            "judged": counts.judged,
            "CPU minutes of the recipe": chain["CPU seconds"] / 60,
            "next recipe": advice["first"],
            "quick": quick,
        },
        rows=[*pillars(chain["figures"], service), *sides(place, chain, service, peer, minutes)],
        targets=goals,
    )
    if not quick:
        shutil.copy(recording.file, common.RESULTS / "whole.jsonl")
    return common.finished(tree, quick=quick)


def once(file: Path, made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a part came to, with the CPU seconds of all its processes; from its file where it was run already."""
    if not file.is_file():
        before = cpu_seconds()
        found = made()
        file.write_text(json.dumps({**found, "CPU seconds": cpu_seconds() - before}, indent=1), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def cpu_seconds() -> float:
    """Of this process, and of those that it started and that have ended."""
    spent = [resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def advised(place: Path, recording: Recording, counts: Counts) -> dict[str, Any]:
    """The recipe that is proposed for the last digits that were labelled on the job."""
    began = time.monotonic()
    kept = dict.fromkeys(map(str, range(10)), 0)
    for number, (png, label) in enumerate(reversed(events(counts).turned)):
        digit = label[-1]
        if kept[digit] < LABELLED_A_CLASS:
            folder = place / "labelled" / digit
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:03}.png").write_bytes(png)
            kept[digit] += 1
    lines = recording.command(
        "mapsto advise labelled --n 3", [*MAPSTO, "advise", "labelled", "--n", "3"],
        folder=place, environment=environment(place),
    )  # fmt: skip
    first = next(line for line in lines if re.match(r"\W*1\b", line))
    return {"seconds": time.monotonic() - began, "first": re.split(r"\s*│\s*", first)[2]}


def goals_of(figures: Mapping[str, Any], service: Mapping[str, Any], minutes: float) -> list[dict[str, Any]]:
    lost = service["before"] - service["without learning"]
    won = service["with learning"] - service["without learning"]
    alerts = service["alerts"]
    return [
        common.target("minutes from the first step to the next recipe", "< 10", minutes),
        common.target("points that the small int8 learner loses beside its teacher", "<= 2", figures["int8.digits"]["drop"]),
        common.target("times fewer multiply-accumulates", ">= 5", figures["int8.size"]["macs_ratio"]),
        common.target("% of what drift lost that online learning wins back", ">= 50", 100 * won / lost if lost > 0 else None),
        common.target(
            "alerts for other inputs that reached the webhook", ">= 1",
            None if alerts is None else float("MapstoInputDrift" in alerts),
        ),
    ]  # fmt: skip


def pillars(figures: Mapping[str, Any], service: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chain as it is, then without each part: what the part earned in points, bytes and milliseconds."""
    latency = figures["package.latency"]
    whole = {
        "accuracy %": figures["int8.digits"]["accuracy"],
        "bytes": figures["int8.size"]["bytes"],
        "ms": latency["p50"],
    }
    rows: list[dict[str, Any]] = [{"chain": "the whole", **whole, "million MACs": figures["int8.size"]["macs"] / 1e6}]
    for part, step in PILLARS.items():
        without = {
            "accuracy %": figures[f"{step}.digits"]["accuracy"],
            "bytes": figures[f"{step}.size"]["bytes"],
            "ms": latency.get(f"{step}_ort_p50"),
        }
        earned = {
            "points it earned": whole["accuracy %"] - without["accuracy %"],
            "bytes it saved": without["bytes"] - whole["bytes"],
            "ms it saved": None if without["ms"] is None else without["ms"] - whole["ms"],
        }
        rows.append(
            {"chain": f"without {part}", **without, "million MACs": figures[f"{step}.size"]["macs"] / 1e6, **earned}
        )
    online = {
        "accuracy %": service["without learning"],
        "points it earned": service["with learning"] - service["without learning"],
    }
    return [
        *rows,
        {"chain": "once served, before the drift", "accuracy %": service["before"]},
        {"chain": "after the drift, with online learning", "accuracy %": service["with learning"]},
        {"chain": "after the drift, without online learning", **online},
    ]


def sides(
    place: Path,
    chain: Mapping[str, Any],
    service: Mapping[str, Any],
    peer: Mapping[str, Any] | None,
    minutes: float,
) -> list[dict[str, Any]]:
    """mapsto's chain beside that of separate libraries; of what was not run, the lines that someone writes."""
    ours = {
        "lines written": written_lines(place),
        "minutes": minutes,
        "teacher accuracy %": chain["figures"]["teacher.digits"]["accuracy"],
        "int8 accuracy %": chain["figures"]["int8.digits"]["accuracy"],
        "before the drift %": service["before"],
        "after, without learning %": service["without learning"],
        "after, with learning %": service["with learning"],
        "bytes of the ONNX file": sum(file.stat().st_size for file in (place / "run" / "package").glob("*.onnx*")),
        "ms in ONNX Runtime": chain["figures"]["package.latency"]["p50"],
        "ms a request": service["ms a request"],
        "ms to adapt": service["ms to adapt"],
    }
    script = Path(__file__).parent / "whole_by_separate_libraries.py"
    theirs: dict[str, Any] = {**(peer or {"minutes": "not run"}), "lines written": lines_of(script.read_text("utf-8"))}
    return [
        {"side": "mapsto", **ours},
        {"side": "separate libraries", **{name: theirs[name] for name in ours if name in theirs}},
    ]


def written_lines(place: Path) -> int:
    """Lines of the recipe and of the client, without empty ones and comments; the recipe as it is shipped, its ablation included."""
    from mapsto.recipe.reader import shipped_recipes

    files = (shipped_recipes()["whole"], Path(__file__).parent / "_served.py")
    return sum(lines_of(file.read_text(encoding="utf-8")) for file in files)


def lines_of(text: str) -> int:
    """Lines that are neither empty nor a comment nor of a docstring."""
    text = re.sub(r'^\s*"""(?:.|\n)*?"""$', "", text, flags=re.MULTILINE)
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in text.splitlines())


def by_separate_libraries(place: Path, *, quick: bool) -> dict[str, Any]:
    """The other side, in a process of its own."""
    script = Path(__file__).parent / "whole_by_separate_libraries.py"
    command = [sys.executable, str(script), str(place / "separate"), *(["--quick"] if quick else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment(place))
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main("--quick" in sys.argv)

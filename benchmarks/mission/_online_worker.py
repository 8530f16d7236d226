"""`online.ridge` on a package's features over the stream of `mission`, in a process of its own: its last line is what was measured.

python _online_worker.py PACKAGE SEED COUNTS
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "streams"))

import numpy as np
from _own_worker import Nothing
from class_incremental import block_of
from mission import drawn, events_of, seen

from mapsto import online
from mapsto.kinds import Package

BLOCK = 50


def main() -> None:
    folder, seed, counts = Path(sys.argv[1]), int(sys.argv[2]), tuple(map(int, sys.argv[3].split(",")))
    images, labels = seen(*events_of(drawn(seed, counts)["stream"], seed), seed)  # type: ignore[arg-type]
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    learner = online.ridge(stream=Nothing())(Package(files=files)).open()
    names = np.array([f"{label:02}" for label in labels.tolist()])
    right, began = 0, time.process_time()
    for start in range(0, len(images), BLOCK):
        part = slice(start, start + BLOCK)
        scores = learner.learn(block_of({"image": images[part]}, labels[part], len(labels[part])))
        classes = np.array(learner.signature.classes)
        answered = scores.any(axis=1)
        right += int((answered & (classes[scores.argmax(1)] == names[part])).sum())
    spent = time.process_time() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {
        "online accuracy": 100 * right / len(images),
        "online ms an event": 1e3 * spent / len(images),
        "online MiB": memory,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()

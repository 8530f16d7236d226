"""A run of a learner over a stream, to be killed and begun again by `resume.py`.

python _resume_worker.py '{"folder": …, "block": 256, "stream": {"csv": {…}}, "fields": {"preset": "fast"}}'

It prints BEGAN once the first block is answered and MEMORY with resident MiB at some events; at its end the folder has ``digest``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from numpy.typing import NDArray

from mapsto import discovery
from mapsto.cli.stream.predictions import PredictionFile
from mapsto.context import Numerics
from mapsto.kinds import Block
from mapsto.run.executor import execute
from mapsto.run.result import Listener, StepResult


class Listening(Listener):
    """Writes answers, and says how far it is."""

    def __init__(self, answers: PredictionFile | None, marks: Sequence[int]) -> None:
        self.answers, self._marks, self._began = answers, list(marks), False

    def answered(
        self, step: StepResult, start: int, block: Block, scores: NDArray[Any], classes: Sequence[str]
    ) -> None:
        if self.answers is not None:
            self.answers.add(start, block, scores, classes)
        if not self._began:
            self._began = True
            print("BEGAN", start, flush=True)
        while self._marks and start + len(block) >= self._marks[0]:
            resident = psutil.Process().memory_info().rss / 2**20
            print("MEMORY", json.dumps([self._marks.pop(0), resident]), flush=True)


def main() -> None:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    folder = Path(asked["folder"])
    (kind, fields), *_ = asked["stream"].items()
    stream = discovery.find("streams", kind)(**fields)
    answers = PredictionFile(folder / "answers.csv", values=False) if asked.get("answers", True) else None
    result = execute(
        discovery.find("mappings", "online.tabular")(stream=stream, **asked.get("fields", {})),
        store=folder / "store",
        numerics=Numerics(threads=1),
        listener=Listening(answers, asked.get("marks", ())),
        logs=folder / "logs",
        block_size=asked["block"],
    )
    (folder / "digest").write_text(str(result.steps[-1].digest), encoding="utf-8")


if __name__ == "__main__":
    main()

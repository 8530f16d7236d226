"""The recipe `whole`, served: it adapts to handwriting over HTTP, the digits turn, an alarm says so, and it learns them anew."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mapsto import datasets
from mapsto.service.client import Client
from tests.command import mapsto
from tests.service.served import Served, serving
from tests.service.watching import needs_prometheus, until, watching

SHOTS, BEFORE, LABELLED, AFTER = 5, 1000, 200, 700
"""Examples a class to adapt with, inputs before the digits turn, how many of these get a label, and inputs after."""


def png(image: NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image[0]).save(content, "PNG")
    return content.getvalue()


def taught(served: Served, client: Client, events: list[tuple[bytes, str]]) -> NDArray[np.bool_]:
    """Whether each was answered right, before its label was given; labels come no faster than they are learnt, as they do in use."""

    def learnt() -> bool:
        return served.call("/v2/models/run/learner")[1]["behind"] == 0

    right: list[bool] = []
    for start in range(0, len(events), 10):
        part = events[start : start + 10]
        answer = client.infer("run", [image for image, _ in part])
        labels = [label for _, label in part]
        right += [given == label for given, label in zip(answer.labels, labels, strict=True)]
        assert client.feedback("run", answer, labels) == len(labels)
        if start % 50 == 40:
            until(learnt, "the labels are learnt")
    return np.array(right)


@pytest.mark.slow
@needs_prometheus
@pytest.mark.timeout(1500)
def test_from_training_to_a_service_that_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "store"))
    began = time.monotonic()
    mapsto("run", "whole", "--out", tmp_path / "run", code=0)
    trained = time.monotonic() - began
    report: dict[str, Any] = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    figures = {step["path"]: step["report"]["metrics"] for step in report["steps"] if step["report"]}
    digits = {
        name: figures[f"{name}.digits"]["accuracy"]["value"]
        for name in ("without_augmentation", "pruned", "without_distillation", "without_quantization", "int8")
    }
    samples = datasets.digits(size=28).open()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(samples))
    support = np.concatenate([order[samples.labels[order] == label][:SHOTS] for label in range(10)])
    rest = [each for each in order.tolist() if each not in set(support.tolist())]
    names = samples.classes

    def event(number: int, turned: bool) -> tuple[bytes, str]:
        image = samples.inputs[number]
        return png(np.ascontiguousarray(np.rot90(image, axes=(1, 2))) if turned else image), names[
            samples.labels[number]
        ]

    with (
        serving(tmp_path / "run", "--admin", folder=tmp_path) as served,
        watching(served, "--interval", 1, "--window", 30, "--hold", 3, "--p99", 10, "--queue-wait", 10) as hook,
    ):
        client = Client(served.url, served.key)
        examples = [event(number, False) for number in support.tolist()]
        version = client.adapt("run", [image for image, _ in examples], [label for _, label in examples], shared=True)
        client.promote("run", version)
        upright = [event(number, False) for number in rest[:BEFORE]]
        for start in range(0, BEFORE - LABELLED, 10):
            client.infer("run", [image for image, _ in upright[start : start + 10]])
        before = taught(served, client, upright[-LABELLED:])
        calm = set(hook.ever)
        after = taught(served, client, [event(number, True) for number in rest[BEFORE : BEFORE + AFTER]])
        assert client.versions("run")["active"].startswith("l-"), "what was learnt answers"
        until(lambda: "MapstoInputDrift" in hook.ever, "the alarm for other inputs")
        assert served.end() == 0
    seconds = time.monotonic() - began
    gained = {
        "augmentation": digits["int8"] - digits["without_augmentation"],
        "training after pruning": digits["without_quantization"] - digits["pruned"],
        "compression": figures["int8.size"]["macs_ratio"]["value"],
        "online learning": 100 * float(after[-200:].mean() - after[:100].mean()),
    }
    (tmp_path / "pillars.json").write_text(json.dumps({**gained, "seconds": seconds, "trained": trained}))
    print(gained, digits, seconds, trained, before.mean(), after[:100].mean(), after[-200:].mean())  # noqa: T201 - what -s shows
    assert before.mean() > 0.75
    assert calm == set(), "no alarm before the digits turned"
    assert gained["online learning"] > 20
    assert gained["training after pruning"] > 0
    assert gained["compression"] > 5

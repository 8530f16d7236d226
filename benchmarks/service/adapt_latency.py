"""How long it takes over HTTP from 25 images or texts, five of each of five classes, to a version that answers for these classes.

mapsto bench adapt_latency

PNGs go as base64 in one request on a connection that is kept; the answer comes once the version is stored. The networks are four blocks of
64 channels in float32 with random weights: what is measured does not hang on what they learnt. Texts are CLINC150's, and MiniLM in int8
reads them (extra `text`).
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import _models
import _sides
import common
import numpy as np
from PIL import Image

from mapsto.data.io.download import locate

SHAPES = ((1, 28, 28), (3, 32, 32), (3, 84, 84))
GOAL, GOAL_OF_TEXTS = "<= 50", "<= 300"
WARM = 5
"""Requests that do not count."""
JUDGED = SHAPES[:2]
"""Sizes of Omniglot and CIFAR-FS. At 84 pixels 25 images take 2.4 thousand million multiply-accumulates, which no goal was set for."""


def main(quick: bool = False) -> dict[str, Any]:
    requests = 5 if quick else 100
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    made: dict[str, tuple[Callable[[Path], Path], Callable[[int], bytes]]] = {
        f"Conv4-64, {' × '.join(map(str, shape))}": (
            lambda place, shape=shape: _models.conv4(place, shape),
            lambda seed, shape=shape: pictures(shape, seed),
        )
        for shape in SHAPES
    }
    made["MiniLM int8, texts"] = (_models.minilm, texts)
    goals = {name: GOAL for name, shape in zip(made, SHAPES, strict=False) if shape in JUDGED}
    goals["MiniLM int8, texts"] = GOAL_OF_TEXTS
    for what, (make, ask) in made.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            with _sides.mapsto(make(folder / "package"), folder / "service", model="model") as side:
                before = cpu_seconds(side)
                times = sorted(adapted(side, ask, requests))
                used = 1000 * (cpu_seconds(side) - before) / (requests + WARM)
        p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
        row = {
            "side": what,
            "p50 ms": times[len(times) // 2],
            "p99 ms": p99,
            "CPU ms a request": used,
            "requests": len(times),
        }
        rows.append(row)
        if what in goals:
            targets.append(common.target(f"{what}: p99 of 5-way 5-shot, ms", goals[what], p99))
    tree = common.result(
        "adapt_latency",
        conditions={
            "ways": 5,
            "shots": 5,
            "images": "PNG, base64 in JSON",
            "texts": "CLINC150",
            "threads": 1,
            "quick": quick,
        },
        rows=rows,
        targets=targets,
    )
    return common.finished(tree, quick=quick)


def adapted(side: _sides.Side, ask: Callable[[int], bytes], requests: int) -> list[float]:
    """Milliseconds of each request, after a few that do not count."""
    connection = http.client.HTTPConnection("127.0.0.1", side.port, timeout=60)
    headers = {"authorization": f"Bearer {side.key}"}
    times: list[float] = []
    for number in range(requests + WARM):
        body = ask(number)
        began = time.perf_counter()
        connection.request("POST", "/v2/models/model/adapt", body, headers)
        answer = connection.getresponse()
        content = json.loads(answer.read())
        if answer.status != 200 or content["examples"] != 25:
            raise RuntimeError(f"{answer.status} {content}")
        if number >= WARM:
            times.append(1000 * (time.perf_counter() - began))
    connection.close()
    return times


def cpu_seconds(side: _sides.Side) -> float:
    """User and system time of a server's processes so far."""
    return sum(each.cpu_times().user + each.cpu_times().system for each in side.processes())


def pictures(shape: tuple[int, int, int], seed: int) -> bytes:
    """A request: 25 images of blurred noise, five a class."""
    rng = np.random.default_rng(seed)
    files: list[str] = []
    for number in range(25):
        channels, height, width = shape
        small = rng.integers(0, 200, (height // 4, width // 4, channels), np.uint8)
        pixels = np.repeat(np.repeat(small, 4, 0), 4, 1) + np.uint8(10 * (number % 5))
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "PNG")
        files.append(base64.b64encode(file.getvalue()).decode())
    image = {"name": "image", "datatype": "BYTES", "shape": [25], "data": files}
    image["parameters"] = {"content_type": "base64"}
    return support(image)


def texts(seed: int) -> bytes:
    """A request: 25 texts of CLINC150, five of each of five intents."""
    rng = np.random.default_rng(seed)
    tree = json.loads(locate("text/clinc150.json", what="CLINC150").read_text("utf-8"))["train"]
    of_intent: dict[str, list[str]] = {}
    for text, intent in tree:
        of_intent.setdefault(intent, []).append(text)
    chosen = rng.choice(sorted(of_intent), 5, replace=False)
    given = [str(rng.choice(of_intent[intent])) for _ in range(5) for intent in chosen]
    return support({"name": "text", "datatype": "BYTES", "shape": [25], "data": given})


def support(given: dict[str, Any]) -> bytes:
    """A request for 25 inputs, of five classes in turn."""
    labels = {"name": "label", "datatype": "BYTES", "shape": [25], "data": [f"class {each % 5}" for each in range(25)]}
    return json.dumps({"inputs": [given, labels]}).encode()

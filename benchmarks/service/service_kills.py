"""Processes of a service that are killed (SIGKILL) under load, time and again: what was acknowledged must be there, each label once.

mapsto bench service_kills

Two workers, the writer and the learner run under `mapsto serve`, and clients give feedback, each label under a name of its own; one that
got no answer is sent again. In turn the writer, a worker and the learner are killed, which the supervisor starts again. After so many of
them the supervisor itself is killed: then the service ends, and is started again on the same state.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import _models
import _sides
import common
import numpy as np
import psutil

from mapsto.service.state import State

KINDS = ("writer", "worker", "learner")
PAUSE = 3.6
"""Seconds from a kill to the next: a process that ends five times within ten seconds of its start would end the service."""
CLIENTS = 4


def main(quick: bool = False) -> dict[str, Any]:
    sessions, cycles = (1, 1) if quick else (5, 10)
    kills: Counter[str] = Counter()
    load = Labels()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        package = _models.student(folder / "student")
        for _ in range(sessions):
            with _sides.mapsto(package, folder / "service", "--workers", 2, "--every", 1) as side, load.to(side):
                time.sleep(1.0)
                for cycle in range(cycles):
                    for kind in KINDS:
                        if killed(side, kind, cycle):
                            kills[kind] += 1
                        time.sleep(PAUSE)
                    print(dict(kills), len(load.acknowledged), "acknowledged", load.failed, "not", flush=True)
                side.process.kill()
                side.process.wait()
                kills["supervisor"] += 1
                ended(side)
        stored = events(folder / "service" / "state.sqlite")
    lost = len(set(load.acknowledged) - set(stored))
    twice = len(stored) - len(set(stored))
    wanted = sessions * cycles
    rows: list[dict[str, Any]] = [{"what": kind, "kills": number} for kind, number in kills.items()]
    rows += [
        {"what": "labels acknowledged", "kills": len(load.acknowledged)},
        {"what": "requests without an answer, or refused", "kills": load.failed},
    ]
    tree = common.result(
        "service_kills",
        conditions={"clients": CLIENTS, "workers": 2, "durability": "process", "quick": quick},
        rows=rows,
        targets=[
            *(common.target(f"kills of the {kind} under load", f">= {wanted}", kills[kind]) for kind in KINDS),
            common.target(
                "kills of the supervisor, after which the service is started again",
                f">= {sessions}",
                kills["supervisor"],
            ),
            common.target("acknowledged labels that are lost", "<= 0", lost if load.acknowledged else None),
            common.target("labels that are stored twice", "<= 0", twice if load.acknowledged else None),
        ],
    )
    return common.finished(tree, quick=quick)


class Labels:
    """Feedback of clients, and which of it was acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[str] = []
        self.failed = 0
        self._numbers = iter(range(1 << 40))
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def to(self, side: _sides.Side) -> Any:
        """Give labels to a service until the end."""
        over = threading.Event()
        threads = [threading.Thread(target=self._give, args=(side, over)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _give(self, side: _sides.Side, over: threading.Event) -> None:
        rng = np.random.default_rng()
        name, tries = "", 0
        while not over.is_set():
            if not name or tries > 20:
                with self._lock:
                    name, tries = f"label-{next(self._numbers)}", 0
            tries += 1
            item = {"name": "input", "shape": [1, 1, 28, 28], "datatype": "FP32"}
            item["data"] = rng.random(784).round(2).tolist()
            body = {"label": random.choice("0123"), "idempotency_key": name, "inputs": [item]}
            try:
                status = self._sent(side, json.dumps(body).encode())
            except (OSError, http.client.HTTPException):  # its worker was killed: it is sent again
                status = 0
            with self._lock:
                if status == 200:
                    self.acknowledged.append(f"k/{name}")
                    name = ""
                else:
                    self.failed += 1
            if status != 200:
                time.sleep(0.05)

    def _sent(self, side: _sides.Side, body: bytes) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", side.port, timeout=10)
        try:
            connection.request("POST", "/v2/models/student/feedback", body, {"authorization": f"Bearer {side.key}"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


def killed(side: _sides.Side, kind: str, number: int) -> bool:
    """Kill a process of this kind, once there is one; whether there was."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = [
            each for each in psutil.Process(side.process.pid).children() if f"mapsto.service.{kind}" in _command(each)
        ]
        if found:
            with contextlib.suppress(psutil.NoSuchProcess):
                found[number % len(found)].kill()
                return True
        time.sleep(0.1)
    return False


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def ended(side: _sides.Side) -> None:
    """Waits until nobody listens any more: the workers end with their supervisor."""
    end = time.monotonic() + 60
    while _sides.listens(side.port) and time.monotonic() < end:
        time.sleep(0.1)


def events(state: Path) -> list[str]:
    """Of all rows that are stored."""
    held, found, last = State(state), list[str](), 0
    while rows := held.feedback("student", after=last, most=1000):
        found += [row.event for row in rows]
        last = rows[-1].position
    held.close()
    return found

"""Real alarms: Prometheus and Alertmanager watch a service that breaks in five ways, and a webhook is told of each and of its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.service.keys import made
from mapsto.service.state import State
from tests.service.breakable import breakable_package
from tests.service.served import Served, serving
from tests.service.watching import Webhook, needs_prometheus, until, watching

pytestmark = [pytest.mark.slow, needs_prometheus]
CLASSES = ("low", "high")
SLOW, WAITING = 2.0, 1.0
"""Seconds of a request, and in the queue, beyond which it alarms."""
ROWS = 50


class Clients:
    """What clients send, a little all the time."""

    def __init__(self, service: Served, model: str) -> None:
        self._service, self._model = service, model
        self._rng = np.random.default_rng(0)

    def infer(self, rows: list[list[float]]) -> tuple[int, Any]:
        item = {"name": "input", "datatype": "FP32", "shape": [len(rows), 5], "data": rows}
        return self._service.call(f"/v2/models/{self._model}/infer", {"inputs": [item]})

    def usual(self, *, shift: float = 0.0, labels: bool = True, right: bool = True) -> None:
        """A request of many rows, and the labels of its answers."""
        rows = np.zeros((ROWS, 5))
        rows[:, :3] = self._rng.normal([0, shift, 0], size=(ROWS, 3))
        status, found = self.infer(rows.tolist())
        if status != 200 or not labels:
            return
        name = found["parameters"]["request_id"]
        said = [
            {"request_id": name, "row": place, "label": CLASSES[int(bool(row[0] > 0) == right)]}
            for place, row in enumerate(rows)
        ]
        self._service.call(f"/v2/models/{self._model}/feedback", {"feedback": said})

    def one(self, *, fails: bool = False, rounds: int = 0) -> int:
        return self.infer([[1, 0, 0, 9 if fails else 0, rounds]])[0]

    def rounds_of(self, seconds: float) -> int:
        """How many rounds of work take the model about so long, now."""
        began = time.perf_counter()
        self.one(rounds=2000)
        return round(2000 * seconds / (time.perf_counter() - began))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Clients, Webhook]]:
    """A service in its usual work, Prometheus and Alertmanager, and no alarm yet."""
    folder = tmp_path_factory.mktemp("alarms")
    breakable_package(folder / "model", CLASSES)
    limits = ["--p99", SLOW, "--queue-wait", WAITING, "--interval", 1, "--window", 5, "--hold", 3]
    with (
        serving(folder / "model", "--learn", "none", folder=folder) as service,
        watching(service, *limits) as hook,
    ):
        clients = Clients(service, "model")
        for _ in range(2000 // ROWS):
            clients.usual()
        end = time.monotonic() + 8
        until(lambda: time.monotonic() > end, "a while", meanwhile=clients.usual)
        yield clients, hook


def alarms(watched: tuple[Clients, Webhook], name: str, broken: Callable[[], Any]) -> set[str]:
    """Break the service until an alarm comes, mend it until it goes; the alarms that came."""
    clients, hook = watched
    assert hook.on == set(), "all is well before"
    hook.ever.clear()
    until(lambda: name in hook.on, f"{name} comes", meanwhile=broken)
    until(lambda: not hook.on, f"{name} goes", meanwhile=clients.usual)
    return set(hook.ever)


def test_errors(watched: tuple[Clients, Webhook]) -> None:
    clients, _ = watched

    def broken() -> None:
        clients.usual()
        assert clients.one(fails=True) == 500

    assert alarms(watched, "MapstoErrors", broken) == {"MapstoErrors"}


def test_drift(watched: tuple[Clients, Webhook]) -> None:
    clients, _ = watched
    assert alarms(watched, "MapstoInputDrift", lambda: clients.usual(shift=2.0)) == {"MapstoInputDrift"}


def test_accuracy(watched: tuple[Clients, Webhook]) -> None:
    clients, _ = watched
    for _ in range(2):
        clients.usual(right=False)
    found = alarms(watched, "MapstoAccuracyDrop", lambda: clients.usual(labels=False))
    assert found == {"MapstoAccuracyDrop"}


def test_latency(watched: tuple[Clients, Webhook]) -> None:
    clients, _ = watched
    rounds = clients.rounds_of(1.5 * SLOW)
    assert "MapstoLatency" in alarms(watched, "MapstoLatency", lambda: clients.one(rounds=rounds))


def test_queue(watched: tuple[Clients, Webhook]) -> None:
    """Several clients at once, each of whose requests waits until the batch before it is done."""
    clients, _ = watched
    rounds = clients.rounds_of(1.5 * WAITING)

    def broken() -> None:
        threads = [threading.Thread(target=clients.one, kwargs={"rounds": rounds}) for _ in range(6)]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join()

    assert "MapstoQueue" in alarms(watched, "MapstoQueue", broken)


def test_a_key_that_may_not_is_an_alarm_too(watched: tuple[Clients, Webhook], tmp_path: Path) -> None:
    """Where Prometheus is refused the service counts as down."""
    clients, hook = watched
    folder = clients._service.folder
    state = State(folder / "state.sqlite")
    _, other = made(state, name="other", scopes=["predict"])
    state.close()
    key = folder / "watch" / "key"
    own = key.read_text()
    key.write_text(other)
    until(lambda: "MapstoDown" in hook.on, "MapstoDown comes", meanwhile=clients.usual)
    key.write_text(own)
    until(lambda: not hook.on, "MapstoDown goes", meanwhile=clients.usual)

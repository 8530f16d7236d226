"""Real alarms: Prometheus and Alertmanager watch a service that breaks in five ways, and a webhook is told of each and of its end."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.service.keys import made
from mapsto.service.state import State
from tests.command import mapsto
from tests.service.breakable import breakable_package
from tests.service.served import Served, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("prometheus") and shutil.which("prometheus-alertmanager")),
        reason="Prometheus and Alertmanager are not installed (Debian: prometheus, prometheus-alertmanager)",
    ),
]
CLASSES = ("low", "high")
SLOW, WAITING = 2.0, 1.0
"""Seconds of a request, and in the queue, beyond which it alarms."""
ROWS = 50


class Webhook:
    """Notes what Alertmanager says: which alarms are on, and all that ever were."""

    def __init__(self) -> None:
        self.on: set[str] = set()
        self.ever: set[str] = set()
        noted = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                tree = json.loads(self.rfile.read(int(self.headers["content-length"])))
                for alert in tree["alerts"]:
                    name = alert["labels"]["alertname"]
                    if alert["status"] == "firing":
                        noted.on.add(name)
                        noted.ever.add(name)
                    else:
                        noted.on.discard(name)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/"


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


@contextmanager
def running(*command: str, folder: Path, ready: str) -> Iterator[None]:
    """A program, once it says that it is ready."""
    with (folder / f"{command[0]}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            host, port = ready.split(":")
            until(lambda: _answers(host, int(port)), f"{command[0]} listens")
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1) as opened:
            opened.sendall(b"GET /-/ready HTTP/1.0\r\n\r\n")
            return b" 200 " in opened.recv(100)
    except OSError:
        return False


def until(
    holds: Callable[[], bool], what: str, *, seconds: float = 120, meanwhile: Callable[[], Any] | None = None
) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        if meanwhile is not None:
            meanwhile()
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Clients, Webhook]]:
    """A service in its usual work, Prometheus and Alertmanager, and no alarm yet."""
    folder = tmp_path_factory.mktemp("alarms")
    breakable_package(folder / "model", CLASSES)
    hook = Webhook()
    alertmanager, prometheus = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with ExitStack() as stack:
        service = stack.enter_context(serving(folder / "model", "--learn", "none", folder=folder))
        watch = folder / "watch"
        given = ["--url", service.url, "--webhook", hook.url, "--alertmanager", alertmanager]
        given += ["--p99", SLOW, "--queue-wait", WAITING, "--interval", 0.5, "--window", 5, "--hold", 1]
        mapsto("monitor", "init", watch, "--state", folder / "state.sqlite", *given, code=0)
        stack.enter_context(
            running(
                "prometheus-alertmanager",
                "--config.file=alertmanager.yml",
                "--storage.path=alerts",
                f"--web.listen-address={alertmanager}",
                "--cluster.listen-address=",
                folder=watch,
                ready=alertmanager,
            )
        )
        stack.enter_context(
            running(
                "prometheus",
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                f"--web.listen-address={prometheus}",
                folder=watch,
                ready=prometheus,
            )
        )
        clients = Clients(service, "model")
        for _ in range(2000 // ROWS):
            clients.usual()
        end = time.monotonic() + 8
        until(lambda: time.monotonic() > end, "a while", meanwhile=clients.usual)
        yield clients, hook
        hook.server.shutdown()


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

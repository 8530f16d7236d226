"""Prometheus and Alertmanager as `mapsto monitor init` sets them up, watching a service that runs, and a webhook that they tell."""

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

import pytest

from tests.command import mapsto
from tests.service.served import Served

__all__ = ["Webhook", "needs_prometheus", "until", "watching"]

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("prometheus-alertmanager")),
    reason="Prometheus and Alertmanager are not installed (Debian: prometheus, prometheus-alertmanager)",
)


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


@contextmanager
def watching(service: Served, *given: object) -> Iterator[Webhook]:
    """A service watched by the files that ``mapsto monitor init`` writes with options given; what the webhook is told."""
    hook = Webhook()
    alertmanager, prometheus = (f"127.0.0.1:{free_port()}" for _ in range(2))
    watch = service.folder / "watch"
    options = ["--url", service.url, "--webhook", hook.url, "--alertmanager", alertmanager, *given]
    mapsto("monitor", "init", watch, "--state", service.folder / "state.sqlite", *options, code=0)
    with ExitStack() as stack:
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
        stack.callback(hook.server.shutdown)
        yield hook


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

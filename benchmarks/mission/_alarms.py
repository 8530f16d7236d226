"""Prometheus and Alertmanager, where they are installed, on the files of ``mapsto monitor init``; and a webhook that notes their alerts."""

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

__all__ = ["Webhook", "free_address", "installed", "until", "watching"]

PROGRAMS = ("prometheus-alertmanager", "prometheus")


def installed() -> bool:
    return all(shutil.which(program) for program in PROGRAMS)


class Webhook:
    """The names of all alerts that ever fired."""

    def __init__(self) -> None:
        self.fired: set[str] = set()
        fired = self.fired

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                tree = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fired.update(each["labels"]["alertname"] for each in tree["alerts"] if each["status"] == "firing")
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: what was posted stands in `fired`."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"


@contextmanager
def watching(folder: Path, alertmanager: str) -> Iterator[None]:
    """Both programs on a folder that ``mapsto monitor init`` has written."""
    prometheus = free_address()
    options = {
        "prometheus-alertmanager": [
            "--config.file=alertmanager.yml", "--storage.path=alerts", f"--web.listen-address={alertmanager}", "--cluster.listen-address=",
        ],
        "prometheus": ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={prometheus}"],
    }  # fmt: skip
    with ExitStack() as stack:
        for program, address in zip(PROGRAMS, (alertmanager, prometheus), strict=True):
            stack.enter_context(_running(program, options[program], folder, address))
        yield


@contextmanager
def _running(program: str, options: list[str], folder: Path, address: str) -> Iterator[None]:
    with (folder / f"{program}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen([program, *options], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            until(lambda: _is_ready(address), f"{program} is ready")
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def _is_ready(address: str) -> bool:
    host, port = address.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1) as opened:
            opened.sendall(b"GET /-/ready HTTP/1.0\r\n\r\n")
            return b" 200 " in opened.recv(100)
    except OSError:
        return False


def until(holds: Callable[[], bool], what: str, *, seconds: float = 120) -> float:
    """Seconds until something held. Raises `TimeoutError` where it did not in time."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - began


def free_address() -> str:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{opened.getsockname()[1]}"

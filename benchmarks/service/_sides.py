"""Servers of one model that are compared: each in processes of its own, whose CPU time is read from the system."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _environments
import psutil

HERE = Path(__file__).parent
_START_SECONDS = 600.0


@dataclass
class Side:
    """A running server."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    path: str = "/v2/models/student/infer"
    key: str = ""
    log: str = ""
    known: dict[int, psutil.Process] = field(default_factory=dict[int, psutil.Process])

    def processes(self) -> list[psutil.Process]:
        """Its own and all below it."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def request(self, body: bytes, *, path: str = "", headers: Sequence[str] = ()) -> bytes:
        """A whole request for `load`."""
        lines = [f"POST {path or self.path} HTTP/1.1", f"host: 127.0.0.1:{self.port}", *headers]
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
        lines += [f"authorization: Bearer {self.key}"] if self.key else []
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def load(
    side: Side,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    rate: float | None = None,
    most: int | None = None,
) -> dict[str, Any]:
    """What a client of its own process measures, and ``CPU ms``, the server's for each answer; it ends after `most` requests."""
    asked = {
        "host": "127.0.0.1",
        "port": side.port,
        "connections": connections,
        "seconds": seconds,
        "rate": rate,
        "most": most,
        "processes": [each.pid for each in side.processes()],
        "requests": [base64.b64encode(each).decode() for each in requests],
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "_load.py")], input=json.dumps(asked).encode(), capture_output=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    answers = sum(found["statuses"].values())
    if not answers:
        raise RuntimeError(f"{side.name} answered nothing: {Path(side.log).read_text()[-2000:]}")
    return found | {"CPU ms": 1000 * found["CPU s"] / answers}


@contextlib.contextmanager
def mapsto(
    package: Path,
    folder: Path,
    *options: object,
    name: str = "mapsto",
    model: str = "student",
    state: str = "",
    more: dict[str, str] | None = None,
) -> Iterator[Side]:
    """``mapsto serve`` of a package as a user starts it: keys, metrics, a learner, a state in a folder or where `state` says."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "mapsto", "serve", f"{model}={package}", "--port", port, "--state"]
    command += [state or folder / "state.sqlite", *options]
    with _running(name, command, port, folder, more) as side:
        text = _said(side, "feedback")
        found = re.search(r"for this run: (\S+)", text)
        if found is None:
            raise _environments.NotRunError(f"mapsto serve did not start: {text[-500:]}")
        side.key, side.path = found.group(1), f"/v2/models/{model}/infer"
        yield side


@contextlib.contextmanager
def peer(name: str, model: Path, folder: Path) -> Iterator[Side]:
    """A peer, by its name. Raises `NotRunError`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command: list[Any]
    more: dict[str, str] = {}
    path = "/v2/models/student/infer"
    if name in ("pure ASGI + msgspec", "FastAPI + pydantic"):
        file = "_pure_asgi.py" if name.startswith("pure") else "_fastapi_pydantic.py"
        command = [sys.executable, HERE / file, port, model]
    elif name == "LitServe":
        command, path = [_environments.python_of("litserve"), HERE / "_litserve_server.py", port, model], "/predict"
    elif name == "BentoML":
        python = _environments.python_of("bentoml")
        more = {"MODEL": str(model), "BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "True"}
        command = [python, "-m", "bentoml", "serve", "_bentoml_service:Student", "--host", "127.0.0.1", "--port", port]
        command += ["--working-dir", HERE]
        path = "/infer"
    else:
        python = _environments.python_of("mlserver")
        _mlserver_folder(folder / "models", model, port)
        command = [python, "-c", "from mlserver.cli import main; main()", "start", folder / "models"]
    with _running(name, command, port, folder, more) as side:
        side.path = path
        yield side


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def listens(port: int) -> bool:
    """Whether a server takes connections there."""
    with socket.socket() as opened:
        opened.settimeout(1)
        return opened.connect_ex(("127.0.0.1", port)) == 0


# -- private


def _mlserver_folder(folder: Path, model: Path, port: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(HERE / "_mlserver_model.py", folder / "student_model.py")
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,  # in its own process, which costs it least
        "debug": False,
        "root_path": "",
    }
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    own = {"name": "student", "implementation": "student_model.Student", "parameters": {"uri": str(model)}}
    (folder / "model-settings.json").write_text(json.dumps(own), encoding="utf-8")


@contextlib.contextmanager
def _running(
    name: str, command: Sequence[Any], port: int, folder: Path, more: dict[str, str] | None = None
) -> Iterator[Side]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | (more or {})
    log = (folder / "log.txt").open("wb")
    process = subprocess.Popen([*map(str, command)], stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder)
    side = Side(name, process, port, log=str(folder / "log.txt"))
    try:
        end = time.monotonic() + _START_SECONDS
        while not listens(port):
            if process.poll() is not None or time.monotonic() > end:
                text = (folder / "log.txt").read_text(errors="replace").strip()
                raise _environments.NotRunError(f"{name} did not start: {text[-300:]}")
            time.sleep(0.1)
        yield side
    finally:
        below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for each in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        log.close()


def _said(side: Side, wanted: str) -> str:
    """What it printed, once `wanted` is in it or it has ended."""
    end, text = time.monotonic() + _START_SECONDS, ""
    while wanted not in text and side.process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
        text = Path(side.log).read_text(errors="replace")
    return text

"""A service that runs as its user starts it, for tests that talk to it over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Served", "serving", "until"]


@dataclass
class Served:
    """A running ``mapsto serve``."""

    process: subprocess.Popen[str]
    url: str
    key: str
    said: list[str]
    """The lines that it printed."""
    folder: Path
    """Where its state is."""

    @property
    def grpc(self) -> str:
        """The address of gRPC, where there is one."""
        return next(line.split()[-1] for line in self.said if line.startswith("gRPC at "))

    def call(
        self, path: str, body: Any = None, *, key: str | None = None, method: str | None = None, headers: Any = None
    ) -> tuple[int, Any]:
        """The status and the answer's JSON."""
        status, content = self.raw(path, body, key=key, method=method, headers=headers)
        return status, json.loads(content) if content else None

    def raw(
        self, path: str, body: Any = None, *, key: str | None = None, method: str | None = None, headers: Any = None
    ) -> tuple[int, str]:
        """The status and the answer's text."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        given = self.key if key is None else key
        for name, value in {**({"Authorization": f"Bearer {given}"} if given else {}), **(headers or {})}.items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def infer(self, model: str, rows: list[list[float]], **more: Any) -> dict[str, Any]:
        """The answer to rows."""
        item = {"name": "input", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": rows}
        status, found = self.call(f"/v2/models/{model}/infer", {"inputs": [item], **more})
        assert status == 200, found
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@contextmanager
def serving(
    *arguments: object, folder: Path, port: int = 0, state: str = "", seconds: float = 120
) -> Generator[Served]:
    """``mapsto serve`` with its state in a folder, or where `state` says, which has so many seconds to start; it is ended at the end."""
    command = [sys.executable, "-m", "mapsto", "serve", *map(str, arguments), "--port", str(port)]
    command += ["--state", state or str(folder / "state.sqlite")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    log = (folder / "serve.log").open("w+")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        end = time.monotonic() + seconds
        text = ""
        while "feedback" not in text and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
            text = (folder / "serve.log").read_text()
        address, key = re.search(r"https?://[\d.:]+", text), re.search(r"for this run: (\S+)", text)
        assert address is not None, text
        assert key is not None, text
        yield Served(process, address.group(), key.group(1), text.splitlines(), folder)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)
        log.close()


def until(holds: Callable[[], Any], *, seconds: float = 60) -> Any:
    """What holds, once it does. Fails where it never does."""
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.1)
    assert found
    return found

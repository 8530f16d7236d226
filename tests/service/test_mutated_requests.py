"""Requests that are a little wrong, many of them: none is answered with 5xx, none takes long, and memory does not grow.

``MAPSTO_MUTATIONS`` is how many the slow tests send; over loopback it is a tenth of that. A failure names the seed of its request.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.packages import linear_package
from tests.service.in_process import InProcess, started
from tests.service.listening import listening
from tests.service.memory import Memory
from tests.service.mutated_requests import Asking, mutated_head, mutated_request
from tests.service.served import Served, serving

COUNT = int(os.environ.get("MAPSTO_MUTATIONS", "100000"))
LONGEST = 10.0
"""Seconds that a request may take, on a machine that others use."""
MOST_GROWTH = 16.0
"""MiB, whatever the count: caches that are bounded go on filling for a while."""
SAMPLES = 50


@pytest.fixture
def service(tmp_path: Path) -> Iterator[InProcess]:
    with started(tmp_path) as found:
        yield found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    with serving(f"signs={tmp_path / 'signs'}", folder=tmp_path) as found:
        yield found


def say(text: str) -> None:
    """What a long run comes to, for who follows it with ``-s``."""
    sys.stderr.write(f"{text}\n")


def check(status: int, body: bytes, asking: Asking, seed: int) -> None:
    """An answer is one of the protocol, and no fault of the service."""
    about = f"seed {seed}: {status} {body[:200]!r} to {asking.path} {asking.body[:300]!r} {asking.headers}"
    assert 200 <= status < 500, about
    if status < 300:
        if asking.path.endswith("/infer") and "binary" not in str(asking.headers) + str(asking.body):
            found = json.loads(body)
            rows = found["outputs"][0]["shape"][0] if found["outputs"] else 0
            assert all(output["shape"][0] == rows for output in found["outputs"]), about
    elif status != 404 or asking.path.endswith(("/infer", "/feedback")):
        assert json.loads(body)["error"], about


async def asked(service: InProcess, count: int) -> tuple[Counter[int], Memory]:
    key = service.key(scopes=("predict", "adapt", "learn"))
    row = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    answer = await service.asked("/v2/models/signs/infer", {"inputs": [row]}, key=key)
    request_id = answer.json()["parameters"]["request_id"]
    statuses, memory, slowest = Counter[int](), Memory(), 0.0
    for seed in range(count):
        asking = mutated_request(random.Random(seed), request_id)
        began = time.perf_counter()
        answer = await service.asked(asking.path, asking.body, key=key, method="POST", **asking.headers)
        slowest = max(slowest, time.perf_counter() - began)
        check(answer.status, answer.body, asking, seed)
        statuses[answer.status] += 1
        service.log.clear()
        if seed % max(1, count // SAMPLES) == 0:
            memory.note(seed)
            say(f"{seed} of {count}: {memory.samples[-1][1]:.0f} MiB")
    assert slowest < LONGEST
    return statuses, memory


def test_wrong_requests_in_process_are_refused_and_nothing_else(service: InProcess) -> None:
    statuses, _ = service.run(asked(service, 800))
    assert statuses[400] > 300, "most are wrong"
    assert statuses[200] > 30, "and some are not"


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_very_many_wrong_requests_in_process(service: InProcess) -> None:
    statuses, memory = service.run(asked(service, COUNT))
    growth = memory.growth()
    say(f"{COUNT} in process: {dict(statuses)}, {memory.samples[-1][1]:.0f} MiB, {growth:+.2f} MiB in the second half")
    assert growth < MOST_GROWTH, memory.samples


class _Client:
    """Sends on a connection that is kept while its requests are whole."""

    def __init__(self, port: int, key: str) -> None:
        self._port, self._key = port, key
        self._open: socket.socket | None = None

    def whole(self, asking: Asking) -> bytes:
        path = asking.path.encode("utf-8").replace(b" ", b"%20")
        lines = [b"POST " + path + b" HTTP/1.1", b"host: 127.0.0.1", f"authorization: Bearer {self._key}".encode()]
        lines += [f"{name.replace('_', '-')}: {value}".encode() for name, value in asking.headers.items()]
        return b"\r\n".join([*lines, b"content-length: %d" % len(asking.body)]) + b"\r\n\r\n" + asking.body

    def ask(self, content: bytes) -> tuple[int, bytes]:
        """The status and the body, on the connection that is kept."""
        if self._open is None:
            self._open = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        self._open.sendall(content)
        with self._open.makefile("rb") as file:
            status, length, closes = int(file.readline().split()[1]), 0, False
            while (line := file.readline()) not in (b"\r\n", b""):
                name, _, value = line.lower().partition(b":")
                length = int(value) if name == b"content-length" else length
                closes |= name == b"connection" and b"close" in value
            body = file.read(length)
        if closes:
            self.close()
        return status, body

    def throw(self, content: bytes) -> list[int]:
        """The statuses of what comes until the connection is closed, of bytes after which no more come."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=30) as opened:
            found = b""
            try:
                opened.sendall(content)
                opened.shutdown(socket.SHUT_WR)
                while part := opened.recv(1 << 16):
                    found += part
            except ConnectionError:  # it was closed while something was still sent
                return []
        return [int(part[:3]) for part in found.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


def sent(port: int, key: str, count: int, *workers: int) -> tuple[Counter[int], Memory]:
    """The statuses of the answers to so many requests, and the memory of processes meanwhile."""
    client, slowest = _Client(port, key), 0.0
    inputs = [{"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]
    right = client.whole(Asking("/v2/models/signs/infer", json.dumps({"inputs": inputs}).encode(), {}))
    request_id = json.loads(client.ask(right)[1])["parameters"]["request_id"]
    statuses, memory = Counter[int](), Memory(*workers)
    for seed in range(count):
        rng = random.Random(seed)
        asking = mutated_request(rng, request_id)
        whole = client.whole(asking)
        began = time.perf_counter()
        if rng.random() < 0.2:
            found = client.throw(mutated_head(whole, rng))
            assert all(status < 500 for status in found), f"seed {seed}: {found}"
            statuses.update(found)
        elif any(each in asking.path for each in "?;é") or not all(each.isascii() for each in asking.headers.values()):
            statuses.update(client.throw(whole))
        else:
            status, body = client.ask(whole)
            check(status, body, asking, seed)
            statuses[status] += 1
        slowest = max(slowest, time.perf_counter() - began)
        if seed % max(1, count // SAMPLES) == 0:
            memory.note(seed)
            say(f"{seed} of {count}: {memory.samples[-1][1]:.0f} MiB")
    assert client.ask(right)[0] == 200, "it goes on"
    client.close()
    assert slowest < LONGEST
    return statuses, memory


@pytest.mark.slow
def test_wrong_requests_over_loopback_are_refused_and_nothing_else(tmp_path: Path) -> None:
    with listening(tmp_path) as service:
        statuses, _ = sent(service.port, service.key, 250)
    assert statuses[400] > 50
    assert statuses[200] > 5


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_very_many_wrong_requests_over_loopback(served: Served) -> None:
    children = psutil.Process(served.process.pid).children()
    workers = [each.pid for each in children if "mapsto.service.worker" in each.cmdline()]
    statuses, memory = sent(int(served.url.rpartition(":")[2]), served.key, COUNT // 10, *workers)
    assert [each.pid for each in psutil.Process(served.process.pid).children()] == [each.pid for each in children]
    growth = memory.growth()
    say(
        f"{COUNT // 10} over loopback: {dict(statuses)}, {memory.samples[-1][1]:.0f} MiB, {growth:+.2f} MiB in the second half"
    )
    assert growth < MOST_GROWTH, memory.samples

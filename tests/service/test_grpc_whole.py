"""gRPC of a service that runs: several workers, packages that are loaded again, an end and a flood, and no request lost in any."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("grpc", reason="the extra grpc is not installed")

import grpc.aio

from tests.cli.packages import linear_package
from tests.command import mapsto
from tests.service.served import Served, serving
from tests.service.test_grpc import INFER, typed

pytestmark = pytest.mark.slow


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    words = (tmp_path / "signs", "--grpc-port", 0, "--workers", 2, "--log", "requests", "--learn", "none")
    with serving(*words, "--admin", "--most-wait", 0.25, folder=tmp_path) as served:
        yield served


class Asking:
    """Clients with a connection each, of which each asks again as soon as it has its answer."""

    def __init__(self, service: Served, clients: int) -> None:
        self._service, self._clients = service, clients
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.ends = False

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Asking]:
        tasks = [asyncio.create_task(self._ask()) for _ in range(self._clients)]
        try:
            yield self
        finally:
            self.ends = True
            await asyncio.gather(*tasks)

    async def _ask(self) -> None:
        content = typed([[1.0, 0, 0]]).SerializeToString()
        metadata = (("authorization", f"Bearer {self._service.key}"),)
        alone = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(self._service.grpc, options=alone) as channel:
            call = channel.unary_unary(INFER)
            while not self.ends:
                began = time.monotonic()
                try:
                    await call(content, metadata=metadata, timeout=20)
                    self.statuses["OK"] += 1
                    self.seconds.append(time.monotonic() - began)
                except grpc.aio.AioRpcError as error:
                    self.statuses[error.code().name] += 1
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        return


def replaced(folder: Path, weight: list[list[float]]) -> None:
    """Another package stands in the folder."""
    other = folder.with_name("other")
    linear_package(other, weight, ("low", "high"))
    shutil.rmtree(folder)
    other.rename(folder)


def logged(service: Served) -> list[dict[str, Any]]:
    lines = (service.folder / "serve.log").read_text().splitlines()
    rows = [json.loads(line) for line in lines if line.startswith('{"time"')]
    return [row for row in rows if row["action"] == "infer"]


def workers(service: Served) -> dict[int, float]:
    import psutil

    children = psutil.Process(service.process.pid).children()
    return {
        each.pid: sum(each.cpu_times()[:2]) for each in children if "mapsto.service.worker" in " ".join(each.cmdline())
    }


def test_a_reload_loses_no_request(service: Served) -> None:
    async def work() -> Asking:
        asking = Asking(service, 8)
        async with asking.running():
            for number in range(4):
                await asyncio.sleep(0.7)
                weight = [[1.0 + number, 0.0, 0.0], [-1.0, 0.0, 0.0]]
                await asyncio.to_thread(replaced, service.folder / "signs", weight)
                service.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(1.0)
        return asking

    before = workers(service)
    asking = asyncio.run(work())
    assert set(asking.statuses) == {"OK"}, asking.statuses
    assert asking.statuses["OK"] > 100
    text = (service.folder / "serve.log").read_text()
    assert "'signs' is loaded again" in text
    after = workers(service)
    assert len(before) == 2
    assert all(after[pid] > seconds for pid, seconds in before.items()), "both workers answer"


def test_an_end_answers_what_was_begun(service: Served) -> None:
    async def work() -> Asking:
        asking = Asking(service, 8)
        async with asking.running():
            await asyncio.sleep(1.0)
            service.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(service.process.wait, 60) == 0
        return asking

    asking = asyncio.run(work())
    assert set(asking.statuses) <= {"OK", "UNAVAILABLE"}, asking.statuses
    assert asking.statuses["UNAVAILABLE"] <= 8, "one a client, which then has nobody to ask"
    rows = logged(service)
    assert {row["status"] for row in rows} <= {200, 503}
    begun = sum(row["status"] == 200 for row in rows)
    assert begun == asking.statuses["OK"], "whatever was begun came to its client"


def test_a_flood_is_refused_and_not_late(service: Served) -> None:
    async def work(clients: int, seconds: float) -> Asking:
        asking = Asking(service, clients)
        async with asking.running():
            await asyncio.sleep(seconds)
        return asking

    few, many = asyncio.run(work(4, 3.0)), asyncio.run(work(400, 8.0))
    assert set(few.statuses) == {"OK"}
    assert set(many.statuses) <= {"OK", "RESOURCE_EXHAUSTED"}, many.statuses
    assert many.statuses["OK"] > 50
    alive, _ = service.call("/v2/health/ready", key="")
    assert alive == 200
    answered = np.array([row["ms"] for row in logged(service) if row["status"] == 200])
    assert np.quantile(answered, 0.99) < 4 * 250, "within the service; the clients of this process are slower than it"


def test_rest_and_grpc_have_one_limit_and_one_count(service: Served) -> None:
    said = mapsto(
        "keys", "make", "--state", str(service.folder / "state.sqlite"), "--rate", "1", "--burst", "4", code=0
    )
    key = said.out.split()[-1]
    time.sleep(1.5)

    async def ask() -> str:
        async with grpc.aio.insecure_channel(service.grpc) as channel:
            try:
                await channel.unary_unary(INFER)(
                    typed([[1.0, 0, 0]]).SerializeToString(), metadata=(("x-api-key", key),)
                )
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK"

    item = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, 0]}
    http = [service.call("/v2/models/signs/infer", {"inputs": [item]}, key=key)[0] for _ in range(4)]
    over = [asyncio.run(ask()) for _ in range(12)]
    assert "RESOURCE_EXHAUSTED" in over, (http, over)
    time.sleep(1.5)
    status, metrics = service.raw("/metrics")
    assert status == 200
    counts = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("mapsto_requests_total{") and 'route="infer"' in line
    }
    answered = sum(value for name, value in counts.items() if 'status="2xx"' in name)
    assert answered == http.count(200) + over.count("OK")

"""`mapsto serve --ray`: replicas come and go with the load, no request fails, and what one learnt another answers with."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from mapsto.errors import SpecError
from mapsto.recipe.serving import Scale, serving_of
from mapsto.service.state import State
from tests.cli.packages import linear_package
from tests.service.databases import postgresql
from tests.service.network_namespace import network_namespace
from tests.service.served import Served, serving

CLASSES = ("low", "high")
WRONG = [[1.0, 0, 0], [-1, 0, 0]]
"""It answers 'low' where the first number is above 0, and the labels say that this is wrong."""
SCALE = {
    "max_replicas": 2,
    "target_requests": 6.0,
    "look_back": 10.5,
    "upscale_delay": 1.0,
    "downscale_delay": 4.0,
    "cpus": 0.5,
}


def run_of(folder: Path, **scale: Any) -> Path:
    """The folder of a run: a package and the recipe that says how it is served."""
    linear_package(folder / "signs" / "package", WRONG, CLASSES)
    (folder / "signs" / "recipe.yaml").write_text(
        yaml.safe_dump({"schema": 1, "steps": [], "serve": {"every": 0.5, "scale": scale}})
    )
    return folder / "signs"


def test_how_many_replicas_answer_is_read_from_the_recipe(tmp_path: Path) -> None:
    assert serving_of(run_of(tmp_path, **SCALE)).scale == Scale.model_validate(SCALE)
    assert serving_of(tmp_path).scale.max_replicas == 2


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        ({"min_replicas": 3}, "above max_replicas"),
        ({"look_back": 10.0}, "greater than 10"),
        ({"replicas": 3}, "replicas"),
    ],
)
def test_replicas_that_cannot_be_are_refused(tmp_path: Path, scale: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        serving_of(run_of(tmp_path, **scale))


def test_a_file_is_no_state_for_several_hosts(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `scale` is not installed")
    from mapsto.service.ray_service import RayService
    from mapsto.service.supervisor import Settings

    settings = Settings(state=str(tmp_path / "state.sqlite"), folder=tmp_path / "answers", models={})
    with pytest.raises(SpecError, match="cannot share a file"):
        RayService(settings, Scale(), ray="10.0.0.1:6379", host="127.0.0.1", port=8080)


# --------------------------------------------------------------------------------------------------------------- with Ray itself


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("ray", reason="the extra `scale` is not installed")
    folder = tmp_path_factory.mktemp("ray")
    run = run_of(folder, **SCALE)
    with (
        network_namespace(),
        postgresql() as (url, _),
        serving(run, "--admin", "--ray", "local", folder=folder, state=url, seconds=600) as served,
    ):
        served.said.append(url)
        yield served


class Load:
    """Clients that each ask again as soon as they are answered."""

    def __init__(self, served: Served, ask: Callable[[Load, Any, int, int], None]) -> None:
        self._served, self._ask = served, ask
        self.ended = threading.Event()
        self.answered = Counter[str]()
        """By replica."""
        self.failed: list[str] = []
        self._threads: list[threading.Thread] = []

    def begin(self, clients: int) -> Load:
        for number in range(clients):
            self._threads.append(threading.Thread(target=self._work, args=(number,)))
            self._threads[-1].start()
        return self

    def end(self) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join()

    def post(self, connection: Any, path: str, body: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self._served.key}", "Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read().decode()
        return answer.status, json.loads(content) if content.startswith("{") else content

    def _work(self, number: int) -> None:
        address = self._served.url.removeprefix("http://")
        connection, count = http.client.HTTPConnection(address, timeout=60), 0
        while not self.ended.is_set():
            try:
                self._ask(self, connection, number, count)
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection.close()
            count += 1
        connection.close()


def item(row: list[float]) -> dict[str, Any]:
    return {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": row}


def infer(load: Load, connection: Any, number: int, count: int) -> None:
    status, said = load.post(connection, "/v2/models/signs/infer", {"inputs": [item([1.0, 0.5, -0.5])]})
    if status == 200:
        load.answered[said["parameters"]["request_id"][:2]] += 1
    else:
        load.failed.append(f"{status} {said}")


def wait(until: Callable[[], bool], seconds: float, what: str) -> float:
    began = time.monotonic()
    while not until():
        assert time.monotonic() - began < seconds, what
        time.sleep(0.05)
    return time.monotonic() - began


def replicas() -> list[psutil.Process]:
    """The processes of Ray that answer and have begun to: each has a writer."""
    return sorted(
        {parent for each in _modules("mapsto.service.writer") if (parent := each.parent()) is not None},
        key=lambda each: each.pid,
    )


def _modules(name: str) -> list[psutil.Process]:
    own = psutil.Process(os.getpid()).children(recursive=True)
    return [each for each in own if name in _command(each)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def note(figures: dict[str, Any]) -> None:
    """Keep what was measured where a variable names a file."""
    place = os.environ.get("MAPSTO_RAY_FIGURES")
    if place:
        path = Path(place)
        before = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(before | figures))


@pytest.mark.slow
def test_nothing_listens_beyond_the_loopback(service: Served) -> None:
    own = psutil.Process(service.process.pid)
    found: set[str] = set()
    for each in [own, *own.children(recursive=True)]:
        found |= {one.laddr.ip for one in each.net_connections("inet") if one.status == psutil.CONN_LISTEN}
    assert found
    assert found <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
def test_replicas_come_and_go_without_a_failed_request(service: Served) -> None:
    assert len(replicas()) == 1
    alone = Load(service, infer).begin(1)
    busy = Load(service, infer).begin(14)
    up = wait(lambda: len([count for count in busy.answered.values() if count]) == 2, 120, "no second replica answered")
    time.sleep(3)
    busy.end()
    down = wait(lambda: len(replicas()) == 1, 180, "the second replica was not ended")
    time.sleep(2)
    alone.end()
    assert alone.failed == []
    assert busy.failed == []
    assert sum(alone.answered.values()) + sum(busy.answered.values()) > 500
    note({"up": up, "down": down, "requests": sum(alone.answered.values()) + sum(busy.answered.values())})


@pytest.mark.slow
def test_what_one_replica_was_told_the_other_answers_with_and_a_kill_loses_nothing(service: Served) -> None:
    state = State(service.said[-1])
    acknowledged: list[str] = []

    def label(load: Load, connection: Any, number: int, count: int) -> None:
        rng = np.random.default_rng((number, count))
        row, event = [float(value) for value in rng.normal(size=3)], f"{number}-{count}"
        body = {"label": CLASSES[int(row[0] > 0)], "idempotency_key": event, "inputs": [item(row)]}
        status, said = load.post(connection, "/v2/models/signs/feedback", body)
        if status == 200:
            acknowledged.append(said["feedback"][0]["event"])
        else:
            load.failed.append(f"{status} {said}")

    busy = Load(service, infer).begin(14)
    wait(lambda: len(busy.answered) == 2, 120, "no second replica answered")
    taught = Load(service, label).begin(2)
    wait(lambda: state.active("signs").startswith("l-"), 120, "nothing that was learnt proved better")
    version = state.active("signs")
    seen: dict[str, str] = {}

    def both_answer_with_it() -> bool:
        found = service.infer("signs", [[2.0, 0, 0]])
        if found["model_version"] >= version and found["model_version"].startswith("l-"):
            seen[found["parameters"]["request_id"][:2]] = found["outputs"][1]["data"][0]
        return len(seen) == 2

    wait(both_answer_with_it, 60, f"only {list(seen)} answers with {version}")
    assert set(seen.values()) == {"high"}

    learner = _modules("mapsto.service.learner")[0]
    keeper = learner.parent()
    assert keeper in replicas()
    before = state.learner_status("signs")
    assert before is not None
    for each in (keeper, learner):  # the lease is not given back: it runs out
        each.kill()
    killed = time.monotonic()

    def learns_again() -> bool:
        found = state.learner_status("signs")
        own = [each for each in _modules("mapsto.service.learner") if each.pid != learner.pid]
        return bool(own) and found is not None and found[0] > before[0] + 50 and time.monotonic() - killed > 1

    taken_over = wait(learns_again, 120, "nobody learnt on")
    time.sleep(2)
    taught.end()
    busy.end()
    stored: list[str] = []
    last = 0
    while rows := state.feedback("signs", after=last, most=1000):
        stored += [row.event for row in rows]
        last = rows[-1].position
    wait(lambda: (state.learner_status("signs") or (0,))[0] >= last - 20, 60, "the learner did not come to the end")
    assert len(acknowledged) > 100
    assert len(set(stored)) == len(stored)
    assert set(acknowledged) <= set(stored)
    note({"taken_over": taken_over, "labels": len(acknowledged), "failed": len(busy.failed + taught.failed)})
    state.close()


@pytest.mark.slow
def test_it_ends_and_leaves_nothing(service: Served) -> None:
    wait(lambda: len(replicas()) >= 1, 60, "no replica is there")
    own = psutil.Process(service.process.pid).children(recursive=True)
    assert service.end() == 0
    assert [each for each in own if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []
    assert "what was acknowledged is kept" in (service.folder / "serve.log").read_text()


@pytest.mark.slow
def test_where_all_of_ray_is_ended_at_once_it_ends_too(tmp_path: Path) -> None:
    """As by a service manager that sends SIGTERM to every process of a group."""
    pytest.importorskip("ray", reason="the extra `scale` is not installed")
    run = run_of(tmp_path)
    with network_namespace(), serving(run, "--ray", "local", folder=tmp_path, seconds=600) as served:
        own = psutil.Process(served.process.pid).children(recursive=True)
        for each in own:
            if each.name() in ("raylet", "gcs_server"):
                each.kill()
        served.process.terminate()
        assert served.process.wait(timeout=150) in (0, 1)
        wait(lambda: not any(each.is_running() and _command(each) for each in own), 120, "a process of Ray's stays")

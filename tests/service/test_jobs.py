"""Adapting that takes seconds is a job: it waits its turn, outlives restarts or says why not, and is its tenant's alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from mapsto.service.client import Client, ServiceError
from mapsto.service.cross_validated_heads import cross_validated
from mapsto.service.fitter import Fitter
from mapsto.service.job_queue import NO_ROOM, RESTARTED, Job, JobQueue
from mapsto.service.state import State, VersionRow, jobs_table, tables
from tests.cli.packages import linear_package
from tests.service.databases import postgresql
from tests.service.in_process import InProcess, started
from tests.service.served import serving

ADAPT = "/v2/models/signs/adapt"


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql() as (url, _):
        yield url


@pytest.fixture(params=["SQLite", pytest.param("PostgreSQL", marks=pytest.mark.slow)])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[State]:
    if request.param == "SQLite":
        opened = State(tmp_path / "state.sqlite")
    else:
        opened = State(request.getfixturevalue("database"))
        with opened.writing() as connection:  # what the test before left
            for table in tables.sorted_tables:
                if table.name != "meta":
                    connection.execute(table.delete())
    yield opened
    opened.close()


def job(id_: str, tenant: str = "t", **more: Any) -> Job:
    return Job(id=id_, model="m", tenant=tenant, way="logistic", shared=False, package="p", content=b"x", **more)


def row(name: str, owner: str | None = "t") -> VersionRow:
    return VersionRow(model="m", version=name, kind="adapted", parent="1", package="p", content=b"head", owner=owner)


def filled(state: State, *jobs: Job) -> JobQueue:
    queue = JobQueue(state)
    for each in jobs:
        assert queue.submit(each, own=10, all_=100) == ""
    return queue


def taken(queue: JobQueue, seconds: float = 60) -> str:
    found = queue.claim("h", seconds)
    return "" if found is None else found.id


# ------------------------------------------------------------------------------------------------------------- the queue


def test_tenants_take_turns(state: State) -> None:
    queue = filled(state, job("a1", "a"), job("a2", "a"), job("a3", "a"), job("b1", "b"))
    order: list[str] = []
    while found := queue.claim("h", 60):
        order.append(found.id)
        time.sleep(0.002)  # so that the clock tells them apart
    assert order == ["a1", "b1", "a2", "a3"]


def test_the_queue_is_bounded_for_a_tenant_and_for_all(state: State) -> None:
    queue = JobQueue(state)
    given = [queue.submit(job(f"{tenant}{i}", tenant), own=2, all_=3) for tenant in "ab" for i in range(3)]
    assert given == ["", "", "own", "", "all", "all"]
    assert (queue.full("a", own=2, all_=9), queue.full("b", own=2, all_=3), queue.full("b", own=2, all_=4)) == (
        "own",
        "all",
        "",
    )
    first = queue.claim("h", 60)
    assert first is not None
    queue.fail(first, "h", "no")
    assert queue.submit(job("a9", "a"), own=2, all_=3) == "", "one that has ended takes no place"


def test_a_job_is_its_tenants_alone(state: State) -> None:
    queue = filled(state, job("x"))
    assert queue.find("m", "x", tenant="t") is not None
    assert (queue.find("m", "x", tenant="u"), queue.find("n", "x", tenant="t")) == (None, None)


def test_a_job_whose_process_was_killed_is_taken_up_once_more_and_then_fails(state: State) -> None:
    queue = filled(state, job("x"))
    assert [taken(queue, -1), taken(queue, -1), taken(queue, -1)] == ["x", "x", ""]
    found = queue.find("m", "x", tenant="t")
    assert found is not None
    assert (found.state, found.note) == ("failed", RESTARTED)
    assert "the service was restarted" in RESTARTED


def test_a_job_that_is_given_back_counts_as_not_begun(state: State) -> None:
    queue = filled(state, job("x"))
    for _ in range(4):
        found = queue.claim("h", 60)
        assert found is not None
        assert queue.give_back(found, "h")
    assert queue.counts() == {("m", "queued"): 1}


def test_only_who_holds_a_job_ends_it(state: State) -> None:
    queue = filled(state, job("x"))
    late = queue.claim("killed", -1)
    found = queue.claim("h", 60)
    assert late is not None
    assert found is not None
    assert not queue.renew(late, "killed", 60)
    assert not queue.finish(late, "killed", row("a-late"), most=9, note="")
    assert queue.renew(found, "h", 60)
    assert queue.finish(found, "h", row("a-1"), most=9, note="why")
    assert [each.version for each in state.versions("m")] == ["a-1"]
    done = queue.find("m", "x", tenant="t")
    assert done is not None
    assert (done.state, done.version, done.note) == ("done", "a-1", "why")


def test_the_version_of_a_job_makes_room_for_itself(state: State) -> None:
    queue = filled(state, job("x"), job("y"))
    state.add_version(row("a-old"))
    first = queue.claim("h", 60)
    assert first is not None
    assert queue.finish(first, "h", row("a-new"), most=1, note="")
    ended = queue.find("m", "x", tenant="t")
    assert ended is not None
    assert (ended.dropped, [each.version for each in state.versions("m")]) == (("a-old",), ["a-new"])
    state.promote("m", "a-new", read="", why="")
    second = queue.claim("h", 60)
    assert second is not None
    queue.finish(second, "h", row("a-no"), most=1, note="")
    failed = queue.find("m", "y", tenant="t")
    assert failed is not None
    assert (failed.state, failed.note) == ("failed", NO_ROOM)


def test_jobs_that_ended_are_forgotten_after_a_day(state: State) -> None:
    queue = filled(state, job("old"), job("new"))
    for _ in range(2):
        found = queue.claim("h", 60)
        assert found is not None
        queue.fail(found, "h", "no")
    with state.writing() as connection:
        old = jobs_table.update().where(jobs_table.c.id == "old")
        connection.execute(old.values(changed=time.time() - 90_000))
    filled(state, job("next"))
    assert [queue.find("m", each, tenant="t") is not None for each in ("old", "new", "next")] == [False, True, True]


# -------------------------------------------------------------------------------------------------------------- the heads


def test_the_best_head_tells_classes_apart_and_is_always_the_same() -> None:
    rng = np.random.default_rng(0)
    numbers = np.arange(30) % 3
    features = (rng.normal(size=(30, 8)) + 5 * np.eye(3, 8)[numbers]).astype(np.float32)
    head, why = cross_validated(features, numbers, ("x", "y", "z"), "best")
    again, _ = cross_validated(features, numbers, ("x", "y", "z"), "best")
    new = (rng.normal(size=(300, 8)) + 5 * np.eye(3, 8)[np.arange(300) % 3]).astype(np.float32)
    assert (head.scores(new).argmax(1) == np.arange(300) % 3).mean() > 0.9
    np.testing.assert_array_equal(head.last, again.last)
    assert "of held-out examples" in why


# ------------------------------------------------------------------------------------------------------------ the service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with started(tmp_path_factory.mktemp("service")) as running:
        yield running


def support(count: int = 12, **parameters: Any) -> dict[str, Any]:
    """Rows that are ``y`` where the second number is above 0, and else ``z``."""
    rows = np.random.default_rng(0).normal(size=(count, 3)).round(3)
    return {
        "inputs": [
            {"name": "input", "datatype": "FP32", "shape": [count, 3], "data": rows.ravel().tolist()},
            {
                "name": "label",
                "datatype": "BYTES",
                "shape": [count],
                "data": ["y" if r > 0 else "z" for r in rows[:, 1]],
            },
        ],
        "parameters": parameters,
    }


def test_a_job_is_polled_until_its_version_is_there(service: InProcess) -> None:
    key, other = service.key(tenant="a"), service.key(tenant="b")
    answer = service.ask(ADAPT, support(way="logistic"), key=key)
    made = answer.json()
    place = answer.headers["location"]
    assert (answer.status, made["state"], made["way"], sorted(made["classes"])) == (
        202,
        "queued",
        "logistic",
        ["y", "z"],
    )
    assert place == f"/v2/models/signs/jobs/{made['job']}"
    assert service.ask(place, key=key).json()["state"] == "queued"
    none = service.ask("/v2/models/signs/jobs/j-0000000000000000", key=other)
    hidden = service.ask(place, key=other)
    assert hidden.status == none.status == 404
    assert hidden.json()["error"].replace(made["job"], "j-0000000000000000") == none.json()["error"]
    assert service.ask(place, key=service.key(scopes=["predict"])).status == 403
    assert Fitter(service.state).step()
    done = service.ask(place, key=key).json()
    assert (done["state"], done["dropped"]) == ("done", [])
    assert "logistic regression" in done["note"]
    question = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [2, 3], "data": [0, 5, 0, 0, -5, 0]}]}
    path = f"/v2/models/signs/versions/{done['model_version']}/infer"
    assert service.ask(path, question, key=key).json()["outputs"][1]["data"] == ["y", "z"]
    assert service.ask(path, question, key=other).status == 404


def test_a_job_that_takes_too_long_or_is_ended_says_so(service: InProcess) -> None:
    key = service.key(tenant="c")
    place = service.ask(ADAPT, support(way="best"), key=key).headers["location"]
    assert Fitter(service.state, ended=lambda: True).step()
    assert service.ask(place, key=key).json()["state"] == "queued", "its process was told to end: it waits again"
    assert Fitter(service.state, seconds=0).step()
    found = service.ask(place, key=key).json()
    assert (found["state"], found["error"]) == ("failed", "it took more than 0 s; give fewer examples or classes")


def test_what_cannot_be_a_job_is_refused_at_once(service: InProcess) -> None:
    key = service.key(tenant="d")
    unknown = service.ask(ADAPT, support(way="magic"), key=key)
    assert (unknown.status, unknown.json()["error"]) == (
        400,
        "there is no way 'magic' to adapt; the ways are ridge, logistic, best",
    )
    one = support(way="logistic")
    one["inputs"][1]["data"] = ["y"] * 12
    assert "fewer than two classes" in service.ask(ADAPT, one, key=key).json()["error"]
    assert service.ask(ADAPT, support(way="logistic", shared=True), key=key).status == 403
    limits = service.service.limits
    object.__setattr__(limits, "job_bytes", 100)
    large = service.ask(ADAPT, support(way="logistic"), key=key)
    object.__setattr__(limits, "job_bytes", 64 << 20)
    assert (large.status, large.json()["error"]) == (
        413,
        "12 examples are too many for a job: at most 8 of this model are taken",
    )
    object.__setattr__(limits, "jobs", 2)
    answers = [service.ask(ADAPT, support(way="logistic"), key=key) for _ in range(3)]
    object.__setattr__(limits, "jobs", 10)
    assert [answer.status for answer in answers] == [202, 202, 429]
    assert answers[2].json()["error"].startswith("2 of your jobs wait or run")
    assert answers[2].headers["retry-after"]


def test_a_job_on_a_package_that_was_replaced_fails(service: InProcess) -> None:
    key = service.key(tenant="e")
    answer = service.ask(ADAPT, support(way="logistic"), key=key)
    with service.state.writing() as connection:
        own = jobs_table.update().where(jobs_table.c.id == answer.json()["job"])
        connection.execute(own.values(package="of before"))
    found = service.ask(answer.headers["location"], key=key).json()
    assert (found["state"], found["error"][:24]) == ("failed", "the package was replaced")


@pytest.mark.slow
def test_jobs_outlive_kills_and_a_restart(tmp_path: Path) -> None:
    linear_package(tmp_path / "signs", np.eye(2, 64), ("low", "high"))
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1500, 64)).round(2)
    labels = [f"c{number}" for number in rng.integers(0, 30, len(rows))]
    with serving(tmp_path / "signs", folder=tmp_path) as served:
        client = Client(served.url, served.key)
        version = client.adapt("signs", rows[:60], labels[:60], way="best")
        assert client.infer("signs", rows[:1], version=version).version == version
        first = client.adapt("signs", rows, labels, way="logistic", wait=None)
        fitting = _fitting(served.process.pid)
        assert fitting.nice() == 19
        fitting.kill()
        with pytest.raises(ServiceError, match="was ended by signal 9"):
            client.wait(first)
        second = client.adapt("signs", rows, labels, way="logistic", wait=None)
        fitter = _fitting(served.process.pid).parent()
        assert fitter is not None
        fitter.kill()
        assert client.wait(second), "the next one takes it up"
        third = client.adapt("signs", rows[:200], labels[:200], way="logistic", wait=None)
        assert served.end() == 0
    (tmp_path / "serve.log").unlink()
    with serving(tmp_path / "signs", folder=tmp_path) as served:
        assert Client(served.url, served.key).wait(third)


def _fitting(supervisor: int) -> psutil.Process:
    """The process that fits a job of a service."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for process in psutil.Process(supervisor).children(recursive=True):
            try:
                line, age = process.cmdline(), time.time() - process.create_time()
            except psutil.NoSuchProcess:
                continue
            if "mapsto.service.fitting" in line and age > 0.5 and process.nice() == 19:
                return process
        time.sleep(0.05)
    raise AssertionError("no job is fitted")

"""The procedures of docs/operations.md, as an operator goes through them: back up, restore, upgrade, roll back, rotate keys."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from mapsto.service.keys import made
from mapsto.service.monitoring import Monitor, files
from mapsto.service.state import State
from tests.cli.packages import linear_package
from tests.command import mapsto
from tests.service.databases import as_server, postgresql
from tests.service.served import Served, serving, until

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
CLASSES = ("low", "high")
WRONG = [[1.0, 0, 0], [-1, 0, 0]]
"""It answers 'low' where the first number is above 0; labels say the opposite."""


def asked(served: Served, row: list[float]) -> tuple[str, str, str]:
    """The label, the version and the request id of an answer."""
    found = served.infer("signs", [row])
    return found["outputs"][1]["data"][0], found["model_version"], found["parameters"]["request_id"]


def label(served: Served, request: str, text: str) -> tuple[int, Any]:
    return served.call("/v2/models/signs/feedback", {"request_id": request, "label": text})


def teach(served: Served, count: int, width: int = 3, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        row = rng.normal(size=width).round(3).tolist()
        status, said = label(served, asked(served, row)[2], CLASSES[int(row[0] > 0)])
        assert status == 200, said


def active(served: Served) -> str:
    return served.call("/v2/models/signs/versions")[1]["active"]


def learnt(served: Served) -> str:
    """The learnt version that answers."""
    return until(lambda: active(served) if active(served).startswith("l-") else "")


def adapted(served: Served) -> str:
    inputs = [
        {"name": "input", "datatype": "FP32", "shape": [2, 3], "data": [[0, 1, 0], [0, 0, 1]]},
        {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["y", "z"]},
    ]
    status, found = served.call("/v2/models/signs/adapt", {"inputs": inputs})
    assert status == 200, found
    return found["model_version"]


def events(place: Path) -> list[str]:
    state = State(place)
    found = [row.event for row in state.feedback("signs", most=100_000)]
    state.close()
    return found


def said(served: Served, text: str) -> str:
    log = served.folder / "serve.log"
    return until(lambda: log.read_text() if text in log.read_text() else "")


# ------------------------------------------------------------------------------------------------ backup and restore, as files


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A state with two keys, and the right to learn of a learner that is gone."""
    state = State(tmp_path / "service" / "state.sqlite")
    made(state, name="kitchen")
    made(state, name="office")
    state.lease("signs", "gone", 3600)
    state.close()
    return tmp_path / "service" / "state.sqlite"


def test_a_copy_is_one_file_and_comes_back(place: Path, tmp_path: Path) -> None:
    copy, other = tmp_path / "copies" / "monday.sqlite", tmp_path / "other" / "state.sqlite"
    assert "0 labels, 0 versions, 2 keys" in mapsto("state", "backup", "--state", place, "--out", copy, code=0).out
    assert [path.name for path in copy.parent.iterdir()] == ["monday.sqlite"]
    assert "there already" in mapsto("state", "backup", "--state", place, "--out", copy, code=2).err
    mapsto("state", "backup", "--state", place, "--out", copy, "--force", code=0)
    done = json.loads(mapsto("state", "restore", "--state", other, "--from", copy, "--json", code=0).out)
    assert done == {"state": str(other), "labels": 0, "versions": 0, "keys": 2}
    assert {row["id"] for row in State(other).all_keys()} == {"kitchen", "office"}
    assert State(other).lease("signs", "new", 60), "the learner of the copy's moment runs no more"


def test_a_state_that_is_there_is_moved_aside_if_that_is_asked_for(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    mapsto("state", "backup", "--state", place, "--out", copy, code=0)
    made(State(place), name="later")
    command = ("state", "restore", "--state", place, "--from", copy)
    assert "with --force it is moved aside" in mapsto(*command, code=2).err
    assert "state.sqlite.replaced" in mapsto(*command, "--force", code=0).err
    for path, names in (
        (place, {"kitchen", "office"}),
        (place.with_name("state.sqlite.replaced"), {"kitchen", "office", "later"}),
    ):
        assert {row["id"] for row in State(path).all_keys()} == names


def test_what_the_program_of_sqlite_copied_is_restored(place: Path, tmp_path: Path) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed")
    subprocess.run(["sqlite3", str(place), f".backup {tmp_path / 'copy.sqlite'}"], check=True)
    mapsto("state", "restore", "--state", tmp_path / "other.sqlite", "--from", tmp_path / "copy.sqlite", code=0)
    assert {row["id"] for row in State(tmp_path / "other.sqlite").all_keys()} == {"kitchen", "office"}


def test_a_damaged_state_is_replaced(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    mapsto("state", "backup", "--state", place, "--out", copy, code=0)
    place.write_bytes(b"no database any more" * 1000)
    assert "cannot be opened" in mapsto("keys", "list", "--state", place, code=2).err
    mapsto("state", "restore", "--state", place, "--from", copy, "--force", code=0)
    assert {row["id"] for row in State(place).all_keys()} == {"kitchen", "office"}


def test_what_is_no_copy_is_refused(place: Path, tmp_path: Path) -> None:
    """And the state that is there stays."""
    damaged, later, other = (tmp_path / f"{name}.sqlite" for name in ("damaged", "later", "other"))
    mapsto("state", "backup", "--state", place, "--out", later, code=0)
    with closing(sqlite3.connect(later)) as opened:
        opened.execute("UPDATE meta SET value = 2 WHERE name = 'format'")
        opened.commit()
    damaged.write_bytes(later.read_bytes()[:5000])
    with closing(sqlite3.connect(other)) as opened:
        opened.execute("CREATE TABLE feedback (x)")
    for path, why in (
        (damaged, "is no state of a service"),
        (later, "of a later mapsto (format 2)"),
        (other, "is no state of a service"),
        (tmp_path / "none.sqlite", "there is no such file"),
    ):
        assert why in mapsto("state", "restore", "--state", place, "--from", path, "--force", code=2).err
        assert len(State(place).all_keys()) == 2
    database = ("--state", "postgresql://me:secret@host/name")
    refused = mapsto("state", "backup", *database, "--out", tmp_path / "copy", code=2).err
    assert ("pg_dump" in refused, "secret" in refused) == (True, False)
    assert (
        "no state of a service yet"
        in mapsto("state", "backup", "--state", tmp_path / "no", "--out", tmp_path / "x", code=2).err
    )


# ------------------------------------------------------------------------------------------------------------ with a service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    linear_package(folder / "signs", WRONG, CLASSES)
    with serving(folder / "signs", "--admin", "--every", 0.2, folder=folder) as served:
        yield served


@pytest.mark.slow
def test_a_copy_made_under_load_holds_what_was_acknowledged_before(service: Served, tmp_path: Path) -> None:
    acknowledged: list[str] = []
    ended = threading.Event()

    def load() -> None:
        rng = np.random.default_rng(1)
        while not ended.is_set():
            request = asked(service, rng.normal(size=3).tolist())[2]
            if label(service, request, "low")[0] == 200:
                acknowledged.append(f"{request}/0")

    thread = threading.Thread(target=load)
    thread.start()
    for number in range(3):
        before = until(lambda number=number: acknowledged[:] if len(acknowledged) > 10 * number else [])
        mapsto(
            "state",
            "backup",
            "--state",
            service.folder / "state.sqlite",
            "--out",
            tmp_path / f"{number}.sqlite",
            code=0,
        )
        stored = events(tmp_path / f"{number}.sqlite")
        assert set(before) <= set(stored)
        assert len(set(stored)) == len(stored)
    ended.set()
    thread.join()


def test_a_state_that_a_service_runs_on_is_not_replaced(service: Served, tmp_path: Path) -> None:
    place = service.folder / "state.sqlite"
    mapsto("state", "backup", "--state", place, "--out", tmp_path / "copy.sqlite", code=0)
    done = mapsto("state", "restore", "--state", place, "--from", tmp_path / "copy.sqlite", "--force", code=2)
    assert "a service runs on it; end that first" in done.err
    assert asked(service, [1, 0, 0])[2]


def test_a_key_is_rotated_while_clients_go_on(service: Served) -> None:
    place = ("--state", service.folder / "state.sqlite")
    old = mapsto("keys", "make", *place, "--name", "kitchen", "--days", 90, code=0).out.strip()
    new = mapsto("keys", "rotate", *place, "--name", "kitchen", "--grace", "7d", code=0).out.strip()

    def statuses() -> list[int]:
        return [service.call("/v2/models/signs", key=key)[0] for key in (old, new)]

    until(lambda: statuses() == [200, 200])
    first, second = (
        row for row in json.loads(mapsto("keys", "list", *place, "--json", code=0).out) if row["name"] == "kitchen"
    )
    assert first["ends"] - time.time() == pytest.approx(7 * 86_400, abs=60)
    assert second["ends"] - time.time() == pytest.approx(90 * 86_400, abs=60)
    text = service.raw("/metrics")[1]
    (ends,) = re.findall(r"^mapsto_key_next_expiry_timestamp_seconds (\S+)$", text, re.MULTILINE)
    assert float(ends) - time.time() == pytest.approx(90 * 86_400, abs=60), "no alert for a key that has a successor"
    newest = mapsto("keys", "rotate", *place, "--name", "kitchen", "--grace", "0", code=0).out.strip()
    until(lambda: statuses() == [401, 401])
    assert service.call("/v2/models/signs", key=newest)[0] == 200
    mapsto("keys", "end", *place, "--name", "kitchen", code=0)
    until(lambda: service.call("/v2/models/signs", key=newest)[0] == 401)


def test_the_process_that_is_told_to_reload_says_its_number(service: Served) -> None:
    (said,) = re.findall(r"^serving .* process (\d+);", (service.folder / "serve.log").read_text(), re.MULTILINE)
    assert int(said) == service.process.pid


@pytest.mark.slow
def test_a_version_that_was_rolled_back_comes_again_if_it_is_better(service: Served) -> None:
    place = ("--state", service.folder / "state.sqlite")
    teach(service, 150, seed=2)
    first = learnt(service)
    mapsto("versions", *place, "--promote", "1", code=0)
    until(lambda: active(service) == "1")
    teach(service, 200, seed=3)
    assert learnt(service) != first


@pytest.mark.slow
def test_it_moves_to_another_machine(tmp_path: Path) -> None:
    """From a copy: what was stored is there, labels for what was answered before are not taken. With its whole folder: they are."""
    home, away, moved = (tmp_path / name for name in ("home", "away", "moved"))
    for folder in (home, away):
        folder.mkdir()
    linear_package(home / "signs", WRONG, CLASSES)
    with serving(home / "signs", "--admin", "--every", 0.2, folder=home) as served:
        teach(served, 150)
        version, own = learnt(served), adapted(served)
        client = mapsto("keys", "make", "--state", home / "state.sqlite", "--name", "kitchen", code=0).out.strip()
        mapsto("state", "backup", "--state", home / "state.sqlite", "--out", tmp_path / "copy.sqlite", code=0)
        request = asked(served, [2, 0, 0])[2]
        assert served.end() == 0
        run = served.key
    shutil.copytree(home, moved)
    shutil.copytree(home / "signs", away / "signs")
    mapsto("state", "restore", "--state", away / "state.sqlite", "--from", tmp_path / "copy.sqlite", code=0)
    for folder, status in ((away, 404), (moved, 200)):
        with serving(folder / "signs", "--every", 0.2, folder=folder) as served:
            assert served.call("/v2/models/signs", key=run)[0] == 401, "the key of the run before"
            served.key = client
            assert asked(served, [2, 0, 0])[:2] == ("high", version)
            item = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [[0, 5, 0]]}
            found = served.call(f"/v2/models/signs/versions/{own}/infer", {"inputs": [item]})[1]
            assert found["outputs"][1]["data"] == ["y"]
            assert label(served, request, "high")[0] == status
            again = {"label": "high", "inputs": [item]}
            assert served.call("/v2/models/signs/feedback", again)[0] == 200
            count = len(events(folder / "state.sqlite"))
            assert count == 151 + (status == 200)


@pytest.mark.slow
def test_a_new_package_and_back(tmp_path: Path) -> None:
    """Versions stand on their package: they wait while another is served, and answer when theirs is again."""
    linear_package(tmp_path / "signs", WRONG, CLASSES)
    shutil.copytree(tmp_path / "signs", tmp_path / "before")
    linear_package(tmp_path / "new", [[1.0, 0, 0, 0], [-1, 0, 0, 0]], CLASSES)
    with serving(tmp_path / "signs", "--admin", "--every", 0.2, folder=tmp_path) as served:
        place = ("--state", tmp_path / "state.sqlite")
        teach(served, 150)
        old, own = learnt(served), adapted(served)
        request = asked(served, [2, 0, 0])[2]

        def replace(source: str, count: int) -> None:
            shutil.rmtree(tmp_path / "signs")
            shutil.copytree(tmp_path / source, tmp_path / "signs")
            served.process.send_signal(signal.SIGHUP)
            until(lambda: (tmp_path / "serve.log").read_text().count("'signs' is loaded again, as package") == count)

        replace("new", 1)
        assert asked(served, [2, 0, 0, 0])[:2] == ("low", "1")
        assert served.call(f"/v2/models/signs/versions/{own}")[0] == 404
        assert label(served, request, "high")[0] == 404
        rows = json.loads(mapsto("versions", *place, "--json", code=0).out)
        assert [row["version"] for row in rows if row["answers"]] == ["1"]
        assert {old, own} < {row["version"] for row in rows}
        assert "stands on the package" in mapsto("versions", *place, "--promote", old, code=2).err
        teach(served, 150, width=4, seed=1)
        new = until(lambda: active(served) if active(served) not in ("1", old) else "")
        assert asked(served, [2, 0, 0, 0])[:2] == ("high", new)
        refused = served.call("/v2/models/signs/rollback", b"")
        assert (refused[0], "stands on another package" in refused[1]["error"]) == (409, True)
        mapsto("versions", *place, "--promote", "1", code=0)
        until(lambda: active(served) == "1")
        replace("before", 2)
        assert active(served) == "1"
        mapsto("versions", *place, "--promote", old, code=0)
        until(lambda: active(served) == old)
        assert asked(served, [2, 0, 0])[:2] == ("high", old)
        assert label(served, request, "high")[0] == 200, "answers of that package are kept"
        for _ in range(6):  # reloading is no failure of the learner
            served.process.send_signal(signal.SIGHUP)
            time.sleep(0.5)
        assert served.call("/v2/health/ready")[0] == 200
        assert served.end() == 0
    log = (tmp_path / "serve.log").read_text()
    assert ("Traceback" in log, "times as soon as" in log) == (False, False)


@pytest.mark.slow
def test_a_state_of_a_later_release_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    linear_package(tmp_path / "signs", WRONG, CLASSES)
    place = tmp_path / "state.sqlite"
    State(place).close()
    with closing(sqlite3.connect(place)) as opened:
        opened.execute("UPDATE meta SET value = 2 WHERE name = 'format'")
        opened.commit()
    command = [sys.executable, "-m", "mapsto", "serve", str(tmp_path / "signs"), "--port", "0", "--state", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "of a later mapsto (format 2)" in done.stderr, done.stdout) == (2, True, "")


@pytest.mark.slow
def test_postgresql_is_dumped_and_restored(tmp_path: Path) -> None:
    """With its own tools, as the page says, into a database of another name."""
    if shutil.which("pg_dump") is None:
        pytest.skip("pg_dump is not installed")
    linear_package(tmp_path / "signs", WRONG, CLASSES)
    with postgresql() as (url, _), ExitStack() as ended:
        other = url.rpartition("/")[0] + "/restored"

        def serve(place: str, folder: Path) -> Any:
            folder.mkdir()
            return serving(tmp_path / "signs", "--admin", "--every", 0.2, folder=folder, state=place)

        with serve(url, tmp_path / "first") as served:
            teach(served, 150)
            version = learnt(served)
            client = mapsto("keys", "make", "--state", url, "--name", "kitchen", code=0).out.strip()
            again = _outage(served)
            ended.callback(again.wait, timeout=30)
            ended.callback(again.terminate)
            commands = re.findall(r"^(?:pg_dump|createdb|pg_restore) .*$", PAGE, re.MULTILINE)
            assert len(commands) == 3
            for command in commands:
                words = command.replace("postgresql://USER@HOST/NAME", url).replace(
                    "postgresql://USER@HOST/OTHER", other
                )
                subprocess.run(words.replace("OTHER", "restored").split(), cwd=tmp_path, check=True)
            assert served.end() == 0
        with serve(other, tmp_path / "second") as served:
            served.key = client
            assert asked(served, [2, 0, 0])[:2] == ("high", version)
            assert len(json.loads(mapsto("feedback", "--state", other, "--json", "--last", 0, code=0).out)) == 1
            assert served.end() == 0


def _outage(served: Served) -> subprocess.Popen[bytes]:
    """While the database is away inference goes on and labels are refused; once it is back all goes on. The database, started again."""
    (server,) = (each for each in psutil.Process().children() if each.name() == "postgres")
    command = server.cmdline()
    request = asked(served, [2, 0, 0])[2]
    server.send_signal(signal.SIGINT)
    server.wait(timeout=30)
    assert asked(served, [2, 0, 0])[0] == "high"
    assert label(served, request, "high")[0] == 503
    assert "mapsto_state_up 0.0" in served.raw("/metrics")[1]
    again = subprocess.Popen([*as_server(), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: label(served, request, "high")[0] == 200)
    until(lambda: "mapsto_state_up 1.0" in served.raw("/metrics")[1])
    assert served.call("/v2/health/ready")[0] == 200
    return again


# ------------------------------------------------------------------------------------------------------------------ the page


def test_the_page_names_every_alert_and_no_other() -> None:
    tree = files(Monitor())["alerts.yml"]
    assert re.findall(r"^\| `(Mapsto\w+)` \|", PAGE, re.MULTILINE) == re.findall(r"alert: (\w+)", tree)


def test_the_page_names_every_procedure() -> None:
    for title in ("Back up", "Restore", "Upgrade", "Roll back", "Rotate and end a key", "read the alerts"):
        assert re.search(rf"^##+ .*{title}", PAGE, re.MULTILINE), title

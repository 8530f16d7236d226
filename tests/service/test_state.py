"""What the service must not lose, as a state holds it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from mapsto.errors import StoreError
from mapsto.service.job_queue import JobQueue
from mapsto.service.state import FeedbackRow, State, VersionRow, tables
from tests.service.databases import postgresql


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql() as (url, _):
        yield url


@pytest.fixture(params=["SQLite", pytest.param("PostgreSQL", marks=pytest.mark.slow)])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[State]:
    if request.param == "SQLite":
        opened = State(tmp_path / "state.sqlite")
    else:
        url = request.getfixturevalue("database")
        opened = State(url)
        with opened.writing() as connection:  # what the test before left
            for table in reversed(tables.sorted_tables):
                connection.execute(table.delete())
        opened.close()
        opened = State(url)
    yield opened
    opened.close()


def label(event: str, text: str = "a", tenant: str = "t") -> FeedbackRow:
    return FeedbackRow(model="m", event=event, tenant=tenant, version="1", label=text, answer="", features=b"1234")


def version(name: str, owner: str | None = None) -> VersionRow:
    return VersionRow(model="m", version=name, kind="adapted", parent="1", package="p", content=b"head", owner=owner)


def test_a_label_is_stored_once(state: State) -> None:
    rows = [label("x"), label("y"), label("x", "b"), label("x", tenant="other"), label("x")]
    first, second, another, third, again = state.append(rows)
    assert (0 < first < second < third, another, again) == (True, 0, first)
    assert [(row.event, row.label, row.tenant) for row in state.feedback("m")] == [
        ("x", "a", "t"),
        ("y", "a", "t"),
        ("x", "a", "other"),
    ]
    assert [row.event for row in state.feedback("m", after=first)] == ["y", "x"]
    assert (state.behind("m", first)[0], state.behind("other", 0)) == (2, (0, None))


def test_it_is_there_after_it_was_opened_again(state: State) -> None:
    state.append([label("x")])
    state.add_version(version("a"))
    again = State(state.url)
    assert [row.event for row in again.feedback("m")] == ["x"]
    assert again.version("m", "a") is not None
    assert again.version("m", "b") is None


def test_a_version_answers_if_the_active_one_is_what_was_read(state: State) -> None:
    assert state.promote("m", "a", read="", why="")
    assert not state.promote("m", "b", read="", why=""), "another was promoted meanwhile"
    assert state.promote("m", "b", read="a", why="")
    assert (state.active("m"), state.active_before("m")) == ("b", "a")


def test_changes_are_counted(state: State) -> None:
    before = state.changes()
    state.add_version(version("a"))
    assert state.changes() > before


def test_one_holder_has_the_lease_until_it_expires(state: State) -> None:
    assert state.lease("m", "first", 60)
    assert state.lease("m", "first", 0.0)
    assert state.lease("m", "second", 60)
    assert not state.lease("m", "first", 60)
    state.release("m", "second")
    assert state.lease("m", "first", 60)


def test_what_was_learnt_is_stored_by_the_holder_alone(state: State) -> None:
    state.lease("m", "first", 60)
    new = version("l-1")
    assert not state.learnt("m", holder="second", position=5, content=b"x", note="", version=new, promoted_from="")
    assert (state.learner("m"), state.active("m"), state.versions("m")) == (None, "", [])
    assert state.learnt("m", holder="first", position=5, content=b"x", note="n", version=new, promoted_from="")
    assert state.learner("m") == (5, "l-1", "n", b"x")
    assert state.active("m") == "l-1"


def test_a_state_of_before_is_taken_over(tmp_path: Path) -> None:
    """It has no column for the package of a label, and no table for what is served."""
    place = tmp_path / "state.sqlite"
    old = State(place)
    old.append([label("x")])
    old.close()
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("ALTER TABLE feedback DROP COLUMN package")
        connection.execute("DROP TABLE packages")
    state = State(place)
    assert [(row.event, row.package) for row in state.feedback("m")] == [("x", "")]
    state.append([replace(label("y"), package="p")])
    assert [row.package for row in state.feedback("m")] == ["", "p"]
    assert state.package("m") == ""


def test_what_is_served_is_known_and_told(state: State) -> None:
    state.set_package("m", "p")
    before = state.changes()
    state.set_package("m", "p")
    assert state.changes() == before
    state.set_package("m", "q")
    assert (state.package("m"), state.package("n"), state.changes() > before) == ("q", "", True)


def test_a_state_of_a_later_mapsto_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "state.sqlite"
    State(place).close()
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("UPDATE meta SET value = 2 WHERE name = 'format'")
        connection.commit()
    with pytest.raises(StoreError, match=r"of a later mapsto \(format 2\)"):
        State(place)


def test_a_state_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken.sqlite").write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(StoreError, match="cannot be opened"):
        State(tmp_path / "broken.sqlite")


def test_a_state_of_before_gets_what_it_lacks(tmp_path: Path) -> None:
    """Its first form had neither jobs nor the index of feedback by model."""
    path = tmp_path / "state.sqlite"
    held = State(path)
    held.append([label("x")])
    held.add_version(version("a"))
    held.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE jobs")
        connection.execute("DROP INDEX feedback_by_model")
    connection.close()
    again = State(path)
    assert [row.event for row in again.feedback("m")] == ["x"]
    assert again.version("m", "a") is not None
    assert JobQueue(again).counts() == {}
    again.close()
    with sqlite3.connect(path) as connection:
        names = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master")}
        connection.execute("UPDATE meta SET value = 99 WHERE name = 'format'")
    connection.close()
    assert {"jobs", "feedback_by_model"} <= names
    with pytest.raises(StoreError, match=r"of a later mapsto \(format 99\); upgrade mapsto"):
        State(path)


def test_a_version_that_is_used_stays_longer(state: State) -> None:
    for name in ("a", "b", "c"):
        state.add_version(version(name, "t"))
    state.add_version(version("of another", "u"))
    assert state.add_version(version("d", "t"), most=3, used=["a"]) == ["b"]
    state.note_use("m", ["c"])
    assert state.add_version(version("e", "t"), most=3) == ["a"]
    assert state.add_version(version("f", "t"), most=2) == ["d", "c"], "fewer may be kept than before"
    assert state.known("m", ["c", "e", "f", "of another"]) == {"e", "f", "of another"}
    assert state.add_version(version("everyone's"), most=1) == []


def test_nothing_of_a_transaction_that_fails_is_stored(state: State) -> None:
    state.add_version(version("a"))
    state.lease("m", "h", 60)
    with pytest.raises(StoreError):
        state.learnt("m", holder="h", position=5, content=b"x", note="", version=version("a"))
    assert state.learner("m") is None


FILLS = """
import resource, sys
from mapsto.errors import StoreError
from mapsto.service.state import FeedbackRow, State
state = State(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
acknowledged = []
try:
    for number in range(10_000):
        row = FeedbackRow(model="m", event=str(number), tenant="t", version="1", label="a", answer="", features=b"x" * 600)
        state.append([row])
        acknowledged.append(number)
except StoreError as error:
    print(len(acknowledged), error)
"""


def test_a_full_disk_is_said_and_nothing_is_acknowledged_that_is_not_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILLS, str(tmp_path / "state.sqlite")], capture_output=True, text=True, check=True
    )
    count, _, said = done.stdout.partition(" ")
    assert "cannot be written" in said
    stored = State(tmp_path / "state.sqlite").feedback("m", most=100_000)
    assert int(count) > 20
    assert [row.event for row in stored] == [str(number) for number in range(int(count))]

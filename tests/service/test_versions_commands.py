"""`mapsto versions` and `mapsto feedback` look into the state of a service."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from mapsto.service.state import FeedbackRow, State, VersionRow
from tests.command import mapsto


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A state with two versions, of which the second answers, and three labels."""
    state = State(tmp_path / "state.sqlite")
    for name, owner in (("a-1", "team"), ("l-1", None), ("l-2", None)):
        state.add_version(
            VersionRow(model="m", version=name, kind="learned", parent="1", package="p", content=b"", owner=owner)
        )
    state.promote("m", "l-1", read="", why="")
    state.promote("m", "l-2", read="l-1", why="")
    for event, version, answer in (("x", "1", "cat"), ("y", "l-1", "cat"), ("z", "l-1", "dog")):
        row = FeedbackRow(
            model="m", event=event, tenant="t", version=version, label="dog", answer=answer, features=b"1234"
        )
        state.append([row])
    state.close()
    return tmp_path / "state.sqlite"


def test_versions_are_listed_and_rolled_back(place: Path) -> None:
    rows = json.loads(mapsto("versions", "--state", place, "--json", code=0).out)
    assert [(row["version"], row["answers"], row["tenant"]) for row in rows] == [
        ("1", False, ""),
        ("a-1", False, "team"),
        ("l-1", False, ""),
        ("l-2", True, ""),
    ]
    assert (
        "version l-1 of 'm' answers now, in place of l-2"
        in mapsto("versions", "--state", place, "--rollback", code=0).err
    )
    assert State(place).active("m") == "l-1"
    mapsto("versions", "--state", place, "--promote", "1", code=0)
    assert State(place).active("m") == "1"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--promote", "l-9"], "'m' has no version 'l-9'"),
        (["--promote", "a-1"], "private to the tenant 'team'"),
        (["--promote", "l-1", "--rollback"], "two wishes"),
        (["--model", "n"], "there is no model 'n'"),
    ],
)
def test_a_version_that_may_not_answer_is_refused(place: Path, options: list[str], said: str) -> None:
    assert said in mapsto("versions", "--state", place, *options, code=2).err
    assert State(place).active("m") == "l-2"


def test_a_version_of_another_package_than_is_served_does_not_answer(place: Path) -> None:
    state = State(place)
    state.set_package("m", "q")
    state.close()
    rows = json.loads(mapsto("versions", "--state", place, "--json", code=0).out)
    assert [(row["version"], row["package"], row["answers"]) for row in rows] == [
        ("1", "q", True),
        ("a-1", "p", False),
        ("l-1", "p", False),
        ("l-2", "p", False),
    ]
    for options in (["--rollback"], ["--promote", "l-1"]):
        said = mapsto("versions", "--state", place, *options, code=2).err
        assert "'l-1' stands on the package p, and 'm' is served from q" in said
    mapsto("versions", "--state", place, "--promote", "1", code=0)
    assert State(place).active("m") == "1"


def test_labels_are_shown_and_written(place: Path, tmp_path: Path) -> None:
    (found,) = json.loads(
        mapsto("feedback", "--state", place, "--last", 2, "--out", tmp_path / "labels.csv", "--json", code=0).out
    )
    assert (found["labels"], found["behind"]) == (3, 3)
    assert found["served"] == [
        {"version": "1", "labels": 1, "right, %": 0.0},
        {"version": "l-1", "labels": 2, "right, %": 50.0},
    ]
    assert [row["event"] for row in found["last"]] == ["y", "z"]
    with (tmp_path / "labels.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["dog"] * 3
    assert "dog" in mapsto("feedback", "--state", place, code=0).out


def test_without_a_state_it_says_where_one_comes_from(tmp_path: Path) -> None:
    assert "made when the package is served" in mapsto("versions", "--state", tmp_path / "none.sqlite", code=2).err
    assert "needs the package" in mapsto("feedback", code=2).err

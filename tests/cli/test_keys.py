"""`mapsto keys` makes, lists, rotates and ends keys where `mapsto serve` looks for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.packages import linear_package
from tests.command import mapsto

from mapsto.service.keys import Keys
from mapsto.service.refusal import Refusal
from mapsto.service.state import State, default_state


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))


def test_a_key_is_made_listed_rotated_and_ended(package: Path) -> None:
    done = mapsto("keys", "make", package, "--name", "phone", "--tenant", "a", "--scope", "predict", code=0)
    old = done.out.strip()
    assert "key 'phone' of tenant 'a' may predict" in done.err
    assert old not in done.err
    state = State(default_state(package))
    assert Keys(state).caller(old.encode()).scopes == {"predict"}
    made = json.loads(mapsto("keys", "rotate", package, "--name", "phone", "--grace", "1h", "--json", code=0).out)
    rows = json.loads(mapsto("keys", "list", "--state", default_state(package), "--json", code=0).out)
    assert [(row["name"], row["tenant"], row["valid"]) for row in rows] == [("phone", "a", True)] * 2
    assert rows[0]["ends"] == pytest.approx(rows[0]["created"] + 3600, abs=60)
    assert rows[1] == {name: value for name, value in made.items() if name != "key"}
    listed = mapsto("keys", "list", package, code=0).out
    assert "phone" in listed
    assert old not in listed
    assert mapsto("keys", "end", package, "--name", "phone", code=0).out == "key 'phone' has ended\n"
    keys = Keys(state)
    for key in (old, made["key"]):
        with pytest.raises(Refusal):
            keys.caller(key.encode())
    assert "ended" in mapsto("keys", "list", package, code=0).out


def test_mistakes_are_said(package: Path, tmp_path: Path) -> None:
    assert "there is no state of a service yet" in mapsto("keys", "list", package, code=2).err
    assert "holds no package" in mapsto("keys", "make", tmp_path, code=2).err
    assert "needs the package that is served" in mapsto("keys", "list", code=2).err
    assert "'root' is no scope" in mapsto("keys", "make", package, "--scope", "root", code=2).err
    assert "no valid key 'x'" in mapsto("keys", "end", package, "--name", "x", code=2).err
    assert (
        "not a length of time: 'soon'"
        in mapsto("keys", "rotate", package, "--name", "x", "--grace", "soon", code=2).err
    )

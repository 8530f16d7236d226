"""A key opens what it was made for, until it ends."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapsto.errors import SpecError
from mapsto.service.keys import ORDINARY, SCOPES, Keys, ended, made, made_for_run, rotated
from mapsto.service.refusal import Refusal
from mapsto.service.state import State


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(tmp_path / "state.sqlite")
    yield opened
    opened.close()


def status(keys: Keys, key: str) -> int:
    try:
        keys.caller(key.encode())
    except Refusal as refusal:
        return refusal.status
    return 200


def test_a_key_opens_what_it_was_made_for(state: State) -> None:
    name, key = made(state, name="phone", tenant="a", scopes=["learn", "predict"], rate=5)
    caller = Keys(state).caller(key.encode())
    assert (name, caller.name, caller.tenant, caller.scopes) == ("phone", "phone", "a", {"predict", "learn"})
    assert (caller.rate, caller.burst) == (5, 5)
    with pytest.raises(Refusal) as refused:
        caller.require("adapt")
    assert (refused.value.status, "may learn, predict" in refused.value.text) == (403, True)
    assert len(key) == 50, "32 bytes of randomness and the prefix"
    _, plain = made(state)
    assert Keys(state).caller(plain.encode()).scopes == set(ORDINARY), "no admin by default"


def test_only_the_digest_is_stored(state: State, tmp_path: Path) -> None:
    _, key = made(state)
    assert state.all_keys()[0]["digest"] == hashlib.sha256(key.encode()).digest()
    state.close()
    assert not any(key.encode() in path.read_bytes() for path in tmp_path.iterdir())


def test_a_key_that_is_unknown_or_over_opens_nothing(state: State) -> None:
    for_ever, over = made(state)[1], made(state, days=-1)[1]
    keys = Keys(state)
    assert [status(keys, key) for key in (for_ever, over, for_ever + "x", "", "mapsto_")] == [200, 401, 401, 401, 401]


def test_a_key_ends_while_it_is_in_memory(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    _, key = made(state, days=1)
    keys = Keys(state)
    now = time.time()
    monkeypatch.setattr("mapsto.service.keys.time.time", lambda: now + 86_500)
    assert status(keys, key) == 401


@pytest.mark.parametrize("at", [0.0, None], ids=["long ago", "now"])
def test_an_ended_key_opens_nothing_once_the_keys_are_read_again(state: State, at: float | None) -> None:
    name, key = made(state)
    keys = Keys(state)
    before = state.changes()
    ended(state, name) if at is None else state.end_key(name, at=at)
    assert state.changes() > before, "a service that runs is told"
    keys.refresh()
    assert status(keys, key) == 401


def test_after_a_rotation_both_open_until_the_grace_period_is_over(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, old = made(state, name="phone", tenant="a", scopes=["adapt"], days=30, rate=2, burst=9)
    new = rotated(state, "phone", grace_days=1)
    keys = Keys(state)
    assert keys.caller(old.encode()) == keys.caller(new.encode())
    now = time.time()
    monkeypatch.setattr("mapsto.service.keys.time.time", lambda: now + 86_500)
    assert [status(keys, old), status(keys, new)] == [401, 200]
    first, second = state.all_keys()
    assert second["expires"] - second["created"] == pytest.approx(first["expires"] - first["created"], abs=1)
    newest = rotated(state, "phone", grace_days=0)
    keys.refresh()
    assert [status(keys, key) for key in (old, new, newest)] == [401, 401, 200]


def test_an_end_that_was_earlier_stays(state: State) -> None:
    _, oldest = made(state, name="phone")
    rotated(state, "phone", grace_days=0)
    rotated(state, "phone", grace_days=30)
    assert status(Keys(state), oldest) == 401


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scopes": ["root"]}, "'root' is no scope"),
        ({"scopes": []}, "no scope"),
        ({"name": "a b"}, "'a b' is no name"),
        ({"tenant": "x" * 65}, "is no name"),
        ({"name": "there"}, "there is a key 'there' already"),
        ({"rate": 0.0}, "0 is no number of requests a second"),
        ({"rate": float("nan")}, "nan is no number of requests a second"),
        ({"burst": 3.0}, "--burst"),
    ],
)
def test_what_makes_no_key_is_said(state: State, given: dict[str, object], said: str) -> None:
    made(state, name="there", scopes=SCOPES)
    with pytest.raises(SpecError, match=said):
        made(state, **given)  # type: ignore[arg-type]
    assert len(state.all_keys()) == 1


def test_what_there_is_not_is_not_rotated_or_ended(state: State) -> None:
    made(state, name="phone")
    made(state, name="over", days=-1)
    for name in ("telephone", "over"):
        with pytest.raises(SpecError, match="those that are valid are phone"):
            rotated(state, name, grace_days=1)
    with pytest.raises(SpecError, match="no valid key 'telephone'"):
        ended(state, "telephone")


def test_the_key_of_a_run_is_valid_in_that_run_alone(state: State) -> None:
    run, key = made_for_run(["predict"])
    keys = Keys(state, run)
    assert (keys.caller(key.encode()).name, keys.caller(key.encode()).scopes) == (run.name, {"predict"})
    keys.refresh()
    assert status(keys, key) == 200
    assert state.all_keys() == [], "what is not stored cannot be left behind by a kill"
    assert status(Keys(state), key) == status(Keys(state, made_for_run(["predict"])[0]), key) == 401

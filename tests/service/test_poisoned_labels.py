"""Somebody with one key floods wrong labels: what others are answered stays as good, and an operator undoes what was learnt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.service.distrust import distrust, given_by, position_of, trust
from mapsto.service.heads import VersionHead
from mapsto.service.keys import Caller
from mapsto.service.learner import FeedbackLearner
from mapsto.service.rate_limits import RateLimits
from mapsto.service.refusal import Refusal
from mapsto.service.served_model import ServedModel
from mapsto.service.state import FeedbackRow, State
from tests.cli.packages import linear_package
from tests.command import mapsto
from tests.service.in_process import started

CLASSES = ("low", "high")
WRONG = [[1.0, 0, 0], [-1, 0, 0]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """It answers the opposite of what is right, until it is taught."""
    folder = tmp_path_factory.mktemp("wrong")
    found = ServedModel("m", linear_package(folder / "package", WRONG, CLASSES))
    first = State(folder / "first.sqlite")
    first.append(rows(found, "anna", 60))
    FeedbackLearner(found, first, every=0).step()  # what it imports may take longer than its lease on a busy machine
    return found


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state.sqlite")


def truth(features: Any) -> str:
    return CLASSES[int(features[0] > 0)]


def rows(
    model: ServedModel, caller: str, count: int, *, start: int = 0, wrong: bool = False, scale: float = 1.0
) -> list[FeedbackRow]:
    found: list[FeedbackRow] = []
    for number in range(start, start + count):
        features = scale * np.random.default_rng((len(caller), number)).normal(size=3).astype(np.float32)
        label = CLASSES[1 - CLASSES.index(truth(features))] if wrong else truth(features)
        found.append(
            FeedbackRow(
                model="m",
                event=f"{caller}-{number}",
                tenant="t",
                version="1",
                label=label,
                answer=truth(features),
                features=features.astype(np.float32).tobytes(),
                package=model.digest,
                caller=caller,
            )
        )
    return found


def served(model: ServedModel, state: State) -> float:
    """How many of the others' answers are right, by the version that answers."""
    inputs = np.random.default_rng(99).normal(size=(400, 3)).astype(np.float32)
    row = state.version("m", state.active("m"))
    head = model.own_head() if row is None else VersionHead.of(row.content)
    assert head is not None
    assert head.classes is not None
    found = [head.classes[best] for best in head.scores(inputs).argmax(1)]
    return float(np.mean([label == truth(features) for label, features in zip(found, inputs, strict=True)]))


@pytest.mark.parametrize(
    "scale", [1.0, pytest.param(1e6, marks=pytest.mark.slow)], ids=["as others' inputs are", "far away"]
)
def test_a_flood_of_wrong_labels_of_one_key_does_not_reach_the_others(
    model: ServedModel, state: State, scale: float
) -> None:
    for caller in ("anna", "berta"):
        state.append(rows(model, caller, 60))
    learner = FeedbackLearner(model, state, every=0)
    learner.step()
    before, answers = served(model, state), state.active("m")
    assert answers.startswith("l-"), "what the two taught answers"
    assert before > 0.9
    for start in range(0, 1000, 250):
        state.append(rows(model, "mallory", 250, start=start, wrong=True, scale=scale))
        while learner.step():
            assert served(model, state) > before - 0.03
    note = state.versions("m")[-1].note
    assert "only the labels of t/mallory speak for it" in note, "and it is said who"


def test_labels_of_a_single_key_teach_as_ever_and_it_is_said_whose_they_are(
    model: ServedModel, state: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state.append(rows(model, "anna", 200) + rows(model, "berta", 7))
    learner = FeedbackLearner(model, state, every=0)
    while learner.step():
        continue
    active = state.active("m")
    assert active.startswith("l-")
    (note,) = [each.note for each in state.versions("m") if each.version == active]
    found = re.search(r"(\d+) % of the labels that speak for it are of t/anna", note)
    assert found, note
    assert int(found[1]) > 67
    said = f"the learner of 'm': version {active} answers now, and {found[0]}\n"
    assert capsys.readouterr().err.count(said) == 1
    state.append(rows(model, "anna", 20, start=300))
    learner.step()
    assert state.active("m") == active, "the next is no better, and has another note"
    place = ("--state", str(tmp_path / "state.sqlite"))
    assert found[0] in " ".join(mapsto("versions", *place, "--json", code=0).out.split())
    assert f"version {active} answers: " in (shown := mapsto("feedback", *place, code=0).out)
    assert found[0] in shown


def test_no_one_is_named_where_labels_are_of_several(model: ServedModel, state: State) -> None:
    for caller in ("anna", "berta"):
        state.append(rows(model, caller, 100))
    FeedbackLearner(model, state, every=0).step()
    assert state.active("m").startswith("l-")
    assert not [each for each in state.versions("m") if "speak for it" in each.note]


@pytest.mark.slow
def test_who_fell_silent_does_not_hold_up_the_others_for_ever(
    model: ServedModel, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1e9]
    monkeypatch.setattr("mapsto.service.state.time.time", lambda: now[0])
    state.append(rows(model, "anna", 100))
    learner = FeedbackLearner(model, state, every=0)
    learner.step()
    first = state.active("m")
    state.append(rows(model, "berta", 256, wrong=True))
    learner.step()
    assert state.active("m") == first, "anna says otherwise"
    now[0] += 2 * 86_400
    state.append(rows(model, "berta", 700, start=300, wrong=True))
    while learner.step():
        continue
    assert state.active("m") != first


def poisoned(model: ServedModel, state: State) -> FeedbackLearner:
    """A service that learnt from one key, then for worse from another which nobody spoke against."""
    learner = FeedbackLearner(model, state, every=0)
    state.append(rows(model, "anna", 150))
    while learner.step():
        continue
    state.append(rows(model, "mallory", 1000, wrong=True))
    learner._held = [each for each in learner._held if each.caller != "t/anna"]  # as if she had been silent for long
    while learner.step():
        continue
    assert served(model, state) < 0.5
    return learner


def test_an_operator_undoes_what_a_key_taught(model: ServedModel, state: State) -> None:
    learner = poisoned(model, state)
    worst = state.active("m")
    given = {each.caller: each for each in given_by(state, "m")}
    assert (given["mallory"].labels, given["anna"].labels) == (1000, 150)
    assert given["mallory"].right == 0
    assert given["anna"].right == 150
    ((_, (was, now)),) = distrust(state, "mallory").items()
    assert was == worst
    assert served(model, state) > 0.9, "at once, by the version before the first of the labels"
    assert position_of(now) == 150
    assert state.active_before("m") == "1", "no way leads back"
    assert not [each for each in state.versions("m") if (position_of(each.version) or 0) > 150]
    while learner.step():
        continue
    assert state.learner_status("m") is not None
    state.append(rows(model, "anna", 100, start=1000) + rows(model, "mallory", 100, start=9000, wrong=True))
    while learner.step():
        continue
    assert served(model, state) > 0.9, "it learns on, without those that come from the key since"
    newest = state.version("m", state.versions("m")[-1].version)
    assert newest is not None
    assert int(newest.note.split()[0]) < 250, "labels, and not 1,000"
    assert [each.trusted for each in given_by(state, "m") if each.caller == "mallory"] == [False]


@pytest.mark.slow
def test_what_a_learner_has_in_hand_is_not_stored_once_it_is_undone(model: ServedModel, state: State) -> None:
    learner = poisoned(model, state)
    learner._learnt = 1
    distrust(state, "mallory")
    learner.publish()
    assert served(model, state) > 0.9
    assert not [each for each in state.versions("m") if (position_of(each.version) or 0) > 150]


def test_who_is_trusted_again_is_learnt_from_again(model: ServedModel, state: State) -> None:
    learner = FeedbackLearner(model, state, every=0)
    state.append(rows(model, "anna", 100))
    learner.step()
    assert distrust(state, "anna")
    assert state.active("m") == "1"
    learner.step()
    assert len(state.versions("m")) == 0
    assert trust(state, "anna")
    assert not trust(state, "anna")
    learner.step()
    assert state.active("m").startswith("l-")


def test_each_label_counts_against_the_rate_of_its_key(tmp_path: Path) -> None:
    now = [0.0]
    limits = RateLimits(clock=lambda: now[0])
    with started(tmp_path) as service:
        service.service.charge = lambda caller, more: limits.charge(caller, more) if more > 0 else None
        key = service.key(name="sender", rate=10, burst=10)
        caller = Caller("sender", "default", frozenset(), rate=10, burst=10)
        item = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
        limits.take(caller)
        answer = service.ask(
            "/v2/models/signs/feedback", {"feedback": [{"label": "low", "inputs": [item]}] * 60}, key=key
        )
        assert answer.status == 200
    with pytest.raises(Refusal, match="10 requests a second"):
        limits.take(caller)
    now[0] = 4.9
    with pytest.raises(Refusal):
        limits.take(caller)
    now[0] = 5.2
    limits.take(caller)


@pytest.mark.slow
def test_the_command_line_shows_who_gave_labels_and_undoes_them(model: ServedModel, tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite")
    learner = poisoned(model, state)
    place = ("--state", str(tmp_path / "state.sqlite"))
    assert "mallory" in mapsto("feedback", *place, code=0).out
    done = mapsto("feedback", *place, "--distrust", "mallory", code=0)
    assert "version l-00000150-" in done.err
    for out in (done.out, mapsto("feedback", *place, "--last", "0", code=0).out):
        assert "150 of 1150 labels count, 150 of them not learnt yet" in out
        assert "the learner begins again" in out
        assert "the last learnt version" not in out, "it is gone"
    learner.step()
    assert "the last learnt version: candidate" in mapsto("feedback", *place, code=0).out
    kept = [each.version for each in state.versions("m")]
    mapsto("feedback", *place, "--distrust", "mallory", code=0)
    assert [each.version for each in state.versions("m")] == kept, "said again, it undoes nothing that was learnt since"
    assert served(model, state) > 0.9
    assert "anna, mallory" in mapsto("feedback", *place, "--distrust", "nobody", code=2).err
    assert "count again" in mapsto("feedback", *place, "--count-again", "mallory", code=0).err

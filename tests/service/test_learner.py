"""The learner: better versions answer by themselves, and a learner that is killed goes on as if nothing had been."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from mapsto.service.heads import VersionHead
from mapsto.service.learner import FeedbackLearner, held_back
from mapsto.service.served_model import ServedModel
from mapsto.service.state import ROLLED_BACK, FeedbackRow, State
from tests.cli.packages import linear_package

CLASSES = ("low", "high")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """It answers the opposite of what is right."""
    folder = linear_package(tmp_path_factory.mktemp("wrong") / "package", [[1.0, 0, 0], [-1, 0, 0]], CLASSES)
    return ServedModel("m", folder)


def rows(model: ServedModel, count: int, start: int = 0) -> list[FeedbackRow]:
    found: list[FeedbackRow] = []
    for number in range(start, start + count):
        features = np.random.default_rng(number).normal(size=3).astype(np.float32)
        right = CLASSES[int(features[0] > 0)]
        found.append(
            FeedbackRow(
                model="m",
                event=str(number),
                tenant="t",
                version="1",
                label=right,
                answer="",
                features=features.tobytes(),
                package=model.digest,
            )
        )
    return found


def test_a_version_that_proves_better_answers(model: ServedModel, tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite")
    state.append(rows(model, 150))
    learner = FeedbackLearner(model, state, every=0)
    assert learner.step() == 150
    active = state.active("m")
    (made,) = state.versions("m")
    assert active == made.version
    assert "active 0.0 %" in made.note
    row = state.version("m", active)
    assert row is not None
    head = VersionHead.of(row.content)
    inputs = np.random.default_rng(9).normal(size=(100, 3)).astype(np.float32)
    right = [
        head.classes[best] == CLASSES[int(x[0] > 0)]
        for x, best in zip(inputs, head.scores(inputs).argmax(1), strict=True)
    ]
    assert np.mean(right) > 0.9


def test_what_was_rolled_back_comes_again_only_for_labels_that_came_since(model: ServedModel, tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite")
    state.append(rows(model, 150))
    learner = FeedbackLearner(model, state, every=0)
    learner.step()
    assert state.promote("m", "1", read=state.active("m"), why=f"{ROLLED_BACK} by somebody")
    state.append(rows(model, 20, 150))
    learner.step()
    assert state.active("m") == "1", "of 20 labels about four are held back"
    state.append(rows(model, 100, 170))
    state.release("m", learner._holder)
    FeedbackLearner(model, state, every=0).step()  # the times of labels outlive a learner
    assert state.active("m").startswith("l-00000270")


def test_the_head_answers_as_the_learner_does(model: ServedModel, tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite")
    state.append(rows(model, 60))
    learner = FeedbackLearner(model, state, every=0)
    learner.step()
    (made,) = state.versions("m")
    row = state.version("m", made.version)
    assert row is not None
    head = VersionHead.of(row.content)
    questions = np.random.default_rng(3).normal(size=(20, 3))
    from mapsto.nn.online.dataset_events import unlabelled
    from mapsto.nn.online.encoder import EMBEDDING

    wanted = learner._live.result().open().predict(unlabelled({EMBEDDING: questions}, 20))
    scores = head.scores(questions.astype(np.float32)).astype(np.float64)
    found = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_version_that_is_no_better_does_not_answer(tmp_path: Path) -> None:
    folder = linear_package(tmp_path / "package", [[-1.0, 0, 0], [1, 0, 0]], CLASSES)  # right already
    model = ServedModel("m", folder)
    state = State(tmp_path / "state.sqlite")
    state.append(rows(model, 150))
    FeedbackLearner(model, state, every=0).step()
    assert len(state.versions("m")) == 1
    assert state.active("m") == ""


def test_a_learner_that_is_killed_goes_on_as_if_nothing_had_been(model: ServedModel, tmp_path: Path) -> None:
    whole, cut = State(tmp_path / "whole.sqlite"), State(tmp_path / "cut.sqlite")
    undisturbed = FeedbackLearner(model, whole, every=0)
    for start in range(0, 120, 30):
        whole.append(rows(model, 30, start))
        undisturbed.step()
    for start in range(0, 120, 30):
        cut.append(rows(model, 30, start))
        killed = FeedbackLearner(model, cut, every=3600)  # takes rows, and is gone before it stores anything
        killed._published = float("inf")
        killed.step()
        cut.release("m", killed._holder)
        learner = FeedbackLearner(model, cut, every=0)
        learner.step()
        cut.release("m", learner._holder)
    first, second = whole.learner("m"), cut.learner("m")
    assert first is not None
    assert second is not None
    assert first[0] == second[0] == 120
    heads = [state.version("m", state.learner("m")[1]) for state in (whole, cut)]  # type: ignore[index]
    assert heads[0] is not None
    assert heads[1] is not None
    a, b = (VersionHead.of(row.content) for row in heads if row is not None)
    np.testing.assert_array_equal(a.last, b.last)


def test_while_another_has_the_lease_nothing_is_learnt(model: ServedModel, tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite")
    state.append(rows(model, 40))
    state.lease("m", "another", 15)
    learner = FeedbackLearner(model, state, every=0)
    assert learner.step() == 0
    assert state.versions("m") == []


def test_a_learner_takes_the_labels_of_its_own_package_alone(model: ServedModel, tmp_path: Path) -> None:
    """A new package begins anew with the labels for it; with the one before again, what that had learnt is learnt again."""
    folder = linear_package(
        tmp_path / "package", [[1.0, 0, 0, 0, 0], [-1, 0, 0, 0, 0]], CLASSES
    )  # features of another width
    other = ServedModel("m", folder)
    state = State(tmp_path / "state.sqlite")

    def learnt(served: ServedModel) -> tuple[str, str]:
        learner = FeedbackLearner(served, state, every=0)
        learner.step()
        learner.close()
        made = state.versions("m")[-1]
        assert made.package == served.digest
        return made.version, made.parent

    state.append(rows(model, 150))
    first, _ = learnt(model)
    assert state.active("m") == first
    state.append(
        [
            replace(row, event=f"other {row.event}", features=row.features + bytes(8), package=other.digest)
            for row in rows(model, 60)
        ]
    )
    second, parent = learnt(other)
    assert (parent, state.active("m")) == ("1", second), "the package's own head was the one to beat"
    found = state.learner("m")
    assert found is not None
    assert found[0] == 210
    again, _ = learnt(model)
    heads = [state.version("m", name) for name in (first, again)]
    a, b = (VersionHead.of(row.content) for row in heads if row is not None)
    np.testing.assert_array_equal(a.last, b.last)


def test_labels_are_held_back_by_their_event_alone(model: ServedModel) -> None:
    chosen = [row.event for row in rows(model, 200) if held_back(row)]
    assert chosen == [row.event for row in rows(model, 200) if held_back(row)]
    assert 20 < len(chosen) < 60

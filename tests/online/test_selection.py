"""`online.select`: whom it follows, what it spends, members that join it knowing other classes, and members that it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto import online, streams
from mapsto.context import Context
from mapsto.errors import SpecError, StoreError
from mapsto.kinds import Stream
from mapsto.nn.online.members import member_from
from mapsto.nn.online.selection.halving import Halving
from mapsto.recipe.reader import parse_recipe
from mapsto.recipe.writer import dump

FAST: dict[str, Any] = {"tabular": {"preset": "fast"}}


def prequential(stream: Stream, size: int = 256, **fields: Any) -> tuple[float, Any]:
    """The share of right answers over a stream, and the live learner after it."""
    learner = online.select(stream=stream, **fields).open(None, None, Context(seed=0)).result().open()
    right: list[bool] = []
    for block in stream.open(size=size):
        scores = learner.learn(block)
        names = np.array(learner.signature.classes, object)
        right += (names[scores.argmax(1)] == block.y).tolist()
    return float(np.mean(right)), learner


@pytest.mark.slow
def test_the_mixture_of_all_is_no_worse_than_the_best_member_by_more_than_half_a_point() -> None:
    stream = streams.agrawal(events=3000, functions=(3,))
    alone = []
    for member in ("softmax", FAST):
        name, fields = next(iter(member_from(member).node().items()))
        learner = getattr(online, name)(stream=stream, **fields).open(None, None, Context(seed=0)).result().open()
        right = []
        for block in stream.open(size=256):
            scores = learner.learn(block)
            right += (np.array(learner.signature.classes, object)[scores.argmax(1)] == block.y).tolist()
        alone.append(float(np.mean(right)))
    both, learner = prequential(stream, members=["softmax", FAST])
    assert both > max(alone) - 0.005
    shares = learner.shares()
    assert shares["tabular"] > shares["softmax"]


@pytest.mark.slow
def test_half_of_the_cost_is_half_of_the_cost_and_the_report_says_who_learnt() -> None:
    accuracy, learner = prequential(streams.sea(events=6000), members=["softmax", "mlp", FAST], share=0.5)
    assert accuracy > 0.8
    members, table = learner.tables()
    assert members["rows"][1][1] < 6000
    assert "% of the cost of all members" in table["title"]
    assert [row[0] for row in table["rows"]] == ["softmax", "mlp", "tabular"]
    spent, allowed = learner._chooser._money
    assert spent <= allowed * 1.05


def test_what_rests_longest_is_tried_again_once_enough_was_saved() -> None:
    halving, costs, nothing = Halving(4, share=0.6, seed=0), np.full(4, 200.0), np.zeros(0)
    trials = 0
    for _ in range(600):
        chosen = halving.choose(costs, "", nothing)
        trials += chosen.all()
        halving.learn(chosen, np.array([0.9, 0.8, 0.2, 0.1]), "", nothing)
    assert trials > 2 * 4
    assert halving._money[0] <= halving._money[1]


@pytest.mark.parametrize("how", ["thompson", "linucb"])
def test_a_bandit_gives_most_events_to_the_better_member(how: str) -> None:
    """Nothing linear is right about this rule."""
    stream = streams.rbf(events=1500, speed=0.0)
    accuracy, learner = prequential(stream, members=["softmax", FAST], how=how)
    (_, of_softmax, _), (_, of_tabular, _) = learner.tables()[0]["rows"]
    assert 1500 <= of_softmax + of_tabular < 2000  # all learn the first 200 and every tenth
    assert of_tabular > 2 * of_softmax
    assert accuracy > 0.6


@pytest.mark.slow
def test_blocks_of_any_size_come_to_the_same_with_users_and_with_bandits() -> None:
    stream = streams.agrawal(events=300, label_delay=30)
    for fields in ({"how": "mix", "by": "zipcode"}, {"how": "thompson", "by": "zipcode"}, {"how": "linucb"}):
        made = [prequential_bytes(stream, size, fields) for size in (1, 50, 256)]
        assert made[0] == made[1] == made[2], fields


def prequential_bytes(stream: Stream, size: int, fields: Any) -> tuple[str, list[bytes]]:
    mapping = online.select(stream=stream, members=["softmax", {"prototypes": {"covariance": "none"}}], **fields)
    live = mapping.open(None, None, Context(seed=0))
    for block in stream.open(size=size):
        live.advance(block)
    model = live.result()
    return str(model.values), [array.tobytes() for _, array in sorted(model.arrays.items())]


def test_who_is_followed_is_learnt_for_each_user(tmp_path: Path) -> None:
    """Of two users one's labels are linear in the columns, the other's are not."""
    rng = np.random.default_rng(0)
    text = ["who,a,b,y"]
    for event in range(1600):
        a, b = rng.normal(size=2)
        y = a + b > 0 if event % 2 else a * b > 0
        text.append(f"{'line' if event % 2 else 'cross'},{a},{b},{'yes' if y else 'no'}")
    (tmp_path / "users.csv").write_text("\n".join(text) + "\n")
    stream = streams.csv(file=str(tmp_path / "users.csv"), target="y")
    members = [{"softmax": {}}, {"mlp": {"replay": 2}}]
    alike, _ = prequential(stream, members=members)
    by_user, learner = prequential(stream, members=members, by="who")
    assert by_user > alike - 0.01
    assert set(learner._users) == {"line", "cross"}


def test_a_column_of_users_that_is_not_there_is_said() -> None:
    _, learner = prequential(streams.agrawal(events=100), members=["softmax", "prototypes"], by="nobody")
    assert "no column 'nobody'" in learner.doubts[-1]


def test_values_are_mixed_too_and_by_default_of_those_that_learn_values() -> None:
    model = online.select(stream=streams.friedman(events=1200), every=400)(None)
    learner = model.open()
    assert learner.names == ["tabular, preset fast", "tabular"]
    block = next(streams.friedman(events=50, seed=3).open())
    answers = learner.predict(block)[:, 0]
    assert np.abs(answers - block.y).mean() < np.abs(block.y - block.y.mean()).mean()


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (["softmax"], "nothing to choose among one"),
        (["softmax", "sofmax"], "there is no learner 'sofmax'"),
        (["softmax", {"mlp": {"hiden": 3}}], "hiden"),
        (["softmax", {"mlp": {"stream": {"sea": {}}}}], "'stream' is of the whole"),
        (["softmax", {"mlp": {"hidden": 0}}], "hidden"),
        ("softmax", "a list of learners"),
        (["softmax", 3], "a learner is its name"),
    ],
)
def test_members_that_are_none_are_refused_by_name(members: Any, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        online.select(stream=streams.sea(), members=members)
    assert said in str(caught.value)


def test_a_member_that_cannot_learn_the_labels_is_refused() -> None:
    with pytest.raises(SpecError, match=r"online\.softmax does not learn numbers"):
        online.select(stream=streams.friedman(events=10), members=["softmax", FAST])(None)


def test_members_are_written_as_they_are_read_and_decide_the_key() -> None:
    given = online.select(stream=streams.sea(events=10), members=["softmax", FAST])
    text = dump(given)
    assert "softmax: {}" in text
    assert parse_recipe(text).steps == given


def test_a_model_whose_member_has_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = online.select(stream=streams.sea(events=100), members=["softmax", "prototypes"])(None)
    monkeypatch.setattr(online.softmax, "version", 99)
    with pytest.raises(StoreError, match=r"online\.softmax was of version"):
        model.open()


def test_a_word_among_numbers_moves_no_other_events_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [[*rng.normal(size=2), "yes" if rng.random() < 0.5 else "no"] for _ in range(200)]
    rows[120][0] = "word"
    text = "\n".join(",".join(map(str, row)) for row in [["a", "b", "y"], *rows])
    (tmp_path / "t.csv").write_text(text + "\n")
    stream = streams.csv(file=str(tmp_path / "t.csv"), target="y")
    for fields in ({"how": "linucb"}, {"by": "a"}):
        made = [prequential_bytes(stream, size, fields) for size in (1, 7, 200)]
        assert made[0] == made[1] == made[2], fields


@pytest.mark.slow
def test_labels_that_come_late_are_learnt_by_whoever_was_asked_and_for_whom() -> None:
    stream = streams.agrawal(events=700, label_delay=100)
    for fields in ({"share": 0.3, "by": "zipcode"}, {"how": "linucb"}):
        made = online.select(stream=stream, members=["softmax", "mlp", FAST], **fields)
        live = made.open(None, None, Context(seed=0))
        for block in stream.open(size=256):
            live.advance(block)
        assert live.account()["aside"] == {}
        learner = live._learner
        if "by" in fields:
            assert len(learner._users) == 9
        else:  # contexts are those of the questions, and not of the labels, which have none
            assert learner._chooser._a[:, 1:, 1:].max() > 3


def test_bounds_of_the_whole_are_those_of_its_members() -> None:
    made = online.select(stream=streams.sea(events=300, label_delay=290), members=["softmax", "prototypes"], late=20)
    assert made(None).values["aside"]["a label of an unknown id"] > 250


def test_a_model_goes_on_with_its_own_members_alone() -> None:
    model = online.select(stream=streams.sea(events=60), members=["softmax", "prototypes"])(None)
    again = online.select(stream=streams.sea(events=60, seed=1), members=["softmax", "prototypes"], share=0.6)(model)
    assert again.events == 120
    for fields in ({"members": ["prototypes", "softmax"]}, {"members": ["softmax", "prototypes"], "how": "linucb"}):
        with pytest.raises(SpecError, match=r"the model has learnt with another"):
            online.select(stream=streams.sea(events=60, seed=1), **fields)(model)

"""`online.recommend`: ratings and clicks, users and items that are new, odd or given up, and what the report says of them."""

import dataclasses
import math
from functools import partial

import numpy as np
import pytest

from mapsto import streams
from mapsto.context import Context
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Block
from mapsto.mappings.online.recommend import Recommend
from mapsto.testing.streams import check_learner


def ran(stream, **fields):
    """The model and the account of a whole stream."""
    mapping = Recommend(stream=stream, **fields)
    live = mapping.open(None, None, Context(seed=0))
    for block in stream.open():
        live.advance(block)
    return live.result(), live.account()


def asked(users, items=None, labels=None, ids=None, **columns):
    """A block of events."""
    count = len(users)
    x = {"user": np.array(users, object), **columns}
    if items is not None:
        x["item"] = np.array(items, object)
    kind = object if labels is not None and isinstance(labels[0], str) else np.float64
    return Block(
        times=np.arange(float(count)),
        ids=np.array(ids if ids is not None else [""] * count, object),
        x=x,
        has_x=np.ones(count, np.bool_),
        y=np.zeros(count) if labels is None else np.array(labels, kind),
        has_y=np.full(count, labels is not None),
        next=count,
    )


@pytest.fixture(scope="module")
def rated():
    return ran(streams.tastes(events=4000, users=150, items=80, factors=2, seed=7))


def test_answer_beats_its_best_member_and_the_mean(rated):
    _, account = rated
    (_, members, *_) = account["tables"]
    figures = {row[0]: row[1] for row in members["rows"]}
    assert account["figures"]["rmse"] == pytest.approx(
        figures["the answer"], abs=0.01
    )  # that counts the first answer, too
    assert figures["the answer"] < min(figures[name] for name in ("baseline", "factors", "neural")) + 0.002
    assert figures["the answer"] < 0.95 * account["baselines"]["mean"]
    assert 0 < account["figures"]["ndcg"] < account["figures"]["hit_rate"] / 100 < 1


def test_recommended_leaves_out_what_the_user_has_had(rated):
    learner = rated[0].open()
    had = {event["item"] for event in events(streams.tastes(events=4000, users=150, items=80, factors=2, seed=7), "u1")}
    best = learner.recommended("u1", 100)
    assert not had & {item for item, _ in best}
    assert len(best) + len(had) == len(learner.recommended("u1", 100, had=True))
    assert np.mean([worth for _, worth in best[:10]]) > np.mean([worth for _, worth in best[-10:]]) + 0.5
    assert len(learner.recommended("nobody", 5)) == 5


def test_a_ranking_is_in_the_order_of_its_bound_and_within_the_scale():
    learner = Recommend._learner(Recommend.completed({}), {}, "values")
    rng = np.random.default_rng(0)
    for _ in range(200):
        user, item = rng.integers(0, [6, 30])
        learner.learn(asked([f"u{user}"], [f"i{item}"], [min(5.0, 4.0 + user % 3)]))
    for user in ("u2", "nobody"):
        rows = [figures for _, figures in learner.ranking(user, 100, had=True)]
        bounds = [least for _, least in rows]
        assert bounds == sorted(bounds, reverse=True)
        assert all(4.0 <= rating <= 5.0 and least <= rating for rating, least in rows)
    assert (learner.knows("u2"), learner.knows("nobody"), learner.knows("")) == (True, False, False)


def test_the_report_says_among_how_many_items_liked_ones_were_ranked():
    _, account = ran(streams.tastes(events=300, users=30, items=6))
    (places,) = [table for table in account["tables"] if table["title"].startswith("Places of liked items")]
    assert places["title"].endswith("so that nearly all are hits")
    assert [row[:2] for row in places["rows"]] == [["the answer", 100.0], ["by chance", 100.0]]
    assert places["rows"][0][1] == account["figures"]["hit_rate"]
    assert places["rows"][0][2] == pytest.approx(account["figures"]["ndcg"])


def events(stream, user):
    for block in stream.open():
        for place in np.flatnonzero(block.x["user"] == user).tolist():
            yield {name: column[place] for name, column in block.x.items()}


def test_numbers_are_names_and_what_is_unknown_gets_the_baseline():
    model, _ = ran(streams.tastes(events=300))
    learner = model.open()
    block = dataclasses.replace(
        asked([196.0, 196.0], [242.0, 3.0], [4.0, 5.0]),
        x={"user": np.array([196.0, 196.0]), "item": np.array([242.0, 3.0])},
    )
    learner.learn(block)
    assert learner.signature.columns[0].categories[-1] == "196"
    unknown, no_item, no_user, nothing = learner.predict(asked(["new", "u1", "", ""], ["new", "", "i1", ""])).ravel()
    assert unknown == nothing
    assert len({no_item, no_user, nothing}) == 3
    assert np.isfinite([unknown, no_item, no_user]).all()


def test_odd_labels_and_items_beyond_the_catalogue_are_set_aside():
    learner = Recommend._learner(Recommend.completed({"catalogue": 2}), {}, "values")
    scores = learner.learn(asked(["a", "a", "b", "b"], ["x", "y", "z", "x"], [4.0, math.nan, 3.0, math.inf]))
    assert np.isnan(scores[1:]).tolist() == [[True], [False], [True]]  # y was not met, so that z has room
    assert learner.aside == {"a rating that is no number: a word, NaN or infinite": 2}
    learner.learn(asked(["a"], ["v"], [1.0]))
    assert learner.aside["an item beyond the 2 that are kept"] == 1


def test_the_user_who_was_idle_longest_is_given_up():
    model, account = ran(streams.tastes(events=500, users=100), most_users=10)
    (_, known, given_up), _ = account["tables"][-1]["rows"]
    assert (known, given_up > 50) == (10, True)
    assert len(model.signature.columns[0].categories) == 10
    learner = model.open()
    learner.learn(asked(["late"], ["i1"], [5.0]))
    assert "late" in learner.signature.columns[0].categories


def test_one_user_and_one_item_of_one_rating():
    learner = Recommend._learner(Recommend.completed({}), {}, "values")
    for _ in range(20):
        scores = learner.learn(asked(["a"], ["x"], [3.0]))
    assert scores.item() == 3.0
    assert learner.recommended("a", 3) == []


def test_a_late_label_is_learnt_with_what_was_answered():
    learner = Recommend._learner(Recommend.completed({}), {}, "values")
    learner.learn(asked(["a", "b"], ["x", "x"], [4.0, 2.0]))
    before = learner.learn(asked(["a"], ["y"], ids=["q"]))
    learner.learn(asked(["a"] * 5, ["z"] * 5, [1.0] * 5))
    told = []
    late = dataclasses.replace(asked([""], [""], [5.0], ids=["q"]), has_x=np.zeros(1, np.bool_))
    learner.learn(late, told.append)
    assert told[0].scores.tolist() == before.tolist()
    learner.learn(late)
    assert learner.aside == {"a label of an unknown id": 1}


def test_columns_are_found_or_asked_for():
    words = {"who": "word", "what": "word"}
    assert Recommend._learner(Recommend.completed({}), words, "values")._names == ("who", "what")
    with pytest.raises(DomainError, match="user and item"):
        Recommend._learner(Recommend.completed({}), {**words, "where": "word"}, "values")
    with pytest.raises(DomainError, match="no column 'whom'"):
        Recommend._learner(Recommend.completed({"user": "whom"}), words, "values")
    with pytest.raises(SpecError, match="clicks"):
        Recommend._learner(Recommend.completed({"members": ("sequence",)}), words, "values")


def test_other_columns_help_ratings():
    rng = np.random.default_rng(0)
    told = {}
    for of_mood in (True, False):
        learner = Recommend._learner(Recommend.completed({}), {}, "values")
        errors = []
        for _ in range(40):
            mood = rng.normal(size=32)
            block = asked(rng.choice(["a", "b", "c"], 32), rng.choice(["x", "y"], 32), (3 + mood).tolist())
            if of_mood:
                block = dataclasses.replace(block, x={**block.x, "mood": mood})
            errors.append(np.abs(learner.learn(block)[:, 0] - block.y).mean())
        told[of_mood] = np.mean(errors[20:])
    assert told[True] < 0.7 * told[False]


def test_clicks_follow_what_the_user_chose_last():
    rng = np.random.default_rng(0)
    learner = Recommend._learner(Recommend.completed({}), {}, "classes")
    at = dict.fromkeys("abcdef", 0)
    hits = []
    for _ in range(600):
        user = rng.choice([*at])
        at[user] = (at[user] + 1) % 30
        told = []
        learner.learn(asked([user], labels=[f"i{at[user]}"]), told.append)
        hits.append(told[0].ranks.item() == 1.0)
    assert np.mean(hits[400:]) > 0.9
    assert [item for item, _ in learner.recommended("a", 1, had=True)] == [f"i{(at['a'] + 1) % 30}"]


@pytest.mark.slow
def test_clicks_keep_the_contract():
    stream = streams.tastes(feedback="clicks", events=300, users=60, items=40, label_delay=20)
    made = Recommend(stream=stream, every=100, factors=4, most_users=30, late=50)
    longer = partial(streams.tastes, feedback="clicks", users=60, items=40)
    object.__setattr__(made, "contract_stream", lambda events: longer(events=events))
    check_learner(made, None, 0)

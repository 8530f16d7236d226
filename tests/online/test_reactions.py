"""`online.react`: drifts are answered, concepts recalled, challengers judged, and a small learner distilled into."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto import datasets, networks, online, streams
from mapsto.context import Context
from mapsto.errors import SpecError
from mapsto.kinds import Stream
from mapsto.nn.online.kept_events import KeptEvents, block_of
from mapsto.store import Store
from mapsto.testing.streams import check_learner

FAST: dict[str, Any] = {"tabular": {"preset": "fast"}}


def turns(functions: tuple[int, ...], turn: int, of_each: int = 2) -> Stream:
    parts = [streams.agrawal(functions=(f,), events=turn * of_each, seed=at) for at, f in enumerate(functions)]
    return streams.drift(streams=tuple(parts), period=turn)


def followed(stream: Stream, **fields: Any) -> tuple[np.ndarray, list[tuple[int, str]], Any]:
    """Which answers were right, what it did after which event, and the learner."""
    learner = online.react(stream=stream, **fields).open(None, None, Context(seed=0)).result().open()
    right, did, seen = [], [], 0
    for block in stream.open(size=64):
        scores = learner.learn(block)
        names = np.array(learner.signature.classes, object)
        right += (names[scores.argmax(1)] == block.y).tolist()
        did += [(seen + event + 1, what) for event, what in learner.happened()]
        seen += len(block)
    return np.array(right), did, learner


def test_the_first_hundred_events_after_a_return_are_better_with_recall() -> None:
    stream = turns((1, 5), 1000)
    found = {}
    for name, reactions in (("with", ["recall"]), ("without", ["warn"])):
        right, _, learner = followed(stream, learner=FAST, reactions=reactions)
        found[name] = np.mean([right[at : at + 100].mean() for at in (2000, 3000)])
    assert found["with"] > found["without"] + 0.05
    assert learner.tables() == []


def test_a_return_is_said_and_the_report_has_the_concepts() -> None:
    _, did, learner = followed(turns((1, 5), 1000), learner=FAST, reactions=["recall"])
    told = [what for _, what in did]
    assert any("concept 2 begins" in what for what in told)
    (back, _), *_ = [(event, what) for event, what in did if "concept 1 is back" in what]
    assert 2000 < back <= 2100
    (table,) = learner.tables()
    assert [row[1] for row in table["rows"]][:3] == ["concept 1", "concept 2", "concept 1"]


def test_a_challenger_takes_over_only_where_it_is_better() -> None:
    """Softmax forgets slowly; a fresh one is better after the rule has turned around, and no better where nothing has changed."""
    there = streams.sea(thresholds=(5.0,), noise=0.0, events=1500)
    opposite = streams.sea(thresholds=(15.0,), noise=0.0, events=1500, seed=1)
    drifting = streams.drift(streams=(there, opposite), at=(1500,))
    _, did, _ = followed(drifting, learner="softmax", challenger=FAST, reactions=["challenge"])
    assert [what.split(":")[0] for _, what in did][:2] == ["tabular challenges it", "challenger took over"]
    _, did, _ = followed(streams.sea(thresholds=(5.0,), events=2000), learner=FAST, reactions=["challenge"])
    assert not any("took over" in what for _, what in did)


def test_what_answers_stays_small_where_the_challenger_is_distilled_into_it() -> None:
    stream = streams.drift(
        streams=(streams.agrawal(functions=(1,), events=1200), streams.agrawal(functions=(3,), events=2500, seed=1)),
        at=(1200,),
    )
    _, did, learner = followed(
        stream, learner={"mlp": {"hidden": 8}}, challenger=FAST, reactions=["distil"], window=100
    )
    told = [what for _, what in did]
    assert any(what.startswith("challenger distilled") for what in told)
    assert any("distilled learner accepted" in what or "distilled learner refused" in what for what in told)
    assert learner._of.short == "mlp"


def test_rates_rise_and_heads_begin_anew() -> None:
    parts = [streams.sea(thresholds=(t,), noise=0.0, events=600, seed=at) for at, t in enumerate((4.0, 15.0))]
    stream = streams.drift(streams=tuple(parts), at=(600,))
    for learner in ("softmax", "mlp"):
        _, did, _ = followed(stream, learner=learner, reactions=["rate", "reset"])
        told = {what for _, what in did}
        assert {"rate raised 10 times", "head reset"} <= told, learner
    _, did, _ = followed(stream, learner="prototypes", reactions=["reset"])
    assert {what for _, what in did} == {"begun anew with the last events"}


def test_labels_that_come_late_are_learnt_and_judge_what_was_said_then() -> None:
    parts = [streams.sea(thresholds=(t,), noise=0.0, events=900, seed=at) for at, t in enumerate((4.0, 15.0))]
    stream = streams.late_labels(stream=streams.drift(streams=tuple(parts), at=(900,)), events=30)
    made = online.react(stream=stream, learner="softmax", challenger=FAST, reactions=["challenge", "recall"], every=300)
    live = made.open(None, None, Context(seed=0))
    for block in stream.open(size=50):
        live.advance(block)
    account = live.account()
    assert account["labels"] == 1800
    assert account["aside"] == {}
    assert any("took over" in mark["what"] for mark in account["marks"])


def test_events_of_words_numbers_and_arrays_are_kept_and_come_back() -> None:
    kept = KeptEvents(3)
    for number in range(5):
        kept.add({"x": float(number), "w": f"word {number}", "image": np.full((1, 2, 2), number, np.uint8)}, "yes")
    other = KeptEvents(3)
    other.restore(kept.arrays(), kept.values())
    block = block_of([x for _, x, _ in other], [y for _, _, y in other], "classes")
    assert block.x["x"].tolist() == [2.0, 3.0, 4.0]
    assert block.x["w"].tolist() == ["word 2", "word 3", "word 4"]
    assert block.x["image"].dtype == np.uint8
    with pytest.raises(ValueError, match="names"):
        other.restore(kept.arrays(), {**kept.values(), "names": ["a"]})


def test_a_damaged_model_is_no_learner() -> None:
    from mapsto.errors import StoreError

    model = online.react(stream=turns((1, 5), 600, of_each=1), learner="softmax")(None)
    concepts = {**model.values["concepts"], "kept": [[9, 1]]}
    values = {**model.values, "concepts": concepts}
    with pytest.raises(StoreError, match=r"not as online\.react makes it"):
        dataclasses.replace(model, values=values).open()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"learner": "nobody"}, "there is no learner 'nobody'"),
        ({"reactions": ["panic"]}, "reactions"),
        ({"detectors": ["ears"]}, "unknown drift detector 'ears'"),
        ({"detectors": []}, "detectors"),
        ({"reactions": []}, "reactions"),
        ({"learner": FAST, "reactions": ["rate"]}, "online.tabular has no rate that could be raised"),
    ],
)
def test_what_there_is_not_is_refused_by_name(fields: Any, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        online.react(stream=streams.sea(events=20), **fields)(None)
    assert said in str(caught.value)


@pytest.mark.parametrize("delay", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_labels_that_come_in_the_segment_of_their_question_are_judged_whatever_the_blocks(delay: int) -> None:
    parts = tuple(streams.sea(thresholds=(t,), noise=0.0, events=200, seed=at) for at, t in enumerate((4.0, 15.0)))
    stream = streams.late_labels(stream=streams.drift(streams=parts, at=(200,)), events=delay)
    made = online.react(stream=stream, learner="softmax", window=32, detectors=["ddm"])
    check_learner(made, None, 0)


def test_columns_that_appear_decide_nothing_by_the_blocks_they_come_in(tmp_path: Path) -> None:
    rng, lines = np.random.default_rng(0), []
    for event in range(300):
        x, z = rng.normal(size=2)
        cells = {
            "x": x,
            **({"z": z} if event > 121 and event % 3 else {}),
            "y": "a" if (x > 0) == (event < 170) else "b",
        }
        lines.append(json.dumps(cells))
    (tmp_path / "e.jsonl").write_text("\n".join(lines) + "\n")
    stream = streams.jsonl(file=str(tmp_path / "e.jsonl"), target="y")
    check_learner(online.react(stream=stream, learner="softmax", window=32), None, 0)


def test_a_model_is_stored_and_opened_whatever_its_detectors_and_the_order_of_fields(tmp_path: Path) -> None:
    store = Store(tmp_path)
    learner = {"softmax": {"rate": 0.3, "late": 50, "categories": 30}}
    for events in (20, 400):
        made = online.react(stream=streams.sea(events=events), learner=learner, detectors=["ddm", "page_hinkley"])
        model = made(None)
        again = store.load(store.save(model))
        block = next(streams.sea(events=8, seed=3).open())
        assert again.open().predict(block).tobytes() == model.open().predict(block).tobytes()


def test_a_challenger_that_cannot_learn_the_labels_is_refused_at_once() -> None:
    with pytest.raises(SpecError, match=r"online\.react: challenger: online\.mlp does not learn numbers"):
        online.react(stream=streams.friedman(events=30), challenger="mlp")(None)


def test_bounds_of_the_whole_are_those_of_its_learners() -> None:
    model = online.react(stream=streams.sea(events=300, label_delay=290), learner="softmax", late=20)(None)
    assert model.values["aside"]["a label of an unknown id"] > 250


def test_a_network_that_trains_learns_faster_for_a_while_or_begins_with_a_new_head() -> None:
    digits = datasets.subset(data=datasets.digits(size=8), per_class=4)
    network = networks.conv4(data=digits, width=8, blocks=2)(seed=0)
    stream = streams.replay(data=digits, order="shuffled")
    made = online.react(stream=stream, learner={"finetune": {"batch": 4, "replay": 4}}, reactions=["rate", "reset"])
    learner = made(network).open()._active
    assert learner.raise_rate(10.0)
    assert learner.arrays()["boost"].tolist() == [10.0]
    learner.learn(next(stream.open(size=8)))
    assert learner.arrays()["boost"].tolist() == pytest.approx([8.1])  # two steps later
    assert learner.reset_head()
    scores = learner.predict(next(stream.open(size=2)))
    assert np.ptp(scores, axis=1).max() < 1e-6

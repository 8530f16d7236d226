"""Values, rates and states that no learner should meet: events are set aside, steps left out, and what does not fit is refused."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto import networks, online, streams
from mapsto.context import Context
from mapsto.errors import SpecError, StoreError
from mapsto.kinds import Block, Model, Network
from mapsto.store import Store
from mapsto.testing.streams import model_digest

LEARNERS: dict[str, dict[str, Any]] = {
    "finetune": {"batch": 5},
    "la_maml": {"batch": 5, "inner_steps": 2},
    "follow_the_meta_leader": {"batch": 5, "steps": 1, "inner_steps": 1},
}
HUGE: dict[str, dict[str, Any]] = {
    "finetune": {"optimizer": "sgd", "rate": 1e39},
    "la_maml": {"inner_rate": 1e20},
    "follow_the_meta_leader": {"inner_rate": 1e30},
}


@pytest.fixture(scope="module")
def network() -> Network:
    return networks.mlp(inputs=2, widths=(6,), classes=2)(seed=0)


def stream(folder: Path, odd: Any = None, events: int = 140, *, more: bool = False) -> Any:
    """Of two numbers, and of a word beside them where `more`; `odd` is the number `b` of event 120."""
    draw = random.Random(0)
    rows: list[dict[str, Any]] = [
        {"a": draw.gauss(0, 1), "b": draw.gauss(0, 1), **({"c": "w"} if more else {}), "y": draw.choice("uv")}
        for _ in range(events)
    ]
    if odd is not None:
        rows[120]["b"] = odd
    file = folder / "events.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return streams.jsonl(file=str(file), target="y")


def learnt(mapping: Any, network: Network | None, size: int = 64) -> tuple[Model, dict[str, Any], Context]:
    context = Context()
    live = mapping.open(network, None, context)
    for block in mapping.stream.open(size=size):
        live.advance(block)
    return live.result(), live.account(), context


@pytest.mark.parametrize(
    ("name", "more"), [*((name, False) for name in LEARNERS), ("softmax", False), ("finetune", True)]
)
def test_a_word_in_a_column_of_numbers_costs_its_event(name: str, more: bool, network: Network, tmp_path: Path) -> None:
    made = getattr(online, name)(stream=stream(tmp_path, "word", more=more), **LEARNERS.get(name, {}))
    found = [learnt(made, network, size) for size in (1, 64)]
    assert [sum(account["aside"].values()) for _, account, _ in found] == [1, 1]
    assert model_digest(found[0][0]) == model_digest(found[1][0])


@pytest.mark.parametrize("name", LEARNERS)
def test_an_endless_number_leaves_all_finite(name: str, network: Network, tmp_path: Path) -> None:
    made = getattr(online, name)(stream=stream(tmp_path, 1e38), **LEARNERS[name])
    (model, account, _), other = learnt(made, network), learnt(made, network, 1)[0]
    assert all(np.isfinite(array).all() for name, array in model.arrays.items() if name != "errors")
    assert model_digest(model) == model_digest(other)
    told = " ".join([*account["aside"], *(each["what"] for each in account["marks"])])
    assert "not finite" in told or name == "follow_the_meta_leader"  # which may never draw the sample again
    store = Store(tmp_path / "store")
    scores = store.load(store.save(model)).open().predict(next(made.stream.open(size=50)))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", HUGE)
def test_steps_of_a_rate_that_is_too_large_are_left_out_and_told(name: str, network: Network, tmp_path: Path) -> None:
    made = getattr(online, name)(stream=stream(tmp_path, events=40), **{**LEARNERS[name], **HUGE[name]})
    model, account, context = learnt(made, network)
    assert any("left out" in text for text in context.warnings)
    assert sum("left out" in each["what"] for each in account["marks"]) == 1
    left_out: Any = model.values["left_out"]
    assert 1 <= left_out <= 8
    assert account["tables"][-1]["rows"][0][1] == left_out
    assert np.isfinite(model.open().predict(next(made.stream.open(size=20)))).all()


def test_a_concept_column_that_is_not_there_is_told(network: Network, tmp_path: Path) -> None:
    made = online.follow_the_meta_leader(
        stream=stream(tmp_path, events=20), concept="place", **LEARNERS["follow_the_meta_leader"]
    )
    warnings = learnt(made, network)[2].warnings
    assert any("no column 'place'" in text and "a, b" in text for text in warnings)


def test_a_member_is_named_once() -> None:
    with pytest.raises(SpecError, match="members: a member is named twice"):
        online.recommend(stream=streams.tastes(events=10), members=("baseline", "baseline"))


def test_damaged_states_are_refused(network: Network, tmp_path: Path) -> None:
    table = learnt(online.softmax(stream=stream(tmp_path, events=40)), None)[0]
    rest = [dataclasses.replace(table, values={**table.values, "inputs": 10**9})]
    arrays = {**table.arrays, "number_inputs": table.arrays["number_inputs"].astype(np.float32)}
    rest.append(dataclasses.replace(table, arrays=arrays))
    made = online.follow_the_meta_leader(stream=stream(tmp_path, events=40), **LEARNERS["follow_the_meta_leader"])
    leader = learnt(made, network)[0]
    rest += [
        dataclasses.replace(leader, arrays={k: a for k, a in leader.arrays.items() if k != name})
        for name in ("moment1.head.weight", "moment0.head.bias", "adapted.head.bias")
    ]
    whole = leader.arrays["adapted.head.weight"].astype(np.int64)
    rest.append(dataclasses.replace(leader, arrays={**leader.arrays, "adapted.head.weight": whole}))
    for model in rest:
        with pytest.raises(StoreError):
            model.open()


def test_arrays_of_endless_numbers_leave_a_network_as_it_was() -> None:
    network = networks.mlp(inputs=3, widths=(4,), classes=2)(seed=0)

    def block(value: float) -> Block:
        there = np.ones(4, np.bool_)
        x = {"v": np.full((4, 3), value, np.float32)}
        y, times, ids = np.array([*"uvuv"], object), np.full(4, np.nan), np.full(4, "", object)
        return Block(times=times, ids=ids, x=x, has_x=there, y=y, has_y=there, next=None)

    for name, fields in LEARNERS.items():
        made = getattr(online, name)(stream=streams.sea(events=5), **{**fields, "batch": 2})
        learner: Any = made.open(network, None, Context())._learner
        learner.learn(block(1e38))
        assert np.isfinite(learner.learn(block(1.0))).all()
        assert all(np.isfinite(array).all() for name, array in learner.arrays().items() if name != "errors")

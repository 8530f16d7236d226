"""River's learners as ours: the same answers as river's own, kept without pickle, and going on to the bit."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mapsto import online, streams
from mapsto.context import Context
from mapsto.errors import MissingExtra, StoreError
from mapsto.nn.online.river_codec import decoded, encoded
from mapsto.testing.streams import model_digest

river = pytest.importorskip("river", reason="extra `online` is not installed")

FIELDS: dict[str, dict[str, Any]] = {
    "hoeffding_tree": {"grace": 50},
    "adaptive_random_forest": {"trees": 3},
    "mondrian_forest": {"trees": 1},
}


def theirs(name: str) -> Any:
    from river import forest, tree

    made: dict[str, Callable[[], Any]] = {
        "hoeffding_tree": lambda: tree.HoeffdingTreeClassifier(grace_period=50, max_depth=20),
        "adaptive_random_forest": lambda: forest.ARFClassifier(n_models=3, max_depth=20, seed=0),
        "mondrian_forest": lambda: forest.AMFClassifier(n_estimators=1, split_pure=True, max_nodes=10_000, seed=0),
    }
    return made[name]()


def sea(events: int, **fields: Any) -> Any:
    return streams.sea(events=events, noise=0.1, **fields)


@pytest.mark.parametrize("name", FIELDS)
def test_answers_are_those_of_river_itself(name: str) -> None:
    block = next(sea(600).open(size=600))
    learner: Any = getattr(online, name)(stream=sea(1), **FIELDS[name]).open(None, None, Context()).result().open()
    scores = learner.learn(block)
    model = theirs(name)
    classes = list(learner.signature.classes)
    for event in range(600):
        x = {place: float(block.x[f"x{place + 1}"][event]) for place in range(3)}
        expected = model.predict_proba_one(x) if event else {}
        if expected and sum(expected.values()) > 0:
            given = np.array([expected.get(place, 0.0) for place in range(2)])
            np.testing.assert_allclose(scores[event][: len(classes)], given / given.sum(), atol=1e-12)
        model.learn_one(x, classes.index(str(block.y[event])))


@pytest.mark.parametrize("name", FIELDS)
def test_a_learner_that_was_stored_goes_on_to_the_bit(name: str) -> None:
    made = getattr(online, name)(
        stream=streams.sea(events=800, noise=0.0, thresholds=(4.0, 16.0), concept=400), **FIELDS[name]
    )
    whole = made(None)
    live = made.open(None, None, Context())
    for block in made.stream.open(size=170):
        live.advance(block)
        live = made.open(None, live.snapshot(), Context())
    assert model_digest(live.result()) == model_digest(whole)
    if name == "adaptive_random_forest":  # it has gone through drift, and has replaced trees
        assert decoded(whole.arrays["river"].tobytes()).n_drifts_detected() > 0


@pytest.mark.slow
def test_a_digest_does_not_depend_on_the_hash_of_strings() -> None:
    code = (
        "from mapsto import online, streams; from mapsto.testing.streams import model_digest;"
        "print(model_digest(online.adaptive_random_forest(stream=streams.sea(events=300), trees=2)(None)))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_only_classes_on_the_list_are_written_and_read() -> None:
    from river import linear_model

    with pytest.raises(ValueError, match=r"LogisticRegression is not on the list"):
        encoded(linear_model.LogisticRegression())
    data = json.loads(encoded(theirs("hoeffding_tree")))
    data["nodes"][0][0] = "Popen"
    with pytest.raises(LookupError):
        decoded(json.dumps(data).encode())


def test_the_bytes_of_another_river_are_refused() -> None:
    model = online.hoeffding_tree(stream=sea(50))(None)
    bytes_of = model.arrays["river"].tobytes().replace(b'"made":[1,"', b'"made":[1,"9.')
    model.arrays["river"] = np.frombuffer(bytes_of, np.uint8)
    with pytest.raises(StoreError, match=r"format and river \[1, '9\."):
        model.open()


def test_what_is_shared_stays_shared_and_generators_go_on() -> None:
    generator = random.Random(3)
    shared = {"twice": [generator, generator], "nested": (1, (2.5, None)), 3: {True}}
    again = decoded(encoded(shared))
    assert again["twice"][0] is again["twice"][1]
    assert again["nested"] == (1, (2.5, None))
    assert again[3] == {True}
    assert again["twice"][0].random() == generator.random()


@pytest.mark.parametrize("name", FIELDS)
def test_columns_categories_and_classes_that_come_late_are_taken(name: str, tmp_path: Any) -> None:
    early = [f"{n % 5},{'ab'[n % 2]},,{'no' if n % 5 < 2 else 'yes'}" for n in range(150)]
    late = [f"{n % 5},{'abc'[n % 3]},{n % 3}.5,{['no', 'yes', 'never'][n % 3]}" for n in range(150)]
    (tmp_path / "t.csv").write_text("\n".join(["size,colour,weight,label", *early, *late]))
    model = getattr(online, name)(stream=streams.csv(file=str(tmp_path / "t.csv"), target="label"), **FIELDS[name])(
        None
    )
    assert model.signature.classes == ("no", "yes", "never")
    assert model.events == 300


def test_without_the_extra_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "river.tree", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mapsto\[online\]'"):
        online.hoeffding_tree(stream=sea(10))(None)

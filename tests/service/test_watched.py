"""A model of which no features can be taken is watched by what it is asked and what it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.service.feedback_protocol import labels_of
from mapsto.service.inference_protocol import decode
from mapsto.service.keys import Caller
from mapsto.service.metrics import Metrics
from mapsto.service.refusal import Refusal
from mapsto.service.served_model import KeptScores, ServedModel
from mapsto.service.service import Service
from mapsto.service.state import State
from tests.cli.packages import identity_package
from tests.service.test_metrics import of

CLASSES = ("low", "high", "odd")
CALLER = Caller(name="c", tenant="t", scopes=frozenset(("predict", "learn")))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Its scores are the numbers that it is given, by no linear layer."""
    identity_package(tmp_path / "plain", CLASSES)
    state = State(tmp_path / "state.sqlite")
    yield Service([ServedModel("plain", tmp_path / "plain")], state, tmp_path)
    state.close()


def asked(service: Service, rows: Any) -> dict[str, Any]:
    given = np.asarray(rows, float)
    item = {"name": "input", "datatype": "FP32", "shape": list(given.shape), "data": given.tolist()}
    body, _ = asyncio.run(service.infer("plain", "", decode(json.dumps({"inputs": [item]}).encode(), None), CALLER))
    return json.loads(body)


def labelled(service: Service, **label: Any) -> list[dict[str, Any]]:
    return asyncio.run(service.feedback("plain", labels_of(json.dumps(label).encode()), CALLER))


def test_what_is_kept_are_the_inputs_and_the_scores(service: Service) -> None:
    model = service.model("plain")
    assert not model.adapts
    asked(service, [[1, 2, 3]])
    kept = service.kept("plain")
    assert kept is not None
    row = kept.latest(1)["features"]
    assert row.tolist() == [[1, 2, 3, 1, 2, 3]]
    head = model.own_head()
    assert isinstance(head, KeptScores)
    assert head.scores(row).tolist() == [[1, 2, 3]]


def test_its_confidence_drift_and_accuracy_are_metrics(service: Service) -> None:
    metrics = Metrics(["plain"])
    metrics.follow(service)
    rng = np.random.default_rng(0)
    found = [asked(service, rng.normal(size=(100, 3))) for _ in range(10)][-1]
    request = found["parameters"]["request_id"]
    answers = found["outputs"][1]["data"]
    for row, answer in enumerate(answers[:40]):
        assert labelled(service, request_id=request, row=row, label=answer if row % 4 else "none")[0]["stored"]
    text = metrics.text().decode()
    assert of(text, "mapsto_confidence_ratio_count", model="plain") > 0
    assert of(text, "mapsto_online_accuracy_ratio", model="plain") == 0.75
    assert of(text, "mapsto_input_drift_reference_samples", model="plain") == 500
    for shift, drifted in ((0, 0), (2, 1)):
        for _ in range(5):
            asked(service, rng.normal([shift, 0, 0], size=(100, 3)))
        assert of(metrics.text().decode(), "mapsto_input_drift", model="plain") == drifted
    assert "mapsto_learner_lag_rows{" not in text, "there is nothing to be learnt"


def test_what_is_not_finite_is_counted_and_spoils_nothing(service: Service) -> None:
    metrics = Metrics(["plain"])
    metrics.follow(service)
    rng = np.random.default_rng(0)
    found, text = dict[str, Any](), ""
    for number in range(12):
        rows = rng.normal(size=(100, 3)).astype("<f4")
        rows[7] = np.nan if number % 2 else np.inf
        item = {"name": "input", "datatype": "FP32", "shape": [100, 3], "parameters": {"binary_data_size": rows.nbytes}}
        head = json.dumps({"inputs": [item]}).encode()
        asked_ = decode(head + rows.tobytes(), str(len(head)).encode())
        body, _ = asyncio.run(service.infer("plain", "", asked_, CALLER))
        text = metrics.text().decode()
        found = json.loads(body)
    assert of(text, "mapsto_answers_not_finite_total", model="plain") == 12
    assert of(text, "mapsto_input_drift", model="plain") == 0
    with pytest.raises(Refusal, match="NaN or infinity"):
        labelled(service, request_id=found["parameters"]["request_id"], row=7, label="low")


def test_a_label_needs_the_answer_that_it_is_for(service: Service) -> None:
    item = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    with pytest.raises(Refusal, match="give a request_id"):
        labelled(service, label="low", inputs=[item])

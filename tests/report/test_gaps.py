"""Training and held-out figures side by side, in a run's report, its page and its metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.mappings.small import Corners

from mapsto import adapt, networks
from mapsto.kinds import Dataset
from mapsto.mapping import observe
from mapsto.mappings.evaluate.accuracy import Accuracy
from mapsto.mappings.train.supervised import Supervised
from mapsto.report import page
from mapsto.report.build import build, metrics_of
from mapsto.report.gaps import gap_of
from mapsto.run.executor import execute

pytestmark = pytest.mark.usefixtures("trusted")

STEP: dict[str, Any] = {
    "id": 0,
    "name": "train.supervised",
    "path": "train.supervised",
    "fields": {"data": "few"},
    "report": None,
    "account": {"gap": {"training": {"accuracy": 100.0, "loss": 0.1}}},
}


def judged(data: str) -> dict[str, Any]:
    report = {"metrics": {"accuracy": {"value": 75.0, "unit": "%"}}}
    return {"id": 1, "name": "evaluate.accuracy", "of": 0, "label": "test", "fields": {"data": data}, "report": report}


def test_a_training_without_held_out_data_takes_a_report_on_others_but_not_on_its_own() -> None:
    gap = gap_of(STEP, [STEP, judged("others")])
    assert gap is not None
    assert (gap.size, gap.judge) == (25.0, "test")
    assert gap_of(STEP, [STEP, judged("few")]) is None
    assert gap_of(STEP) is None


def test_errors_make_a_gap_the_other_way_round() -> None:
    gap = gap_of({"account": {"gap": {"training": {"rmse": 1.0}, "held_out": {"rmse": 3.0}}}})
    assert gap is not None
    assert gap.size == 2.0
    assert str(gap) == "rmse 1 on its training examples, 3 on others by the validation data: a gap of 2"


def test_the_report_of_a_run_has_the_gap_of_each_training(tmp_path: Path) -> None:
    few: Dataset = Corners(per_class=3)
    steps = (
        networks.conv4(channels=1, size=8, width=4, blocks=2, classes=4)
        >> Supervised(data=few, epochs=1, batch_size=4)
        >> observe(test=Accuracy(data=Corners(seed=1), pictures=0))
        >> adapt.finetune(data=few, epochs=2, folds=2, learning_rate="auto")
    )
    first, again = (build(execute(steps, store=tmp_path, seed=0)) for _ in range(2))
    assert all(step["hit"] for step in again["steps"])
    for report in (first, again):
        metrics = metrics_of(report["steps"])
        for step in ("train.supervised", "adapt.finetune"):
            apart = metrics[f"{step}.training_accuracy"]["value"] - metrics[f"{step}.held_out_accuracy"]["value"]
            assert metrics[f"{step}.gap"]["value"] == pytest.approx(apart)
        held = metrics["train.supervised.held_out_accuracy"]["value"]
        assert held == metrics["train.supervised.test.accuracy"]["value"]
        text = page.render(report)
        assert text.count("Training and held-out data</caption>") == 2
        assert "cross-validation (2 folds, 12 examples)" in text
        assert "Range test: a rate of" in text


def test_a_ridge_head_says_how_much_better_it_is_on_its_own_examples(tmp_path: Path) -> None:
    steps = networks.conv4(channels=1, size=8, width=4, blocks=2) >> adapt.ridge(data=Corners(per_class=5))
    step = build(execute(steps, store=tmp_path, seed=0))["steps"][-1]
    gap = gap_of(step)
    assert gap is not None
    assert gap.judge == "leaving one out at a time (20 examples)"
    assert gap.training >= gap.held_out > 25

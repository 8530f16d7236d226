"""`evaluate.accuracy` and `evaluate.size` of models that learnt from a stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mapsto import datasets, evaluate, networks, online, streams
from mapsto.errors import DomainError

DIGITS = datasets.subset(data=datasets.digits(size=8), per_class=8)


def test_a_model_on_an_encoder_is_evaluated_on_images() -> None:
    network = networks.conv4(channels=1, size=8, width=8, classes=10, blocks=3)(seed=0)
    model = online.ridge(stream=streams.replay(data=DIGITS, order="shuffled"), projection=30)(network)
    report = evaluate.accuracy(data=DIGITS, pictures=1)(model)
    block = next(streams.replay(data=DIGITS).open(size=80))
    scores = model.open().predict(block)
    predicted = np.array(model.signature.classes)[scores.argmax(1)]
    assert report.metrics["accuracy"].value == pytest.approx(100 * (predicted == block.y).mean())
    of_label = scores[np.arange(80), [model.signature.classes.index(name) for name in block.y]]
    assert report.metrics["loss"].value == pytest.approx(-np.log(of_label).mean())
    assert len(report.pictures) == 2
    assert report.tables["confusion"].columns[1:] == tuple("0123456789")
    size = evaluate.size()(model).metrics
    alone = evaluate.size()(network).metrics
    width = len(model.open().predict(block)[0])
    assert (size["classes"].value, size["columns"].value, size["events"].value, width) == (10, 1, 80, 10)
    inputs = 1 + int(model.arrays["vector_inputs"][0, 1])
    assert size["parameters"].value == alone["parameters"].value + 30 * inputs + 10 * 30 + 10
    assert size["macs"].value == alone["macs"].value + 30 * inputs + 10 * 30
    assert size["bytes"].value == alone["bytes"].value + sum(array.nbytes for array in model.arrays.values())


def test_a_model_of_raw_rows_is_evaluated_on_a_table_that_is_encoded(tmp_path: Path) -> None:
    lines = [f"{900 + n % 7},{'abc'[n % 3] if n % 5 else ''},{'yes' if n % 3 == 0 else 'no'}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["size,colour,label", *lines]))
    stream = streams.csv(file=str(tmp_path / "t.csv"), target="label")
    model = online.prototypes(stream=stream)(None)
    block = next(stream.open(size=60))
    right = np.array(model.signature.classes)[model.open().predict(block).argmax(1)] == block.y
    report = evaluate.accuracy(data=datasets.table(file=str(tmp_path / "t.csv"), target="label"))(model)
    assert report.metrics["accuracy"].value == pytest.approx(100 * right.mean())
    ordinal = datasets.table(file=str(tmp_path / "t.csv"), target="label", encode="ordinal", missing="mean")
    assert evaluate.accuracy(data=ordinal)(model).metrics["accuracy"].value >= 100 * right.mean() - 20
    fewer = datasets.table(file=str(tmp_path / "t.csv"), target="label", features=("size",))
    with pytest.raises(DomainError, match="no column colour, from which the model has learnt"):
        evaluate.accuracy(data=fewer)(model)
    assert "parameters" in evaluate.size()(model).metrics


def test_what_does_not_fit_a_model_is_said() -> None:
    model = online.softmax(stream=streams.sea(events=50))(None)
    with pytest.raises(DomainError, match="classes that the data has not: yes, no"):
        evaluate.accuracy(data=DIGITS)(model)


def test_a_class_that_a_model_has_not_met_counts_as_wrong() -> None:
    network = networks.conv4(channels=1, size=8, width=8, classes=10, blocks=3)(seed=0)
    few = datasets.subset(data=DIGITS, classes=("0", "1"))
    model = online.ridge(stream=streams.replay(data=few, order="shuffled"), projection=30)(network)
    report = evaluate.accuracy(data=DIGITS)(model)
    assert report.metrics["accuracy"].value <= 20
    assert report.metrics["accuracy"].n == 80


def test_a_forest_has_a_size_without_parameters() -> None:
    model = online.tabular(stream=streams.sea(events=100), preset="fast")(None)
    assert set(evaluate.size()(model).metrics) == {"bytes", "columns", "classes", "events"}
    with pytest.raises(DomainError, match="it has no parameters"):
        evaluate.size(baseline=networks.mlp())(model)

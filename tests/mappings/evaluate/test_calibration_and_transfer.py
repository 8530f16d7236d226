"""Calibration and transfer of a network whose scores are its inputs, so that every figure can be worked out."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mapsto import datasets, evaluate, networks
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Dataset, Network
from mapsto.nn.evaluate.calibration import calibration, expected_error, fit_temperature, softmax
from mapsto.nn.evaluate.classification import macro_metrics


def stored(path: Path, scores: list[list[float]], labels: list[str]) -> Dataset:
    np.savez(path, inputs=np.array(scores, np.float32), labels=np.array(labels))
    return datasets.arrays(file=str(path))


@pytest.fixture
def pets(tmp_path: Path) -> tuple[Network, Dataset]:
    """Three of four right at 80 %, one of one at 90 %."""
    four, nine = math.log(4), math.log(9)
    scores = [[four, 0.0], [four, 0.0], [0.0, four], [four, 0.0], [0.0, nine]]
    data = stored(tmp_path / "pets.npz", scores, ["cat", "cat", "dog", "dog", "dog"])
    network = networks.mlp(data=data, widths=())()
    module = network.module()
    for name, parameter in module.named_parameters():
        parameter.data = torch.eye(2) if name.endswith("weight") else torch.zeros(2)
    named = dataclasses.replace(network.signature, classes=("cat", "dog"))
    return dataclasses.replace(network.with_module(module), signature=named), data


def test_calibration(pets: tuple[Network, Dataset]) -> None:
    network, data = pets
    report = evaluate.calibration(data=data)(network)
    assert report.metrics["ece"].value == pytest.approx(100 * (4 * 0.05 + 0.1) / 5, abs=1e-4)
    assert report.metrics["nll"].value == pytest.approx(
        -(3 * math.log(0.8) + math.log(0.2) + math.log(0.9)) / 5, abs=1e-6
    )
    assert report.metrics["confidence"].value == pytest.approx(82)
    assert [row[2] for row in report.tables["bins"].rows] == [4, 1]
    assert report.series["reliability"].ys["right"] == (75, 100)
    assert "temperature" not in report.metrics, "five samples are too few"
    assert report.metrics["aurc"].value == pytest.approx(100 * (0 + 1 / 8 + 1 / 6 + 3 / 16 + 1 / 5) / 5), (
        "four are equally sure"
    )
    assert report.metrics["coverage"].value == 20
    assert evaluate.calibration(data=data, risk=0.2)(network).metrics["coverage"].value == 100
    with pytest.raises(DomainError, match="adapt it first"):
        evaluate.calibration(data=datasets.digits(size=8))(network)


def test_the_temperature_of_held_out_samples_is_used_on_the_others(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    scores = draw.normal(0, 2, (600, 3))
    labels = (softmax(scores).cumsum(1) < draw.random((600, 1))).sum(1)
    names = [["a", "b", "c"][label] for label in labels]
    bold = (3 * scores).tolist()
    judged, held_out = (
        stored(tmp_path / f"{part.start}.npz", bold[part], names[part]) for part in (slice(0, 300), slice(300, 600))
    )
    network = networks.mlp(data=judged, widths=())()
    module = network.module()
    for name, parameter in module.named_parameters():
        parameter.data = torch.eye(3) if name.endswith("weight") else torch.zeros(3)
    network = network.with_module(module)
    found = evaluate.calibration(data=judged, held_out=held_out)(network).metrics
    expected = fit_temperature(np.float32(bold[300:]).astype(float), labels[300:])
    assert found["temperature"].value == pytest.approx(expected, rel=1e-4)
    assert found["temperature"].n == 300
    by_hand = calibration(softmax(np.float32(bold[:300]), expected), labels[:300]).metrics["nll"].value
    assert found["nll_after"].value == pytest.approx(by_hand, rel=1e-4)
    assert found["nll_after"].value < found["nll"].value


def test_probabilities_that_are_right_are_within_what_chance_shows_and_doubled_scores_are_not() -> None:
    draw = np.random.default_rng(0)
    scores = draw.normal(0, 2, (4000, 3))
    shares = softmax(scores)
    labels = (shares.cumsum(1) < draw.random((4000, 1))).sum(1)
    fair, bold = calibration(shares, labels).metrics, calibration(softmax(2 * scores), labels).metrics
    assert fair["ece"].value < (fair["ece_by_chance"].high or 0)
    assert bold["ece"].value > 3 * (bold["ece_by_chance"].high or 99)
    assert fit_temperature(scores, labels) == pytest.approx(1, abs=0.06)
    assert fit_temperature(2 * scores, labels) == pytest.approx(2 * fit_temperature(scores, labels), rel=1e-3)
    sure, right = shares.max(1), shares.argmax(1) == labels
    by_hand = sum(
        abs(right[there].mean() - sure[there].mean()) * there.mean()
        for low in np.arange(15) / 15
        if (there := (sure > low) & (sure <= low + 1 / 15)).any()
    )
    assert expected_error(sure, right) == pytest.approx(by_hand)


def test_intervals_of_means_over_classes_hold_the_truth_as_often_as_they_say() -> None:
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(100):  # recalls of 0.9 and 0.7, whose mean is 80 %
        right = draw.binomial(60, [0.9, 0.7])
        found = macro_metrics(np.array([[right[0], 60 - right[0]], [60 - right[1], right[1]]]))["balanced_accuracy"]
        hits += (found.low or 0) <= 80 <= (found.high or 0)
    assert 88 <= hits <= 100


def test_transfer(pets: tuple[Network, Dataset], tmp_path: Path) -> None:
    network, same = pets
    other = stored(tmp_path / "other.npz", [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], ["bird", "cat", "dog"])
    report = evaluate.transfer(data={"same": same, "other": other})(network)
    assert {name: metric.value for name, metric in report.metrics.items()} == {
        "accuracy_same": 80, "accuracy_other": 50, "worst": 50, "mean": 65,
    }  # fmt: skip
    assert [row[4:] for row in report.tables["transfer"].rows] == [(5, 2, 0), (2, 2, 1)]
    with pytest.raises(DataError, match="knows none of its classes"):
        evaluate.transfer(data={"digits": datasets.digits(size=8)})(network)


def test_a_matrix_of_networks_and_domains(pets: tuple[Network, Dataset], tmp_path: Path) -> None:
    network, same = pets
    other = stored(tmp_path / "other.npz", [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], ["bird", "cat", "dog"])
    report = evaluate.transfer(data={"same": same, "other": other}, networks={"before": network})(network)
    assert report.tables["matrix"].rows == (("before", 80, 50), ("this network", 80, 50))
    assert report.tables["matrix_as_shades"].rows[0] == ("before", 0.8, 0.5)
    with pytest.raises(SpecError, match="is the network itself"):
        evaluate.transfer(data={"same": same}, networks={"this network": network})

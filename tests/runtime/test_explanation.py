"""`mapsto_runtime.explanation`: what an answer rests on, of images, texts and rows, asking the package alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.cli.packages import word_package, write_package

from mapsto import datasets, networks, quantize
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mappings.export.onnx import Onnx
from mapsto_runtime.explanation import Explanation, explained
from mapsto_runtime.heat_map import overlay
from mapsto_runtime.occlusion import log_odds
from mapsto_runtime.parts import Cells, Columns, parts_of
from mapsto_runtime.predictor import Predictor
from mapsto_runtime.signature import Column, Preprocessing, Signature, TensorSpec


def opened(network: Network, folder: Path) -> Predictor:
    package = Onnx(samples=4)(network)
    for name, path in package.files.items():
        (folder / name).write_bytes(path.read_bytes())
    return Predictor(folder)


@pytest.fixture
def corner(tmp_path: Path) -> Predictor:
    """Class 1 by how bright the upper left quarter is, class 0 by the lower right one."""
    quarters = np.zeros((2, 16, 16))
    quarters[1, :8, :8] = quarters[0, 8:, 8:] = 10 / 64
    before = Preprocessing(channels=1, size=(16, 16))
    return linear(tmp_path / "corner", quarters.reshape(2, -1), ("low", "high"), (1, 16, 16), before)


def linear(
    folder: Path, weight: object, classes: tuple[str, ...], shape: tuple[int, ...], before: Preprocessing
) -> Predictor:
    signature = Signature(
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", *shape)),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=("N", len(classes))),),
        preprocessing=before,
        classes=classes,
    )
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["output"]),
    ]
    held = numpy_helper.from_array(np.asarray(weight, np.float32).T.copy(), "weight")
    return Predictor(write_package(folder, nodes, signature, (held,)))


def only(predictor: Predictor, given: object, **options: object) -> Explanation:
    found = explained(predictor, [given], **options)
    assert found.errors == []
    return found.found[0]


def test_of_an_image_what_is_hidden_where_it_counts_scores(corner):
    image = np.zeros((16, 16), np.uint8)
    image[2:6, 2:6] = 255
    found = only(corner, image)
    assert found.target == "high"
    scores = found.scores.reshape(16, 16)
    assert scores[2:6, 2:6].min() > 3 * np.abs(scores[8:, :8]).max() > -1e-9
    assert np.unravel_index(scores.argmax(), scores.shape) in [(3, 3), (3, 4), (4, 3), (4, 4)]
    assert found.without == pytest.approx(0, abs=1e-5), "a plain image is of neither class"
    other = only(corner, image, target="low")
    np.testing.assert_allclose(other.scores, -found.scores, atol=1e-6)


def test_of_a_row_the_users_columns_are_scored(tmp_path):
    """Of a linear layer exactly: what a column adds to the log-odds of two classes beyond its mean."""
    columns = (
        Column(name="age", mean=40.0, std=10.0, fill=(40.0,)),
        Column(name="town", type="words", categories=("a", "b"), fill=(0.25, 0.75)),
    )
    weight = [[0.0, 0.0, 0.0], [2.0, 3.0, -1.0]]
    before = Preprocessing(kind="none", columns=columns, header=("age", "town"))
    predictor = linear(tmp_path / "package", weight, ("no", "yes"), (3,), before)
    (tmp_path / "rows.csv").write_text("age,town\n50,a\n", encoding="utf-8")
    found = only(predictor, tmp_path / "rows.csv")
    assert found.parts.names == ("age", "town")
    np.testing.assert_allclose(found.scores, [2.0, 3.0 - (0.25 * 3 - 0.75)], rtol=1e-5)
    assert found.plain()["columns"][0] == {"name": "age", "value": "50", "score": 2.0}
    assert [name for name, _ in found.strongest(1)] == ["town"]


def test_of_a_text_words_are_scored(tmp_path):
    folder = word_package(tmp_path / "package", ("card", "fruit"), {"card": (2.0, 0.0), "my": (0.0, 0.5)})
    found = only(Predictor(folder), "where is my card?")
    assert found.parts.names == ("where", "is", "my", "card", "?")
    np.testing.assert_allclose(found.scores, [0, 0, -0.5, 2, 0], atol=1e-6)


def test_what_has_no_score_is_refused(corner, tmp_path):
    with pytest.raises(DomainError, match=r"does not know 'hihg'.*did you mean 'high'"):
        explained(corner, [np.zeros((16, 16), np.uint8)], target="hihg")
    before = Preprocessing(kind="none")
    with pytest.raises(DomainError, match="too many to score"):
        parts_of(np.zeros(5000), dataclasses.replace(corner.signature, preprocessing=before))


def test_every_cell_is_hidden_and_a_cell_at_the_edge_may_be_smaller():
    cells = Cells(sample=np.random.default_rng(0).random((3, 37, 20)), mean=(0.0,), std=(1.0,), baseline="blurred")
    assert cells.size == 3
    assert cells.grid == (13, 7)
    assert cells.windows().any(0).all()
    assert np.array_equal(cells.without(np.ones((1, 91), bool))[0], cells.hidden)
    assert cells.of_inputs(np.ones((3, 37, 20))).sum() == 3 * 37 * 20
    assert overlay(cells.picture, np.ones((13, 7))).shape[2] == 3


def test_columns_that_know_a_gap_are_hidden_by_it():
    row = Columns(row=np.array([1.0, 2.0]), columns=(Column(name="a", missing="marked"), Column(name="b")))
    assert np.isnan(row.hidden).tolist() == [True, False]


def test_log_odds_do_not_level_off():
    sure = np.array([[500.0, 0.0, 1.0]])
    assert log_odds(sure, 0, "classes")[0] == pytest.approx(500 - np.log(1 + np.e))
    assert log_odds(sure, 0, "values").tolist() == log_odds(sure, 0, "labels").tolist() == [500.0]


@pytest.mark.slow
def test_an_int8_package_is_explained_as_its_float_one(tmp_path):
    digits = datasets.subset(data=datasets.digits(size=8), per_class=4)
    network = networks.conv4(data=digits, width=8, blocks=2, classes="data")(seed=0)
    image = digits.open().inputs[3, 0]
    places = [tmp_path / name for name in ("float", "int8")]
    for place, each in zip(places, (network, quantize.static(data=digits)(network)), strict=True):
        place.mkdir()
        opened(each, place)
    whole, small = (only(Predictor(place), image, target="3").scores for place in places)
    assert np.corrcoef(whole, small)[0, 1] > 0.9

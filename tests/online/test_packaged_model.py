"""Models as packages: raw rows, vectors and images in, the model's own answers out, by mapsto-runtime alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto import datasets, export, networks, online, quantize, streams
from mapsto.errors import DomainError
from mapsto.kinds import Block, Model, Package
from mapsto.nn.export.runtimes.onnxruntime import fused_operations
from mapsto.nn.online import package_parity
from mapsto_runtime.predictor import Predictor

DIGITS = datasets.subset(data=datasets.digits(size=16), per_class=8)
LEARNERS = ("softmax", "ridge", "prototypes", "mlp")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 rows: numbers far from zero, words, gaps, and a column that never changes."""
    draw = np.random.default_rng(0)
    lines = [
        f"{1000 + 30 * draw.normal():.3f},{'abc'[n % 3]},{'' if n % 11 == 0 else n % 7},5,{['no', 'yes', 'maybe'][n % 3 if n % 4 else 0]}"
        for n in range(300)
    ]
    path = tmp_path_factory.mktemp("table") / "t.csv"
    path.write_text("\n".join(["size,colour,count,fixed,label", *lines]))
    return path


def learnt(name: str, table: Path, **fields: Any) -> Model:
    return getattr(online, name)(stream=streams.csv(file=str(table), target="label"), **fields)(None)


def folder(package: Package) -> Path:
    return package.files["manifest.json"].parent


def own_answers(model: Model, block: Block) -> list[dict[str, float]]:
    scores = model.open().predict(block)
    return [dict(zip(model.signature.classes, row, strict=True)) for row in scores.tolist()]


@pytest.mark.parametrize("name", LEARNERS)
def test_a_package_answers_raw_rows_as_the_model_does(name: str, table: Path) -> None:
    model = learnt(name, table)
    package = export.onnx()(model)
    block = next(streams.csv(file=str(table), target="label").open(size=300))
    answers = Predictor(folder(package)).predict([table])
    for expected, given in zip(own_answers(model, block), answers, strict=True):
        assert given.scores == pytest.approx(expected, abs=2e-4)
    assert package.manifest()["learner"] == {"name": f"online.{name}", "version": model.version, "events": 300}


def test_what_is_missing_unseen_or_constant_counts_as_for_the_model(table: Path, tmp_path: Path) -> None:
    model = learnt("ridge", table, projection=50)
    rows = ["size,colour,count,fixed,label", "1010,z,3,5,no", ",a,,5,no", "990,,2,7,no", "1030,b,1,,no"]
    (tmp_path / "odd.csv").write_text("\n".join(rows))
    block = next(streams.csv(file=str(tmp_path / "odd.csv"), target="label").open(size=9))
    answers = Predictor(folder(export.onnx()(model))).predict([tmp_path / "odd.csv"])
    for expected, given in zip(own_answers(model, block), answers, strict=True):
        assert given.scores == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("fields", [{"covariance": "none"}, {"projection": 0}])
def test_the_other_forms_of_the_learners_are_packaged_too(fields: dict[str, Any], table: Path) -> None:
    model = learnt("prototypes" if "covariance" in fields else "ridge", table, **fields)
    parity = export.onnx(stream=streams.csv(file=str(table), target="label"), samples=300)(model).manifest()["parity"]
    assert (parity["on"], parity["samples"], parity["top1_agreement"]) == ("events", 300, 1.0)
    assert parity["max_abs_difference"] < 2e-4


@pytest.mark.parametrize("int8", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_encoder_and_its_learner_are_one_graph(int8: bool) -> None:
    network = networks.conv4(channels=1, size=16, width=16, classes=10)(seed=0)
    base: Any = (quantize.static(data=DIGITS) >> export.onnx())(network) if int8 else network
    model = online.ridge(stream=streams.replay(data=DIGITS, order="shuffled"), projection=40)(base)
    package = export.onnx(data=DIGITS, samples=80)(model)
    parity, block = package.manifest()["parity"], next(streams.replay(data=DIGITS).open(size=80))
    assert (parity["samples"], parity["top1_agreement"]) == (80, 1.0)
    answers = Predictor(folder(package)).predict([block.x["image"]])
    for expected, given in zip(own_answers(model, block), answers, strict=True):
        assert given.scores == pytest.approx(expected, abs=1e-3)
    assert fused_operations(package.files["model.onnx"].read_bytes())["QLinearConv"] == (3 if int8 else 0)


@pytest.mark.slow
def test_a_model_of_an_encoder_of_rows_takes_the_rows_that_the_encoder_takes(table: Path) -> None:
    data = datasets.table(file=str(table), target="label", features=("size", "colour"))
    network = networks.mlp(data=data, widths=(8,), classes="data")(seed=0)
    stream = streams.csv(file=str(table), target="label", features=("size", "colour"))
    model = online.prototypes(stream=stream)(network)
    answers = Predictor(folder(export.onnx(stream=stream)(model))).predict([table])
    expected = own_answers(model, next(stream.open(size=300)))
    assert answers[7].scores == pytest.approx(expected[7], abs=1e-3)


def test_what_cannot_be_packaged_is_said(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mapsto.testing.contract import contract_network

    with pytest.raises(DomainError, match="has met no label"):
        export.onnx()(
            online.softmax(stream=streams.csv(file=str(table), target="label")).open(None, None, _context()).result()
        )
    with pytest.raises(DomainError, match="compared on `data`, not on a stream"):
        export.onnx(stream=streams.sea())(contract_network())
    monkeypatch.setattr(package_parity, "TOLERANCE", 0.0)
    with pytest.raises(DomainError, match="differs from the learner's"):
        export.onnx()(learnt("softmax", table))


def _context() -> Any:
    from mapsto.context import Context

    return Context()

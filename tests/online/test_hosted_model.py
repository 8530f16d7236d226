"""Models as packages for hosts that have mapsto: the model itself, which answers raw rows as it does on a stream."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.command import mapsto
from tests.online.test_packaged_tabular import QUESTIONS, folder, learnt, messy

from mapsto import datasets, evaluate, export, networks, online, streams
from mapsto.context import Context
from mapsto.errors import DomainError, MissingExtra, StoreError, TrustError
from mapsto.mappings.online.softmax import Softmax
from mapsto.mappings.online.tabular import Tabular
from mapsto.nn.online.dataset_events import unlabelled
from mapsto.nn.online.model_files import loaded, saved
from mapsto.testing.streams import model_digest
from mapsto_runtime import runtimes
from mapsto_runtime.predictor import Predictor


def table(path: Path, **settings: Any) -> Any:
    return streams.csv(file=str(messy(path / "t.csv", **settings)), target="label")


def test_rivers_learners_are_packaged_for_hosts_and_refused_as_graphs(tmp_path: Path) -> None:
    pytest.importorskip("river", reason="extra `online` is not installed")
    stream = table(tmp_path, count=200)
    model = online.hoeffding_tree(stream=stream, grace=50)(None)
    with pytest.raises(DomainError, match=r"hoeffding_tree learns is no network of ONNX; .*export\.mapsto"):
        export.onnx()(model)
    package = export.mapsto(stream=stream, samples=200)(model)
    parity = package.manifest()["parity"]
    assert (parity["on"], parity["samples"], parity["top1_agreement"]) == ("events", 200, 1.0)
    assert "macs" not in package.manifest(), "which a tree does not have"
    expected = model.open().predict(next(stream.open(size=200)))
    answers = Predictor(folder(package)).predict([tmp_path / "t.csv"])
    given = [[answer.scores[name] for name in model.signature.classes] for answer in answers]
    np.testing.assert_allclose(given, expected, atol=1e-12)


@pytest.mark.parametrize("values", [False, True])
def test_predict_and_stream_from_a_package_say_the_same(
    values: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "store"))
    model = learnt(messy(tmp_path / "t.csv", values=values, count=200), task="values" if values else "classes")
    package = folder(export.mapsto()(model))
    (tmp_path / "questions.csv").write_text(QUESTIONS)
    given = json.loads(mapsto("predict", package, "questions.csv", "--json", code=0).out)
    lines = mapsto("stream", "questions.csv", "--from", package, "--json", code=0).out.splitlines()
    own = [json.loads(line) for line in lines]
    if values:
        expected = [float(f"{row['answer']:.4g}") for row in own]
        assert [row["top"]["value"] for row in given] == expected
    else:
        expected = [(row["answer"], round(row["probability"], 4)) for row in own]
        assert [(row["label"], row["probability"]) for row in given] == expected
    if not values:
        onnx = folder(export.onnx(samples=10)(model))
        said = mapsto("stream", "questions.csv", "--from", onnx, code=2).err
        assert "this package is for onnxruntime and holds no model of mapsto" in said


def test_a_host_without_mapsto_is_told_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder(export.mapsto()(online.softmax(stream=table(tmp_path, count=60))(None)))
    alone = "import sys; sys.modules['mapsto'] = None; from mapsto_runtime.__main__ import main; main()"
    said = subprocess.run(
        [sys.executable, "-c", alone, str(package), str(tmp_path / "t.csv")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert (
        "this package answers by mapsto itself: mapsto is not installed; install it with: pip install mapsto"
        in said.stderr
    )
    monkeypatch.setitem(sys.modules, "mapsto.nn.online.hosted", None)
    with pytest.raises(MissingExtra, match="pip install mapsto"):
        runtimes.find("mapsto").load({})


def test_a_model_comes_back_from_its_files_and_damage_is_found(tmp_path: Path) -> None:
    model = online.ridge(stream=table(tmp_path, count=60), projection=20)(None)
    package = export.mapsto()(model)
    assert model_digest(loaded(package.files)) == model_digest(model)
    assert saved(loaded(package.files)) == saved(model)
    place = package.files["model/model.json"]
    tree = json.loads(place.read_text())
    for damage, message in (
        ({"format": 2}, "has format 2; this mapsto reads 1"),
        ({"events": "many"}, "not a model as mapsto packages it"),
        ({"learner": "online.softmax", "version": Softmax.version}, "the model is not as online.softmax makes it"),
    ):
        place.write_text(json.dumps(tree | damage))
        with pytest.raises(StoreError, match=message):
            runtimes.find("mapsto").load(package.files)
    with pytest.raises(TrustError, match=r"'model/model.json' is not the file that was exported"):
        Predictor(folder(package))


def test_what_has_learnt_nothing_is_not_packaged(tmp_path: Path) -> None:
    empty = tmp_path / "t.csv"
    empty.write_text("size,label\n1,\n")
    with pytest.raises(DomainError, match="has met no label"):
        export.mapsto()(online.softmax(stream=streams.csv(file=str(empty), target="label"))(None))


@pytest.mark.parametrize("exporter", ["onnx", "mapsto"])
def test_a_model_without_a_column_is_not_packaged(exporter: str) -> None:
    events = unlabelled({}, 20)
    live = Tabular(stream=streams.sea(), preset="fast").open(None, None, Context())
    live.advance(dataclasses.replace(events, y=np.array(["a", "b"] * 10, object), has_y=np.full(20, True)))
    with pytest.raises(DomainError, match="has met no column to answer from"):
        getattr(export, exporter)()(live.result())


@pytest.mark.slow
def test_a_package_of_a_model_is_weighed_and_timed(tmp_path: Path) -> None:
    package = export.mapsto()(online.softmax(stream=table(tmp_path, count=60))(None))
    weighed = evaluate.size()(package).metrics
    assert weighed["bytes"].value == sum(path.stat().st_size for path in package.files.values())
    assert "macs" not in weighed
    assert evaluate.latency(rounds=1, seconds=0.005, all_threads=False)(package).metrics["p50"].value > 0


@pytest.mark.slow
@pytest.mark.parametrize("packaged", [False, True])
def test_an_encoder_goes_with_its_model(packaged: bool) -> None:
    data = datasets.subset(data=datasets.digits(size=16), per_class=8)
    network = networks.conv4(channels=1, size=16, width=16, classes=10)(seed=0)
    base: Any = export.onnx(data=data)(network) if packaged else network
    model = online.prototypes(stream=streams.replay(data=data, order="shuffled"))(base)
    package = export.mapsto(data=data, samples=50)(model)
    assert package.manifest()["parity"]["max_abs_difference"] < 1e-12
    assert f"model/base/{'model.onnx' if packaged else 'network.json'}" in package.files
    answers = Predictor(folder(package)).predict([next(streams.replay(data=data).open(size=20)).x["image"]])
    assert len(answers) == 20

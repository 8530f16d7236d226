"""The default learner of tables as one graph: members and mixture answer raw rows as the model does, to float32."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.command import mapsto

from mapsto import datasets, export, networks, online, streams
from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Model, Package
from mapsto.mappings.online.tabular import Tabular
from mapsto.nn.online.dataset_events import unlabelled
from mapsto.nn.online.native_tabular import EXAMPLE, NativeTabular
from mapsto.nn.online.onnx_tabular import TabularSnapshot, snapshot_model
from mapsto_runtime.__main__ import main as predict_alone
from mapsto_runtime.predictor import Predictor
from mapsto_runtime.runtimes.onnxruntime import session

QUESTIONS = """size,colour,count,fixed,label
1000010,a,3,5,
,unheard of,,6,
999990,NA,2,,
1000300.5,g,0,5,
1e9,b,-400,5,
,,,5,
"""


def messy(path: Path, *, values: bool = False, count: int = 500) -> Path:
    """Numbers far from zero, words, gaps in both, and a column that never changes."""
    draw = np.random.default_rng(0)
    lines = ["size,colour,count,fixed,label"]
    for n in range(count):
        size, colour, number = 30 * draw.normal(), "abcdefg"[draw.integers(7)], int(draw.integers(0, 5))
        value = size / 30 + 2 * (colour == "a") + 0.3 * number
        label = f"{1000 * value:.2f}" if values else ("low", "middle", "high")[int(np.clip(value, 0, 2))]
        gaps = n % 11 == 0, n % 13 == 0
        lines.append(f"{1e6 + size:.3f},{'NA' if gaps[0] else colour},{'' if gaps[1] else number},5,{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def folder(package: Package) -> Path:
    return package.files["manifest.json"].parent


def learnt(path: Path, *, task: Any = "classes", **fields: Any) -> Model:
    return online.tabular(stream=streams.csv(file=str(path), target="label", task=task), **fields)(None)


@pytest.mark.parametrize("values", [False, True])
def test_a_package_answers_a_messy_table_as_the_stream_does(
    values: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "store"))
    messy(tmp_path / "t.csv", values=values)
    (tmp_path / "questions.csv").write_text(QUESTIONS)
    mapsto("stream", "t.csv", "--target", "label", "--out", "run", *(["--task", "values"] if values else []), code=0)
    mapsto("stream", "questions.csv", "--from", "run", "--predictions", "own.jsonl", code=0)
    own = [json.loads(line) for line in (tmp_path / "own.jsonl").read_text().splitlines()]

    model = learnt(tmp_path / "t.csv", task="values" if values else "classes")
    package = folder(export.onnx()(model))
    given = json.loads(mapsto("predict", package, "questions.csv", "--json", code=0).out)
    if values:
        answers, expected = [row["top"]["value"] for row in given], [float(row["answer"]) for row in own]
        assert answers == pytest.approx(expected, rel=1e-3, abs=1.0)
    else:
        assert [row["label"] for row in given] == [row["answer"] for row in own]
        assert [row["probability"] for row in given] == pytest.approx([row["probability"] for row in own], abs=1e-4)
    with pytest.raises(SystemExit) as ended:
        predict_alone([str(package), "questions.csv", "--json"])
    out = capsys.readouterr()
    assert (ended.value.code, json.loads(out.out)) == (0, given)
    assert "words that training did not have count as missing: 'unheard of' in 'colour'" in out.err
    assert "filled with the mean" not in out.err


def test_the_manifest_tells_of_parity_and_of_labels_that_stay(tmp_path: Path) -> None:
    path = messy(tmp_path / "t.csv", count=300)
    model = learnt(path)
    manifest = export.onnx(stream=streams.csv(file=str(path), target="label"), samples=300)(model).manifest()
    parity = manifest["parity"]
    assert (parity["on"], parity["samples"], parity["top1_agreement"]) == ("events", 300, 1.0)
    assert parity["max_abs_difference"] < 1e-5
    assert manifest["format"] == 4
    assert manifest["learner"] == {
        **{"name": "online.tabular", "version": type(online.tabular(stream=streams.sea())).version, "events": 300},
        "labels": "as they were last",
    }
    assert "labels" not in export.onnx(samples=20)(learnt(path, labels=False)).manifest()["learner"]


@pytest.mark.parametrize(
    ("count", "fields"),
    [
        (700, {"values": False, "forests": True, "labels": True}),
        (700, {"values": True, "forests": True, "labels": False}),
        (120, {"values": False, "forests": False, "labels": True}),
        (3, {"values": True, "forests": True, "labels": True}),
        (1, {"values": False, "forests": True, "labels": True}),
    ],
)
def test_each_member_is_in_the_graph(count: int, fields: dict[str, bool]) -> None:
    """Words beyond what linear members and trees tell apart, ties between neighbours, constant columns and gaps."""
    learner, draw = NativeTabular(**fields, work=0.0, seed=0), np.random.default_rng(1)
    words = [0, 0, 0, 0, 5, 40, 100]
    for most in words:
        learner.add_column(of_words=most > 0)

    def events(number: int) -> np.ndarray:
        columns = [
            draw.normal(size=number),
            draw.integers(0, 4, number),
            draw.integers(0, 4, number),
            np.full(number, 5),
        ]
        x = np.array([*columns, *(draw.integers(0, most, number) for most in words if most)], float).T
        x[draw.random(x.shape) < 0.08] = np.nan
        return x

    x = events(count)
    labels = np.nan_to_num(x[:, 0] + x[:, 1] + 2 * (x[:, 4] == 2) + x[:, 6] % 3)
    labels = 1e4 + 100 * labels if fields["values"] else np.clip(np.floor(labels), 0, 4)
    classes = 1 if fields["values"] else 5
    learner.learn(x, np.full(count, EXAMPLE, np.uint8), np.zeros(count, np.int32), labels, classes)
    snapshot = TabularSnapshot(learner.arrays(), values=fields["values"], categories=words)
    graph = session(snapshot_model(snapshot, None, scaled=True))
    questions = np.vstack([events(60), np.full((1, 7), np.nan), [[1e9, -1e9, 7, 9, 4, 39, 99]]])
    given = (questions - snapshot.means) / snapshot.stds
    answers = graph.run(None, {"input": given.astype(np.float32)})[0].astype(float)
    expected = learner.predict(questions)
    if fields["values"]:
        assert answers / snapshot.deviation == pytest.approx(expected / snapshot.deviation, abs=2e-5)
    else:
        assert np.exp(answers) == pytest.approx(expected, abs=2e-5)


@pytest.mark.slow
def test_an_encoder_and_the_members_are_one_graph() -> None:
    data = datasets.subset(data=datasets.digits(size=16), per_class=8)
    network = networks.conv4(channels=1, size=16, width=16, classes=10)(seed=0)
    model = online.tabular(stream=streams.replay(data=data, order="shuffled"), preset="fast")(network)
    package = export.onnx(data=data, samples=80)(model)
    assert package.manifest()["parity"]["max_abs_difference"] < 1e-3
    block = next(streams.replay(data=data).open(size=80))
    expected = model.open().predict(block)
    for row, given in zip(expected, Predictor(folder(package)).predict([block.x["image"]]), strict=True):
        scores = [given.scores[name] for name in model.signature.classes]
        assert scores == pytest.approx(row.tolist(), abs=1e-3)


def test_numbers_beyond_what_a_manifest_holds_are_refused(tmp_path: Path) -> None:
    rows = [f"{n % 7}e40,{'ab'[n % 2]}" for n in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["size,label", *rows]))
    with pytest.raises(DomainError, match=r"column 'size' holds numbers about .*e\+40 .* beyond what a package holds"):
        export.onnx()(learnt(tmp_path / "t.csv", preset="fast"))


@pytest.mark.parametrize("exporter", ["onnx", "mapsto"])
def test_vectors_that_were_computed_before_are_taken_as_they_are(exporter: str) -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(80, 6)) * [1, 1, 1, 1, 1, 1000] + 5
    events = unlabelled({"v": vectors}, 80)
    live = Tabular(stream=streams.sea(), preset="fast").open(None, None, Context())
    live.advance(dataclasses.replace(events, y=(vectors[:, 0] > 5).astype(str).astype(object), has_y=np.full(80, True)))
    model = live.result()
    package = getattr(export, exporter)(samples=50)(model)
    expected = model.open().predict(events)
    given = Predictor(folder(package)).predict([vectors])
    scores = [[answer.scores[name] for name in model.signature.classes] for answer in given]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("learner", ["tabular", "ridge"])
@pytest.mark.parametrize("exporter", ["onnx", "mapsto"])
def test_words_beyond_those_with_a_place_of_their_own_count_as_for_the_model(
    learner: str, exporter: str, tmp_path: Path
) -> None:
    path = messy(tmp_path / "t.csv", count=120)
    fields = {"preset": "fast"} if learner == "tabular" else {"projection": 20}
    model = getattr(online, learner)(stream=streams.csv(file=str(path), target="label"), categories=3, **fields)(None)
    package = getattr(export, exporter)(samples=50)(model)
    assert package.manifest()["format"] == 4
    (tmp_path / "q.csv").write_text(QUESTIONS)
    answers = Predictor(folder(package)).answers([tmp_path / "q.csv"])
    expected = model.open().predict(next(streams.csv(file=str(tmp_path / "q.csv"), target="label").open(size=9)))
    given = [[answer.scores[name] for name in model.signature.classes] for answer in answers.predictions]
    np.testing.assert_allclose(given, expected, atol=2e-4)
    assert not any("count as missing" in note for note in answers.notes)

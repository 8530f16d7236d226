"""A damaged or hostile package is the user's error: a message that says what is wrong, never an exception of another kind."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.mutations import mutated_json, mutated_tree

from mapsto.errors import MapstoError, StoreError, TrustError
from mapsto.kinds import Column, Preprocessing, Signature, TensorSpec
from mapsto_runtime.external_data import external_files
from mapsto_runtime.manifest import read_manifest
from mapsto_runtime.predictor import Predictor

FEW = pytest.param(500, id="500")
MANY = pytest.param(20_000, id="20000", marks=pytest.mark.slow)


def model(width: int, outputs: int, shape: Sequence[str | int] = ("N", 3)) -> onnx.ModelProto:
    """The first of so many numbers, for each output."""
    weight = np.eye(width, outputs, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["input"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["output"])],
        "graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", outputs])],
        [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.tobytes(), raw=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def packed(folder: Path, files: dict[str, bytes], **more: object) -> Path:
    """A package of a table, with these files."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    columns = (
        Column(name="age", mean=40.0, std=10.0, fill=(40.0,)),
        Column(name="town", type="words", categories=("Rom", "Ulm"), fill=(0.5, 0.5)),
    )
    signature = Signature(
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 3)),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=("N", 2)),),
        preprocessing=Preprocessing(kind="none", columns=columns, header=("age", "town", "kind")),
        classes=("cat", "dog"),
    )
    entries = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    manifest = {"format": 1, "model": "model.onnx", "signature": signature.plain(), "files": entries, **more}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def package(tmp_path) -> Path:
    return packed(tmp_path / "package", {"model.onnx": model(3, 2).SerializeToString()}, adaptation={"method": "x"})


def test_the_package_is_whole_before_it_is_damaged(package, tmp_path):
    (tmp_path / "rows.csv").write_text("town,age\nUlm,70\nRom,\n")
    assert [answer.label for answer in Predictor(package).predict([tmp_path / "rows.csv"])] == ["cat", "dog"]


def of_images(folder: Path) -> Path:
    """A package of grey images of 4 × 3 pixels."""
    packed(folder, {"model.onnx": model(12, 2, ["N", 1, 4, 3]).SerializeToString()}, adaptation={"model": "model.onnx"})
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["signature"] |= {
        "inputs": [{"name": "input", "dtype": "float32", "shape": ["N", 1, 4, 3]}],
        "preprocessing": Signature(
            inputs=(),
            outputs=(),
            preprocessing=Preprocessing(channels=1, size=(4, 3), mean=(0.1,), std=(0.2,), ink="light"),
        ).plain()["preprocessing"],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("number", [FEW, MANY])
def test_a_damaged_manifest_is_the_users_error(package, tmp_path, number):
    rng = random.Random(number)
    rows = tmp_path / "rows.csv"
    rows.write_text("town,age\nUlm,70\nRom,\n")
    picture = np.zeros((9, 9, 3), np.uint8)
    given = {package: [rows], of_images(tmp_path / "images"): [picture, picture]}
    texts = {folder: (folder / "manifest.json").read_text() for folder in given}
    assert all(len(Predictor(folder).predict(inputs)) == 2 for folder, inputs in given.items())
    codes: list[int] = []
    answered = 0
    for number_of in range(number):
        folder = list(given)[number_of % 2]
        (folder / "manifest.json").write_bytes(mutated_json(texts[folder], rng))
        try:
            predictor = Predictor(folder)
            answered += len(predictor.predict(given[folder])) == 2
            if number_of % 4 == 1:
                predictor.adapt(given[folder], ["a", "b"])
        except MapstoError as error:
            codes.append(error.exit_code)
    assert set(codes) == {2}
    assert len(codes) > number / 2
    assert answered > 0


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("preprocessing.std", [float("nan")], "it holds NaN"),
        ("preprocessing.std", [0.0], r"signature.preprocessing.std is not above zero"),
        ("preprocessing.std", [1, 1], r"signature.preprocessing.std is not one number a channel"),
        ("preprocessing.mean", [1e400], "it holds Infinity"),
        ("preprocessing.size", [1 << 15, 1 << 15], "signature.preprocessing.size is too large"),
        ("preprocessing.columns.0.std", 0, r"columns.0.std is not above zero"),
        ("preprocessing.columns.1.fill", [0.5], r"columns.1.fill is not one number for each"),
        ("preprocessing.columns.1.name", "age", "columns name one twice"),
        ("preprocessing.columns.0.type", "dates", r"columns.0.type is not known"),
        ("preprocessing.columns.0.others", 1, r"columns.0.others is not true or false"),
        ("preprocessing.columns.0.missing", "sometimes", r"columns.0.missing is not known"),
        ("preprocessing.colour", 1, r"signature.preprocessing.colour is not known"),
        ("inputs.0.shape", ["N", 4], "columns give 3 numbers, not"),
        ("classes", ["cat", "cat"], "signature.classes names a class twice"),
        ("answers", "poems", "signature.answers is not known"),
        ("inputs.0.dtype", "int64", "inputs.0.dtype is int64, and samples become float32"),
        ("inputs.0.dtype", "float16", "inputs.0.dtype is float16, and samples become float32 or float64"),
        ("inputs.0.shape", [1, 3], "inputs.0.shape does not begin with a name"),
        ("inputs.0.ids", [3, 4], "inputs.0.ids are not one number"),
        ("inputs.0.ids", [-1], "inputs.0.ids are no numbers"),
        ("inputs.0.size", 3, "inputs.0.size is not known"),
        ("outputs.0.dtype", "bool", "outputs.0.dtype is bool, of which no scores are made"),
        ("outputs.0.dtype", "text", "outputs.0.dtype is not known"),
        ("outputs.0.ids", [3], "outputs.0.ids is not known"),
        ("outputs.0.shape", ["N", float("nan")], "it holds NaN"),
        ("outputs.0.shape", ["N", "two"], "outputs.0.shape is not a name, for any number of samples, and sizes"),
        ("outputs.0.shape", ["N", 2.0], "outputs.0.shape is no shape"),
        ("outputs.0.shape", ["N", 3], r"outputs.0.shape is \(3,\) behind the first, for 2 classes"),
        ("outputs.0.shape", [2, 2], "outputs.0.shape is not a name"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(package, place, value, message):
    manifest = json.loads((package / "manifest.json").read_text())
    at = manifest["signature"]
    *path, last = place.split(".")
    for part in path:
        at = at[int(part) if part.isdigit() else part]
    at[int(last) if last.isdigit() else last] = value
    (package / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=message):
        read_manifest(package)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "int64"}, "inputs.0.dtype is int64, and samples become float32"),
        ({"shape": ["N", 3, 4, 3]}, r"inputs.0.shape is \(3, 4, 3\) behind the first, and images become \(1, 4, 3\)"),
        ({"shape": ["N", 1, "H", 3]}, "inputs.0.shape is"),
        ({"ids": [4]}, "inputs.0.ids are not one number"),
        ({"name": "pixels"}, "its inputs are called input, and its signature says pixels"),
    ],
)
def test_what_images_cannot_become_is_refused(tmp_path, change, message):
    folder = of_images(tmp_path / "images")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["signature"]["inputs"][0] |= change
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=message):
        Predictor(folder)


@pytest.mark.parametrize("number", [FEW, MANY])
def test_what_is_let_through_is_answered(tmp_path, number):
    """Of any change to what a network takes and gives: it is refused before the first sample, or else each gets an answer."""
    rng = random.Random(number)
    plain = packed(tmp_path / "plain", {"model.onnx": model(3, 2).SerializeToString()})
    manifest = json.loads((plain / "manifest.json").read_text())
    del manifest["signature"]["preprocessing"]["columns"], manifest["signature"]["preprocessing"]["header"]
    (plain / "manifest.json").write_text(json.dumps(manifest))
    given = {plain: np.ones((2, 3), np.float32), of_images(tmp_path / "images"): np.zeros((2, 9, 9, 3), np.uint8)}
    trees = {folder: json.loads((folder / "manifest.json").read_text()) for folder in given}
    answered = 0
    codes: set[int] = set()
    for number_of in range(number):
        folder = list(given)[number_of % 2]
        tree = mutated_tree({"signature": trees[folder]["signature"]}, rng)
        (folder / "manifest.json").write_text(json.dumps(trees[folder] | tree))
        try:
            predictor = Predictor(folder)
        except MapstoError as error:
            codes.add(error.exit_code)
            continue
        if predictor.signature.classes is not None:
            assert len(predictor.predict([given[folder]])) == 2, tree
            answered += 1
    assert answered > number / 50
    assert codes == {2}


def with_external(location: str) -> bytes:
    given = model(3, 2)
    tensor = given.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "24"}.items():
        tensor.external_data.add(key=key, value=value)
    return given.SerializeToString()


def test_weights_lie_only_in_files_of_the_manifest(tmp_path):
    weights = np.eye(3, 2, dtype=np.float32).tobytes()
    (tmp_path / "secret").write_bytes(weights)
    for location in ("../secret", "secret", str(tmp_path / "secret")):
        folder = packed(tmp_path / "package", {"model.onnx": with_external(location)})
        shutil.copy(tmp_path / "secret", folder / "secret")
        with pytest.raises(TrustError, match=r"takes its weights from .* which the manifest does not hold"):
            Predictor(folder)
    good = packed(tmp_path / "good", {"model.onnx": with_external("weights.bin"), "weights.bin": weights})
    assert external_files((good / "model.onnx").read_bytes()) == {"weights.bin"}
    assert Predictor(good).outputs(np.ones((1, 3), np.float32)).tolist() == [[1.0, 1.0]]


def test_weights_inside_branches_are_found_too():
    branch = onnx.ModelProto.FromString(with_external("hidden")).graph
    node = helper.make_node("If", ["c"], ["o"], then_branch=branch, else_branch=branch)
    function = helper.make_function("d", "f", [], ["o"], [node], [helper.make_opsetid("", 18)])
    outer = helper.make_model(helper.make_graph([node], "g", [], []), functions=[])
    assert external_files(outer.SerializeToString()) == {"hidden"}
    alone = helper.make_model(helper.make_graph([], "g", [], []), functions=[function])
    assert external_files(alone.SerializeToString()) == {"hidden"}


def test_a_broken_model_is_the_users_error(package):
    rng = random.Random(0)
    whole = (package / "model.onnx").read_bytes()
    codes: set[int] = set()
    for _ in range(60):
        content = bytearray(whole)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        packed(package, {"model.onnx": bytes(content)})
        try:
            Predictor(package).outputs(np.ones((1, 3), np.float32))
        except MapstoError as error:
            codes.add(error.exit_code)
    assert codes == {2}

"""A model is ready when it answers the example that its package carries as it did when it was exported."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mapsto.errors import StoreError
from mapsto.service.served_model import ServedModel
from mapsto_runtime import own_example
from mapsto_runtime.signature import Signature
from tests.cli.packages import linear_package

PARITY = {"output_std": 1.0, "max_abs_difference": 1e-6}


def package(folder: Path, **more: Any) -> dict[str, Any]:
    """A package of a linear network with an example of its own; its manifest, of which some entries are replaced."""
    linear_package(folder, np.eye(4, 6), ("a", "b", "c", "d"))
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    x = own_example.pattern(Signature.from_plain(manifest["signature"]))
    manifest |= {"example": own_example.described(own_example.PATTERN, x @ np.eye(6, 4)), "parity": PARITY} | more
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return manifest


def test_a_model_that_answers_its_example_is_served(tmp_path: Path) -> None:
    package(tmp_path / "signs")
    assert ServedModel("signs", tmp_path / "signs").seconds > 0


def test_one_that_answers_it_otherwise_is_not(tmp_path: Path) -> None:
    manifest = package(tmp_path / "signs")
    path = tmp_path / "signs" / "model.onnx"
    model = onnx.load(path)
    weight = next(each for each in model.graph.initializer if each.name == "weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.eye(4, 6, dtype=np.float32)[::-1].copy(), "weight"))
    path.write_bytes(model.SerializeToString())
    manifest["files"]["model.onnx"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "signs" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="does not answer its own example as when it was exported: 2 of 4 outputs"):
        ServedModel("signs", tmp_path / "signs")


@pytest.mark.parametrize("example", [{"input": "pattern"}, [], {"input": "pattern", "outputs": "many"}])
def test_an_example_that_is_none_is_said(tmp_path: Path, example: Any) -> None:
    package(tmp_path / "signs", example=example)
    with pytest.raises(StoreError, match="its own example cannot be read; export it again"):
        ServedModel("signs", tmp_path / "signs")


def test_what_another_processor_computes_passes() -> None:
    outputs = np.array([[1.0, -0.5, 0.0]])
    example = own_example.described(own_example.PATTERN, outputs)
    for given, wrong in (([1.3, -0.3, 0.2], 0), ([1.0, -0.5, 0.3], 1), ([1.0, np.nan, 0.0], 1), ([1.0], 3)):
        assert own_example.differences(example, PARITY, np.array([given]))[0] == wrong, given

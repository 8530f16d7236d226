"""`export.onnx`: the same bytes anywhere, and outputs that agree."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.nets import Blobs, Plain, images, network, quantized
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Factory
from mapsto.mappings.export.onnx import Onnx
from mapsto.mappings.quantize.static import Static
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import runner
from mapsto_runtime import own_example
from mapsto_runtime.preprocessing import read_input
from mapsto_runtime.signature import Signature

pytestmark = pytest.mark.usefixtures("trusted", "one_thread")


class Deciding(nn.Module):
    """Its path depends on values, which no file can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * self.scale if bool(x.sum() > 0) else x.flatten(1)


def test_the_package_holds_hashes_signature_and_parity():
    given = Static(data=Blobs(), samples=64)(network(Plain))
    package = Onnx(data=Blobs(), samples=200)(given)
    manifest = package.manifest()
    content = package.files["model.onnx"].read_bytes()
    assert manifest["files"]["model.onnx"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["signature"]["classes"] == list("abcde")
    assert manifest["parity"]["on"] == "data"
    assert manifest["parity"]["samples"] == 200
    assert manifest["parity"]["top1_agreement"] == 1
    assert manifest["parity"]["max_abs_difference"] < 0.1 * manifest["parity"]["output_std"]
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert [item.name for item in (*model.graph.input, *model.graph.output)] == ["image", "scores"]


def test_the_package_carries_an_example_that_it_answers():
    for package in (Onnx(data=Blobs(), samples=20)(network(Plain)), Onnx(samples=20)(network(Plain))):
        manifest = package.manifest()
        signature, example = Signature.from_plain(manifest["signature"]), manifest["example"]
        images = [name for name in package.files if name.startswith("examples/")]
        assert example["input"] == (min(images) if images else own_example.PATTERN)
        x = read_input(package.files[images[0]], signature) if images else own_example.pattern(signature)
        run = runner(package.files["model.onnx"].read_bytes())
        assert len(example["outputs"]) == 5
        assert own_example.differences(example, manifest["parity"], run(x)) == (0, 5)
        wrong, _ = own_example.differences(example, manifest["parity"], run(x)[:, ::-1])
        assert wrong > 0, "other classes"


def test_any_batch_size_runs():
    given = network(Plain)
    run = runner(to_onnx(given))
    whole = run(images(7).numpy())
    assert whole.shape == (7, 5)
    np.testing.assert_allclose(np.concatenate([run(images(7).numpy()[i : i + 1]) for i in range(7)]), whole, atol=1e-5)
    np.testing.assert_allclose(given.module()(images(7)).detach().numpy(), whole, atol=1e-5)


def test_without_data_the_report_says_so():
    parity = Onnx(samples=16)(network(Plain)).manifest()["parity"]
    assert parity["on"] == "generated"
    assert parity["output_std"] > 0


def test_weights_are_stored_as_bytes():
    given = network(Plain)
    small = Static(data=Blobs(), samples=64)(given)
    model = onnx.load_from_string(to_onnx(small))
    kinds = {item.name: item.data_type for item in model.graph.initializer if len(item.dims) == 4}
    assert sorted(kinds.values()) == [onnx.TensorProto.FLOAT, onnx.TensorProto.INT8, onnx.TensorProto.INT8]


SCRIPT = """
import hashlib
import torch
from mapsto.kinds import trusting
from mapsto.nn.export.onnx import to_onnx
from tests.nets import Plain, network, quantized
torch.set_num_threads(1)
with trusting("tests"):
    print(hashlib.sha256(to_onnx(quantized(network(Plain)))).hexdigest())
"""


@pytest.mark.slow
def test_the_same_bytes_from_another_process_and_folder(tmp_path: Path):
    root = Path(__file__).parents[3]
    path = os.pathsep.join(map(str, (root / "src", root / "runtime" / "src", root)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(to_onnx(quantized(network(Plain)))).hexdigest()


def test_no_local_path_is_in_the_file():
    model = to_onnx(network(Plain))
    assert b"tests" not in model
    assert str(Path(__file__).parents[3]).encode() not in model


def test_what_cannot_be_exported_is_refused():
    given = dataclasses.replace(
        network(Plain),
        arch=Factory(name="tests.mappings.export.test_export:Deciding"),
        tensors={"scale": torch.ones(1)},
    )
    with pytest.raises(DomainError, match="torch cannot export this network to ONNX"):
        Onnx()(given)
    broken = network(Plain)
    broken.tensors["classifier.weight"][0, 0] = float("nan")
    with pytest.raises(DomainError, match="not all finite"):
        Onnx(samples=4)(broken)


def test_data_that_does_not_fit_is_refused():
    given = network(Plain)
    [spec] = given.signature.inputs
    signature = dataclasses.replace(given.signature, inputs=(dataclasses.replace(spec, shape=("N", 1, 32, 32)),))
    with pytest.raises(DomainError, match=r"\(1, 32, 32\) behind the first, and images become \(1, 16, 16\)"):
        Onnx(data=Blobs())(dataclasses.replace(given, signature=signature))

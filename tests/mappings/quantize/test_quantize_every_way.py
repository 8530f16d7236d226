"""Every way of quantizing: saved, loaded in a fresh process, exported, and refused what it cannot take."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.nets import Blobs, Plain, images, network

from mapsto.context import Context
from mapsto.data.sets.digits import Digits
from mapsto.discovery import entries, find
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Dataset, Network, Preprocessing, Samples
from mapsto.mappings.export.onnx import Onnx
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.store import Store
from mapsto_runtime.runtimes.onnxruntime import session

FLOAT = ("static", "dynamic", "weight_only", "bf16", "equalise")
"""What takes a float network."""
QUANTIZED = ("correct_bias", "adaround", "aware", "mixed")
"""What takes one from `quantize.static`."""
ALIKE = ("bf16", "equalise", "correct_bias", "adaround", "mixed")
"""What is exported as others are: tested among the slow ones."""
SAMPLED = ("static", "correct_bias", "adaround", "mixed")


pytestmark = pytest.mark.usefixtures("trusted", "one_thread")


def way(name: str, data: Dataset, **fields: object):
    given: dict[str, object] = {"data": data} if name in (*SAMPLED, "aware") else {}
    small = {"adaround": {"steps": 5}, "aware": {"epochs": 1, "learn_scales": True}, "mixed": {"max_drop": 100}}
    sampled = {"samples": 64} if name in SAMPLED else {}
    return find("mappings", f"quantize.{name}")(**{**given, **sampled, **small.get(name, {}), **fields})


@pytest.fixture(scope="module")
def results() -> dict[str, Network]:
    data = Digits(size=16)
    given = Conv4(channels=1, size=16, width=8, classes=10)()
    quantized = way("static", data)(given)
    return {name: way(name, data)(given if name in FLOAT else quantized) for name in (*FLOAT, *QUANTIZED)}


@pytest.mark.slow
def test_loaded_in_a_fresh_process_they_answer_the_same_to_the_last_bit(results, tmp_path):
    digests = [Store(tmp_path / "store").save(value) for value in results.values()]
    x = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "x.npy", x.numpy())
    script = (
        "import sys, numpy, torch; from mapsto.store import Store; torch.set_num_threads(1)\n"
        "x = torch.from_numpy(numpy.load(sys.argv[2]))\n"
        "nets = [Store(sys.argv[1]).load(digest) for digest in sys.argv[4:]]\n"
        "with torch.no_grad(): numpy.save(sys.argv[3], numpy.stack([net.module()(x).numpy() for net in nets]))\n"
    )
    out = tmp_path / "y.npy"
    command = [sys.executable, "-c", script, str(tmp_path / "store"), str(tmp_path / "x.npy"), str(out), *digests]
    subprocess.run(command, check=True, timeout=120)
    for (name, value), answers in zip(results.items(), np.load(out), strict=True):
        with torch.no_grad():
            assert np.array_equal(value.module()(x).numpy(), answers), name


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in (*FLOAT, *QUANTIZED)],
)
def test_the_package_agrees_with_the_simulation(results, name):
    parity = Onnx(data=Digits(size=16), samples=100)(results[name]).manifest()["parity"]
    assert parity["output_std"] > 0
    assert parity["mean_abs_difference"] < 0.01 * parity["output_std"]
    assert parity["top1_agreement"] in (1, None)


@pytest.mark.parametrize("name", ["static", "dynamic", "weight_only", "bf16", "equalise"])
@pytest.mark.parametrize("first", ["static", "dynamic", "weight_only", "bf16"])
def test_what_is_quantized_is_not_quantized_again(results, name, first):
    with pytest.raises(DomainError, match="quantized already"):
        way(name, Digits(size=16))(results[first])


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("first", ["equalise", "dynamic", "weight_only"])
def test_corrections_want_quantizers(results, name, first):
    with pytest.raises(DomainError, match="no quantizers on weights and activations"):
        way(name, Digits(size=16))(results[first])


@pytest.mark.parametrize("name", ["static", "dynamic", "weight_only", "bf16", "equalise"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(name, bad):
    given = network(Plain)
    module = given.module()
    with torch.no_grad():
        module.features[4].weight[0, 0, 0, 0] = bad
    with pytest.raises((DomainError, DataError), match=r"not (all )?finite"):
        way(name, Blobs())(given.with_module(module))


class Few(Dataset):
    """A few blobs."""

    count: int = 3
    """How many."""

    def fingerprint(self) -> str:
        return f"few {self.count}"

    def open(self) -> Samples:
        kind = Preprocessing(channels=1, size=(16, 16))
        pixels = images(self.count).mul(64).add(128).clamp(0, 255).numpy().astype(np.uint8)
        return Samples(inputs=pixels, labels=np.arange(self.count) % 5, classes=tuple("abcde"), preprocessing=kind)


class Rows(Dataset):
    """Rows where images are wanted."""

    def fingerprint(self) -> str:
        return "rows"

    def open(self) -> Samples:
        kind = Preprocessing(kind="none")
        inputs = np.zeros((20, 3), np.float32)
        return Samples(inputs=inputs, labels=np.arange(20) % 5, classes=tuple("abcde"), preprocessing=kind)


@pytest.mark.parametrize("name", ["static", "correct_bias", "adaround"])
def test_too_few_samples_are_counted(name):
    small = way("static", Blobs())(network(Plain))
    with pytest.raises(DataError, match="only 3 samples, at least 8 are needed"):
        way(name, Few())(network(Plain) if name == "static" else small)


@pytest.mark.parametrize("name", SAMPLED)
def test_data_of_another_shape_is_refused(name):
    small = way("static", Blobs())(network(Plain))
    with pytest.raises((DataError, DomainError), match=r"expected images of shape|inputs of shape"):
        way(name, Rows())(network(Plain) if name == "static" else small)


@pytest.mark.parametrize("name", SAMPLED)
def test_data_or_tasks(name):
    with pytest.raises(SpecError, match="give either data or tasks"):
        find("mappings", f"quantize.{name}")()


@pytest.mark.parametrize("name", ["static", "dynamic", "weight_only", "equalise"])
def test_an_unknown_module_in_skip_is_named(name):
    with pytest.raises(DomainError, match="'head' in skip is no module"):
        way(name, Blobs(), skip=("head",))(network(Plain))


def test_an_operator_that_the_runtime_lacks_is_named():
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [1, 3, 4, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("LRN", ["x"], ["y"], size=3)], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    with pytest.raises(DomainError, match="cannot run this model: Could not find an implementation for LRN"):
        session(model.SerializeToString())


@pytest.mark.parametrize(
    "name", [name.removeprefix("quantize.") for name in entries("mappings") if name.startswith("quantize.")]
)
def test_every_way_says_what_stays_in_float_and_why(name: str, results: dict[str, Network]) -> None:
    data, first = Digits(size=16), "features.0.0"
    skips = {"skip": (first,)} if name in ("static", "dynamic", "weight_only") else {}
    ctx = Context()
    given = Conv4(channels=1, size=16, width=8, classes=10)() if name in FLOAT else results["static"]
    ctx.apply(way(name, data, **skips), given)
    texts = [text for text in (*ctx.warnings, *ctx.notes) if text.startswith("left in float: ")]
    assert texts, "each names layers, or says that all of them do"
    assert all(", because " in text for text in texts)
    assert any(f"{first} (1 of " in text or "all " in text for text in texts), texts

"""`quantize.static`: from a network to one that computes in integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.nets import Blobs, Plain, Residual, images, network

from mapsto.discovery import find
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Dataset, Preprocessing, Samples
from mapsto.mappings.quantize.static import Static
from mapsto.nn.edits.quantizers import Quantizers
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import fused_operations, runner
from mapsto.nn.network.preprocess import prepare
from mapsto.store import network_digest

pytestmark = pytest.mark.usefixtures("trusted", "one_thread")


class Rows(Dataset):
    """Rows where images are wanted, or images with a hole."""

    nan: bool = False
    """Images with NaN instead."""

    def fingerprint(self) -> str:
        return "rows"

    def open(self) -> Samples:
        inputs = images(20).numpy() if self.nan else np.zeros((20, 3), np.float32)
        if self.nan:
            inputs[:, 0, 3, 3] = np.nan
        kind = Preprocessing(channels=1, size=(16, 16)) if self.nan else Preprocessing(kind="none")
        return Samples(inputs=inputs, labels=np.zeros(20, np.int64), classes=("a",), preprocessing=kind)


@pytest.mark.parametrize("kind", [Plain, Residual])
def test_quantized_predicts_the_same_with_integer_kernels(kind):
    given = network(kind)
    tensors = {name: tensor.clone() for name, tensor in given.tensors.items()}
    small = Static(data=Blobs(), samples=200)(given)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in given.tensors.items())
    assert small.signature == given.signature
    before, after = given.module()(images(200, 5)), small.module()(images(200, 5))
    assert (before.argmax(1) == after.argmax(1)).float().mean() > 0.95
    assert fused_operations(to_onnx(small))["QLinearConv"] >= 2


def test_a_learner_is_quantized_too():
    given = network(Plain, classes=0)
    small = Static(data=Blobs(), samples=64)(given)
    before, after = given.module()(images(50, 5)), small.module()(images(50, 5))
    assert torch.nn.functional.cosine_similarity(before, after).min() > 0.99


def test_same_seed_same_scales():
    given = network(Plain)
    once, twice, other = (Static(data=Blobs(), samples=32)(given, seed=seed) for seed in (1, 1, 2))
    assert once.edits == twice.edits
    assert once.edits != other.edits


def test_the_first_layer_and_skipped_ones():
    given = network(Plain)

    def weights(**fields) -> set[str]:
        edit = Static(data=Blobs(), samples=32, **fields)(given).edits[-1]
        assert isinstance(edit, Quantizers)
        return {q.path for q in edit.quantizers if q.weight}

    assert weights() == {"features.4", "features.7", "classifier"}
    assert weights(first="int") == {"features.0", "features.4", "features.7", "classifier"}
    assert weights(skip=("classifier",)) == {"features.4", "features.7"}
    with pytest.raises(DomainError, match="'head' in skip is no module"):
        weights(skip=("head",))
    with pytest.raises(DomainError, match="no layer can be quantized"):
        weights(skip=("features", "classifier"))


def test_the_range_is_reduced_where_the_cpu_needs_it(monkeypatch):
    given = network(Plain)
    highest = {}
    for lacks_vnni in (False, True):
        monkeypatch.setattr("mapsto.mappings.quantize.static._needs_reduced_range", lambda value=lacks_vnni: value)
        edit = Static(data=Blobs(), samples=32)(given).edits[-1]
        highest[lacks_vnni] = {q.quant_max for q in edit.quantizers if q.weight and q.bits == 8}
    assert highest == {False: {127}, True: {63}}


def test_what_cannot_be_quantized_is_refused():
    given = network(Plain)
    small = Static(data=Blobs(), samples=32)(given)
    with pytest.raises(DomainError, match="quantized already"):
        Static(data=Blobs(), samples=32)(small)
    with pytest.raises(DataError, match=r"expected images of shape"):
        Static(data=Rows(), samples=10)(given)
    with pytest.raises(DataError, match="not all finite"):
        Static(data=Rows(nan=True), samples=10)(given)
    with pytest.raises(SpecError, match="bits"):
        Static(data=Blobs(), bits=1)


def test_fewer_samples_than_asked_for_are_all_taken():
    given = network(Plain)
    more, all_of_them = (Static(data=Blobs(), samples=samples)(given) for samples in (601, 600))
    assert network_digest(more) == network_digest(all_of_them)


SOURCES = {
    "conv4": {"width": 16},
    "vgg": {"plan": ((8, 8), (16, 16))},
    "resnet_cifar A": {"depth": 8, "width": 8, "shortcut": "A"},
    "resnet_cifar B": {"depth": 8, "width": 8, "shortcut": "B"},
    "resnet12": {"width": 8},
    "efficientnet_lite0": {"pretrained": False},
}


class Noise(Dataset):
    """Coarse colour noise."""

    size: int = 32
    """Height and width in pixels."""

    def fingerprint(self) -> str:
        return f"noise {self.size}"

    def open(self) -> Samples:
        coarse = torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        pixels = torch.nn.functional.interpolate(coarse, size=(self.size, self.size), mode="bilinear")
        return Samples(
            inputs=pixels.mul(255).to(torch.uint8).numpy(),
            labels=np.arange(64) % 4,
            classes=tuple("abcd"),
            preprocessing=Preprocessing(size=(self.size, self.size), mean=(0.5,) * 3, std=(0.25,) * 3),
        )


def test_the_first_layer_of_images_in_colour():
    data = Noise(size=16)
    given = find("mappings", "networks.conv4")(data=data, width=8, blocks=2, classes="data")()

    def weights(**fields) -> int:
        edit = Static(data=data, samples=32, **fields)(given).edits[-1]
        assert isinstance(edit, Quantizers)
        return sum(q.weight for q in edit.quantizers)

    assert weights() == weights(first="int") > weights(first="float")
    assert weights(bits=4) == weights(bits=4, first="float")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ("efficientnet_lite0", "resnet12") else name
        for name in SOURCES
    ],
)
def test_every_network_of_ours_runs_in_integers(name):
    if name == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch", reason="the extra 'vision' is not installed")
    data = Noise(size=64 if name == "efficientnet_lite0" else 32)
    given = find("mappings", f"networks.{name.split()[0]}")(data=data, **SOURCES[name])()
    module = given.module().train()
    inputs = prepare(data.open().inputs, given.signature.preprocessing)
    with torch.no_grad():
        for _ in range(3):
            module(inputs[:32])
    given = given.with_module(module.eval())
    small = Static(data=data, samples=32)(given)
    model = to_onnx(small)
    fused = fused_operations(model)
    assert fused["QLinearConv"] >= 3
    assert fused["Conv"] == 0, "no convolution of an image in colour stays float"
    simulated, real = small.module()(inputs).detach().numpy(), runner(model)(inputs.numpy())
    assert np.median(np.abs(simulated - real)) < 0.05 * simulated.std(0).mean()

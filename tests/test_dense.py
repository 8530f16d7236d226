"""Networks that answer with a map: a U-Net from pruning to a package's maps, and what refuses it by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mapsto import adapt, distill, evaluate, export, prune, quantize, train
from mapsto.errors import DomainError
from mapsto.kinds import Network, Package, trusting
from mapsto.nn.profile.comparison import agreement
from mapsto.nn.profile.counts import count_macs
from mapsto.report.build import save_package
from mapsto_runtime.predictor import Predictor
from tests.command import mapsto
from tests.foreign import Noise, UNet

DATA = Noise(shape=(3, 16, 16), classes=3, count=24)
X = torch.from_numpy(DATA.open().inputs)


@pytest.fixture(scope="module", params=["transposed", "upsampled"])
def unet(request: pytest.FixtureRequest) -> Network:
    torch.manual_seed(0)
    module = UNet(upsample=request.param == "upsampled").train()
    module(X)
    arguments = {"upsample": request.param == "upsampled"}
    return Network.from_module(module.eval(), X[:2], arguments=arguments, classes=("sky", "sea", "land"))


def answer(network: Network) -> torch.Tensor:
    with torch.no_grad():
        return network.module()(X)


def test_pruned_by_magnitude(unet: Network) -> None:
    small = prune.magnitude(macs=0.5)(unet)
    assert small.signature.outputs[0].shape == ("N", 3, 16, 16)
    assert answer(small).shape == (24, 3, 16, 16)
    assert count_macs(small.module(), X[:1]) <= 0.5 * count_macs(unet.module(), X[:1])


@pytest.mark.parametrize(
    "how",
    [quantize.static(data=DATA), quantize.weight_only(), quantize.dynamic(), quantize.bf16()],
    ids=lambda how: how.name,
)
def test_quantized(unet: Network, how: Any) -> None:
    assert agreement(answer(unet), answer(how(unet)), "maps") > 95


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Package, Path]:
    torch.manual_seed(0)
    network = quantize.static(data=DATA)(
        Network.from_module(UNet().eval(), X[:2], arguments={}, classes=("sky", "sea", "land"))
    )
    made = export.onnx(data=DATA, samples=24)(network)
    folder = tmp_path_factory.mktemp("dense") / "package"
    save_package(made, folder)
    np.save(folder.parent / "two.npy", X[:2].numpy())
    np.save(folder.parent / "one.npy", X[2].numpy())
    return network, made, folder


def test_a_packages_maps(package: tuple[Network, Package, Path]) -> None:
    network, made, folder = package
    assert made.manifest()["signature"]["outputs"][0]["shape"] == ["N", 3, 16, 16]
    assert made.manifest()["parity"]["top1_agreement"] > 0.99
    found = Predictor(folder).predict([folder.parent / "two.npy", folder.parent / "one.npy"])
    maps = np.stack([each.map for each in found if each.map is not None])
    expected = answer(network)[:3]
    assert maps.shape == (3, 3, 16, 16)
    assert agreement(expected, torch.from_numpy(maps), "maps") > 99
    first = np.bincount(maps[0].argmax(0).ravel(), minlength=3) / 256
    assert found[0].scores == dict(
        sorted(zip(("sky", "sea", "land"), first.tolist(), strict=True), key=lambda item: -item[1])
    )
    assert found[0].label.startswith("a map of 3 × 16 × 16: ")
    assert found[0].probability is None


def test_the_command_line_says_the_shares_and_writes_the_maps(
    package: tuple[Network, Package, Path], tmp_path: Path
) -> None:
    folder, (_, _, place) = tmp_path / "maps", package
    shown = mapsto("predict", place, place.parent / "two.npy", "--maps", folder, "--json", code=0)
    rows = json.loads(shown.out)
    assert [Path(row["map"]).name for row in rows] == ["two.npy", "two_1.npy"]
    assert all(np.load(row["map"]).shape == (3, 16, 16) for row in rows)
    assert "a map of 3 × 16 × 16" in mapsto("predict", place, place.parent / "one.npy", code=0).out


def test_maps_without_classes_and_no_maps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with trusting("torch"):
        plain = export.onnx(samples=4)(Network.from_module(torch.nn.Conv1d(2, 1, 1), torch.randn(2, 2, 5)))
    save_package(plain, tmp_path / "plain")
    found = Predictor(tmp_path / "plain").predict([np.ones((2, 5), np.float32)])[0]
    assert "a map of 1 × 5: values from" in found.label
    assert found.scores == {}
    with trusting("torch"):
        linear = Network.from_module(torch.nn.Linear(2, 2), torch.randn(2, 2), classes=("a", "b"))
        vector = export.onnx(samples=4)(linear)
    save_package(vector, tmp_path / "vector")
    np.save(tmp_path / "x.npy", np.ones((1, 2)))
    refused = mapsto("predict", tmp_path / "vector", tmp_path / "x.npy", "--maps", tmp_path / "maps", code=2)
    assert "its output is no map" in refused.err


@pytest.mark.parametrize(
    "step",
    [
        evaluate.accuracy(data=DATA),
        adapt.linear(data=DATA),
        adapt.centroid(data=DATA),
        adapt.finetune(data=DATA),
        train.supervised(data=DATA, epochs=1),
        prune.taylor(macs=0.5, data=DATA),
        distill.self(data=DATA, epochs=1),
        evaluate.sensitivity(data=DATA),
    ],
    ids=lambda step: step.name,
)
def test_what_goes_by_one_answer_a_sample_says_so(step: Any) -> None:
    network = Network.from_module(UNet().eval(), X[:2], arguments={})
    with pytest.raises(DomainError, match=r"output is dense, \(3, 16, 16\) for a sample"):
        step(network)


def test_training_a_quantized_one_says_so() -> None:
    network = quantize.static(data=DATA)(Network.from_module(UNet().eval(), X[:2], arguments={}))
    with pytest.raises(DomainError, match=r"quantize.aware: the network's output is dense"):
        quantize.aware(data=DATA, epochs=1)(network)

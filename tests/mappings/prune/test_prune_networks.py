"""Every kind of network is pruned to half its work, read by another process, trained on, and exported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mapsto.kinds import Network, Preprocessing
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.nn.network.build import network_of
from mapsto.nn.network.serialization import saved
from mapsto.nn.profile.counts import count_macs
from mapsto.nn.prune.dependency_groups import find_groups

BERT = {
    "model_type": "bert",
    "vocab_size": 16,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
NETWORKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vgg": ("vgg", {"plan": [[8, 8], [16]], "size": 8}, {}),
    "resnet A": ("resnet_cifar", {"depth": 8, "width": 6}, {}),
    "resnet A, padded": ("resnet_cifar", {"depth": 8, "width": 6}, {"padded": True, "ranking": "global"}),
    "resnet B": ("resnet_cifar", {"depth": 8, "width": 6, "shortcut": "B"}, {}),
    "densenet": ("densenet", {"depth": 16, "growth": 4}, {}),
    "mobilenet_v2": ("mobilenet_v2", {"width": 0.25, "depth": 0.3}, {}),
    "shufflenet_v2": ("shufflenet_v2", {"plan": [8, 16, 16, 32], "blocks": [3, 2, 1]}, {}),
    "vit": ("vit", {"size": 8, "depth": 2, "width": 8, "heads": 2, "hidden": 64}, {}),
    "bert": ("hf:hf_text", {"config": BERT}, {}),
    "grouped": ("tests.mappings.prune.test_prune_networks:Grouped", {}, {}),
    "own": ("tests.mappings.prune.test_prune_networks:Own", {}, {}),
}
SIZE, CLASSES = 8, 5


class Grouped(nn.Module):
    """As in ResNeXt, with a squeeze-and-excite gate and a transposed convolution in groups."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.reduce = nn.Sequential(nn.Conv2d(16, 24, 1), nn.GroupNorm(6, 24), nn.ReLU())
        self.grouped = nn.Sequential(nn.Conv2d(24, 24, 3, 2, 1, groups=6), nn.BatchNorm2d(24), nn.ReLU())
        self.up = nn.ConvTranspose2d(24, 12, 2, 2, groups=6)
        self.expand = nn.Sequential(nn.Conv2d(12, 16, 1), nn.InstanceNorm2d(16, affine=True), nn.ReLU())
        self.squeeze, self.excite = nn.Linear(16, 4), nn.Linear(4, 16)
        self.classifier = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.expand(self.up(self.grouped(self.reduce(x))))
        gate = torch.sigmoid(self.excite(self.squeeze(x.mean((2, 3))).relu()))
        return self.classifier((x + y * gate[:, :, None, None]).mean((2, 3)))


class Own(nn.Module):
    """Shared weights, a lambda, in-place operations, its own channel shuffle, halves of halves, and a gated unit."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.shared = nn.Conv2d(8, 12, 3)
        self.act = lambda x: x.clamp_(min=0).mul_(2)
        self.scale = nn.Parameter(torch.ones(12, 1, 1))
        self.gate = nn.Linear(12, 32)
        self.tied = nn.Linear(12, 32)
        self.tied.weight = self.gate.weight
        self.classifier = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        left, right = (self.act(self.shared(self.act(part(x)))) for part in (self.first, self.second))
        x = torch.max(left, right) * self.scale
        count, channels, height, width = x.shape
        x = x.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(count, -1, height, width)
        x = x.flatten(2).mean(-1)
        a, b = (self.gate(x) + self.tied(x)).chunk(2, -1)
        return self.classifier(a * b.sigmoid())


pytestmark = pytest.mark.usefixtures("trusted")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Layers this small are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def whole(name: str) -> Network:
    """The network with random statistics and no weight at zero, so that no channel is like another."""
    factory, arguments, _ = NETWORKS[name]
    if name == "bert" and importlib.util.find_spec("transformers") is None:
        pytest.skip("the extra text is not installed")
    torch.manual_seed(0)
    path = factory if factory.startswith("tests.") else f"mapsto.nn.networks.{factory}"
    made = network_of(
        path if ":" in path else f"{path}:{factory}",
        {**arguments, "classes": CLASSES},
        Preprocessing(channels=3, size=(SIZE, SIZE)) if name != "bert" else Preprocessing(kind="none"),
        example=torch.zeros(2, 3, SIZE, SIZE) if name != "bert" else torch.ones(2, 6, dtype=torch.int64),
    )
    module = made.module()
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.add_(torch.randn_like(tensor), alpha=0.1)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.running_var, 0.5, 1.5)
                nn.init.normal_(part.running_mean, std=0.3)
    return made.with_module(module)


@cache
def half(name: str) -> Network:
    return Magnitude(macs=0.5, **NETWORKS[name][2])(whole(name))


def inputs(name: str) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if name == "bert":
        return torch.randint(1, 16, (3, 6), generator=generator)
    return torch.randn(3, 3, SIZE, SIZE, generator=generator)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_pruned_to_half_and_trains_on(name: str) -> None:
    big, small = whole(name), half(name)
    assert 0.35 < count_macs(small.module(), inputs(name)) / count_macs(big.module(), inputs(name)) <= 0.5
    assert small.signature == big.signature
    module = small.module().train()
    before = {key: tensor.clone() for key, tensor in module.named_parameters()}
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    nn.functional.cross_entropy(module(inputs(name)), torch.tensor([0, 1, 2])).backward()
    optimizer.step()
    still = [key for key, tensor in module.named_parameters() if torch.equal(tensor, before[key])]
    assert all("pooler" in key or "bias" in key or "embeddings" in key for key in still), still
    assert module.eval()(inputs(name)).isfinite().all()


@pytest.mark.parametrize("name", ["resnet A, padded", "densenet", "shufflenet_v2", "grouped", "own"])
def test_it_can_be_pruned_again(name: str) -> None:
    once = half(name)
    twice = Magnitude(parameters=0.6, **NETWORKS[name][2])(once)
    assert len(twice.edits) == 2
    assert twice.module()(inputs(name)).std() > 0


@pytest.mark.slow
def test_another_process_reads_them(tmp_path: Path) -> None:
    names = [name for name in NETWORKS if name != "bert" or importlib.util.find_spec("transformers") is not None]
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        for file, content in saved(half(name)).items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        x = inputs(name)
        save_file({"x": x, "y": half(name).module()(x).detach()}, folder / "pair")
    code = """if True:
        import sys, pathlib, torch
        from safetensors.torch import load_file, save_file
        from mapsto.kinds import trusting
        from mapsto.nn.network.serialization import load
        torch.set_num_threads(1)
        with trusting("tests"):
            for folder in pathlib.Path(sys.argv[1]).iterdir():
                pair = load_file(folder / "pair")
                save_file({"y": load(folder).module()(pair["x"]).detach()}, folder / "again")
    """
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=300, cwd=Path(__file__).parents[3])
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        expected = load_file(folder / "pair")["y"]
        assert torch.equal(load_file(folder / "again")["y"], expected), name
        assert expected.std() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_exports(name: str) -> None:
    from mapsto.nn.export.onnx import to_onnx
    from mapsto.nn.export.runtimes.onnxruntime import runner

    x = inputs(name)
    expected = half(name).module()(x).detach().numpy()
    np.testing.assert_allclose(runner(to_onnx(half(name)))(x.numpy()), expected, rtol=1e-4, atol=1e-4)


def test_padded_shortcuts_lose_zeros_only_on_request() -> None:
    module, x = whole("resnet A").module(), inputs("resnet A")
    assert all(group.name.endswith(".conv1") for group in find_groups(module, x).groups if "." in group.name)
    assert "layer2.0.conv2" in find_groups(module, x).whole
    assert list(find_groups(module, x, padded=True).whole) == ["linear"]
    shortcut = half("resnet A, padded").module().get_submodule("layer2.0.shortcut")
    stream = half("resnet A, padded").tensors["layer1.0.conv2.weight"].shape[0]
    wide = half("resnet A, padded").tensors["layer2.0.conv2.weight"].shape[0]
    assert shortcut.before + stream + shortcut.after == wide < 12


def test_transformers_lose_perceptrons_and_the_rest_is_named() -> None:
    found = find_groups(whole("vit").module(), inputs("vit"))
    assert [group.name for group in found.groups] == ["blocks.0.fc1", "blocks.1.fc1"]
    assert set(found.whole) == {
        "patches",
        "classifier",
        *(f"blocks.{n}.{layer}" for n in (0, 1) for layer in ("attention.qkv", "attention.proj", "fc2")),
    }
    assert "native_layer_norm in 'blocks.0.norm1'" in found.whole["patches"]
    bert = find_groups(whole("bert").module(), inputs("bert"))
    assert [group.name for group in bert.groups] == [f"encoder.encoder.layer.{n}.intermediate.dense" for n in (0, 1)]
    assert "product of two activations" in bert.whole["encoder.encoder.layer.0.attention.self.query"]


def test_shuffled_channels_go_one_by_one() -> None:
    module = half("shufflenet_v2").module()
    unit = module.get_submodule("features.3.1")
    assert sorted([*unit.left.tolist(), *unit.right.tolist()]) == list(range(len(unit.left) + len(unit.right)))
    assert "features.3.1.left" not in half("shufflenet_v2").tensors

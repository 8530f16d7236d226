from __future__ import annotations

import dataclasses
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.foreign_checkpoints import Spoken
from tests.mappings.small import Corners, context
from tests.text.tiny_encoder import WORDS, tiny_encoder, tokenizer

from mapsto.context import Context
from mapsto.data.sets.arrays import Arrays
from mapsto.data.sets.cifar10 import Cifar10
from mapsto.data.sets.table import Table
from mapsto.errors import DataError, DomainError, MissingExtra, SpecError, TrustError
from mapsto.kinds import Network, Preprocessing, trusting
from mapsto.mapping import Mapping
from mapsto.mappings.evaluate.accuracy import Accuracy
from mapsto.mappings.networks.checkpoint import Checkpoint, _guessed
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.networks.densenet import Densenet
from mapsto.mappings.networks.efficientnet_lite0 import EfficientnetLite0
from mapsto.mappings.networks.hf_text import HfText
from mapsto.mappings.networks.mobilenet_v2 import MobilenetV2
from mapsto.mappings.networks.resnet12 import Resnet12
from mapsto.mappings.networks.resnet_cifar import ResnetCifar
from mapsto.mappings.networks.shufflenet_v2 import ShufflenetV2
from mapsto.mappings.networks.timm import Timm
from mapsto.mappings.networks.vgg import Vgg
from mapsto.mappings.networks.vit import Vit

RESNET = "mapsto.nn.networks.resnet_cifar:resnet_cifar"
CONFIG = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def made(mapping: Mapping[None, Network]) -> Network:
    return context().apply(mapping, None)


@pytest.mark.parametrize(
    ("mapping", "shape"),
    [
        (Conv4(width=8), ("N", 8)),
        (Conv4(width=8, data=Corners(), blocks=2, classes="data"), ("N", 4)),
        (Vgg(depth=11, width=4, classes=7), ("N", 7)),
        (Vgg(plan=((4,), (8, 8), (12,)), data=Corners()), ("N", 12)),
        (ResnetCifar(depth=8, width=4), ("N", 16)),
        (ResnetCifar(depth=8, width=4, shortcut="B", classes=10), ("N", 10)),
        (Resnet12(width=4, size=16), ("N", 40)),
        (EfficientnetLite0(size=32), ("N", 1280)),
        (Densenet(depth=10, growth=4, data=Corners(), classes="data"), ("N", 4)),
        (MobilenetV2(width=0.25, depth=0.25), ("N", 1280)),
        (ShufflenetV2(plan=(8, 12, 16, 24), blocks=(2, 1, 1), size=96), ("N", 24)),
        (Vit(depth=1, width=12, patch=8), ("N", 12)),
        (Timm(size=32), ("N", 512)),
        (HfText(configuration=CONFIG, length=8), ("N", 16)),
        (HfText(configuration=CONFIG, length=8, classes=3), ("N", 3)),
    ],
    ids=lambda value: value.name if isinstance(value, Mapping) else None,
)
def test_a_source_gives_a_network_that_can_be_rebuilt(mapping: Mapping[None, Network], shape: tuple[str, int]) -> None:
    try:
        network = made(mapping)
    except MissingExtra as error:
        pytest.skip(str(error))
    spec = network.signature.inputs[0]
    example = torch.ones(network.signature.input_shape(2), dtype=getattr(torch, spec.dtype))
    assert network.signature.outputs[0].shape == shape
    assert network.module()(example).shape == (2, shape[1])
    again = made(mapping).tensors
    assert all(torch.equal(tensor, again[name]) for name, tensor in network.tensors.items())


def test_the_data_gives_form_and_names() -> None:
    signature = made(Vgg(plan=((4,), (8,)), data=Corners(), classes="data")).signature
    assert signature.preprocessing == Corners().open().preprocessing
    assert signature.classes == Corners().open().classes
    colour = made(Vgg(plan=((4,), (8,)), data=Corners(), channels=3, size=16)).signature
    assert (colour.preprocessing.mean, colour.preprocessing.size) == ((0.5, 0.5, 0.5), (16, 16))
    with pytest.raises(DomainError, match="give data"):
        made(Vgg(classes="data"))
    with pytest.raises(SpecError, match="depth"):
        Vgg(depth=12)  # pyright: ignore[reportArgumentType]
    with pytest.raises(SpecError, match="2 numbers for 4 blocks"):
        Conv4(width=(8, 8))


def test_a_text_encoder_from_a_folder(tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers", reason="the extra text is not installed")
    tiny_encoder(tmp_path)
    network = made(HfText(folder=str(tmp_path), length=8))
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[5, 6, 7, 0]])
    hidden = model(input_ids=ids, attention_mask=(ids > 0).long()).last_hidden_state
    wanted = torch.nn.functional.normalize(hidden[:, :3].mean(1), dim=1)
    assert torch.allclose(network.module()(ids), wanted, atol=1e-6)
    before = HfText(folder=str(tmp_path)).fingerprint()
    tokenizer([*WORDS[:-1], "other"]).save(str(tmp_path / "tokenizer.json"))
    assert HfText(folder=str(tmp_path)).fingerprint() != before
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors"):
        made(HfText(folder=str(tmp_path)))


class _Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path(os.environ["MAPSTO_TEST_BOMB"]),))


def _checkpoint(path: Path) -> Checkpoint:
    return Checkpoint(factory=RESNET, arguments={"depth": 8, "width": 4}, file=str(path))


@pytest.mark.parametrize("form", ["plain", "parallel", "nested", "safetensors"])
def test_someones_weights(form: str, tmp_path: Path) -> None:
    source = made(ResnetCifar(depth=8, width=4, classes=10))
    tensors: dict[str, Any] = dict(source.tensors)
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.th")
    if form == "safetensors":
        save_file(tensors, path)
    elif form == "plain":
        torch.save(tensors, path)
    else:
        parallel = {f"module.{name}": tensor for name, tensor in tensors.items()}
        torch.save(parallel if form == "parallel" else {"epoch": 3, "state_dict": parallel}, path)
    network = made(_checkpoint(path))
    assert all(torch.equal(tensor, network.tensors[name]) for name, tensor in source.tensors.items())
    assert network.signature.outputs[0].shape == ("N", 10)


def test_the_content_of_the_file_is_the_key(tmp_path: Path) -> None:
    first, second = tmp_path / "a.th", tmp_path / "b.th"
    torch.save({"w": torch.ones(1)}, first)
    second.write_bytes(first.read_bytes())
    assert _checkpoint(first).fingerprint() == _checkpoint(second).fingerprint()
    torch.save({"w": torch.zeros(1)}, second)
    assert _checkpoint(first).fingerprint() != _checkpoint(second).fingerprint()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickle_bomb_is_refused(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_TEST_BOMB", str(tmp_path / "boom"))
    path = tmp_path / "bomb.pth"
    torch.save({"state_dict": {"w": torch.ones(1)}, "extra": _Bomb()}, path, pickle_protocol=protocol)
    with pytest.raises(TrustError, match="refused"):
        made(_checkpoint(path))
    path.write_bytes(pickle.dumps(_Bomb(), protocol=2))
    with pytest.raises(TrustError, match="refused"):
        made(_checkpoint(path))
    assert not (tmp_path / "boom").exists()


def test_a_checkpoint_that_does_not_fit_or_is_broken(tmp_path: Path) -> None:
    tensors = dict(made(ResnetCifar(depth=8, width=4, classes=10)).tensors)
    path = tmp_path / "weights.pt"
    tensors["surplus"] = tensors.pop("conv1.weight")
    tensors["linear.bias"] = torch.zeros(3)
    torch.save(tensors, path)
    with pytest.raises(
        DomainError, match=r"missing: conv1\.weight; unknown: surplus; misshapen: linear\.bias is \(3,\)"
    ):
        made(_checkpoint(path))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"not a checkpoint at all", b""):
        path.write_bytes(content)
        with pytest.raises((DataError, TrustError), match=r"weights\.pt"):
            made(_checkpoint(path))
    buffer = io.BytesIO()
    torch.save(torch.ones(2), buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="not tensors by name"):
        made(_checkpoint(path))
    with pytest.raises(DataError, match="missing"):
        made(_checkpoint(tmp_path / "none.pt"))
    (tmp_path / "bad.safetensors").write_bytes(b"junk")
    with pytest.raises(DataError, match="safetensors"):
        made(_checkpoint(tmp_path / "bad.safetensors"))


def test_what_is_guessed_of_an_input_is_said(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(dict(made(ResnetCifar(depth=8, width=4, classes=10)).tensors), path)
    for fields, guessed in (
        ({}, True),
        ({"size": 32}, True),
        ({"size": 32, "channels": 3}, False),
        ({"input": (3, 32, 32)}, False),
    ):
        ctx = Context()
        ctx.apply(dataclasses.replace(_checkpoint(path), **fields), None)
        said = "An input of 3x32x32 (channels, height, width) is a guess too: give input, or data that have it"
        assert any(said in text for text in ctx.warnings) is guessed, fields


def test_code_outside_the_list_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, path)
    checkpoint = Checkpoint(factory="nobodys.net:Net", file=str(path))
    with pytest.raises(TrustError, match="--trust nobodys"):
        made(checkpoint)


def _brightness(tmp_path: Path, labels: list[int], **fields: Any) -> tuple[Checkpoint, Arrays]:
    """The checkpoint of a network that tells dark from bright, on 60 images of two greys."""
    grey = np.where(np.arange(60) % 2, 200, 60).astype(np.uint8)
    images = np.broadcast_to(grey[:, None, None, None], (60, 3, 8, 8))
    np.savez(tmp_path / "greys.npz", inputs=images, labels=np.resize(labels, 60))
    torch.save({"weight": torch.tensor([-1.0, 1.0])}, tmp_path / "w.pt")
    data = Arrays(file=str(tmp_path / "greys.npz"), mean=(0.1,), std=(0.25,))
    factory = "tests.foreign_checkpoints:Brightness"
    return Checkpoint(factory=factory, file=str(tmp_path / "w.pt"), data=data, **fields), data


@pytest.mark.parametrize(
    ("mean", "of_data", "whose"),
    [((0.485, 0.456, 0.406), True, "ImageNet's"), ((0.5,), True, "those of the data"), ((0.0,), False, "a guess")],
)
def test_whose_the_guessed_mean_is(mean: tuple[float, ...], of_data: bool, whose: str) -> None:
    text = _guessed(Preprocessing(channels=3, mean=mean, std=(0.25,)), of_data, False)
    assert f"and std 0.25 are {whose};" in text


def test_a_wrong_normalisation_is_noticed_and_the_better_one_named(tmp_path: Path) -> None:
    checkpoint, data = _brightness(tmp_path, [0, 1])
    with trusting("tests"):
        ctx = context()
        network = ctx.apply(checkpoint, None)
        assert ctx.apply(Accuracy(data=data), network).metrics["accuracy"].value == 50
        guess, doubts = ctx.warnings
        assert "those of the data" in guess
        assert "50 % of 60 samples" in doubts
        assert "100 % with mean 0.485,0.456,0.406" in doubts
        right, _ = _brightness(tmp_path, [0, 1], mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        ctx = context()
        network = ctx.apply(right, None)
        assert ctx.apply(Accuracy(data=data), network).metrics["accuracy"].value == 100
        assert ctx.warnings == []


@pytest.mark.parametrize(("limit", "learnt"), [(700.0, "raw"), (0.7, "scaled")])
def test_how_a_table_is_to_be_read_is_told_by_what_the_network_gets_right(
    limit: float, learnt: str, tmp_path: Path
) -> None:
    """Of 0, 10, …, 990 scaled by their own rows, 700 is 0.71."""
    lines = [f"{x},{'high' if x > 700 else 'below'}" for x in range(0, 1000, 10)]
    (tmp_path / "t.csv").write_text("\n".join(["x,kind", *lines]))
    torch.save({"limit": torch.tensor([limit])}, tmp_path / "w.pt")
    data = Table(file=str(tmp_path / "t.csv"), target="kind")
    checkpoint = Checkpoint(factory="tests.foreign_checkpoints:Threshold", file=str(tmp_path / "w.pt"), data=data)
    with trusting("tests"):
        ctx = context()
        network = ctx.apply(checkpoint, None)
    assert network.signature.classes == ("below", "high")
    told = [text for text in (*ctx.warnings, *ctx.notes) if "scaled by the mean" in text]
    if learnt == "raw":
        assert told[0] in ctx.warnings
        assert (
            "71 % of 100 rows are right so, 100 % with the columns as they are; give the table with scale: false"
            in told[0]
        )
    else:
        assert told[0] in ctx.notes
        assert "of 100 rows are right so, 30 % with the columns as they are" in told[0]


def test_an_original_that_is_no_better_than_a_constant_is_noticed(tmp_path: Path) -> None:
    checkpoint, _ = _brightness(tmp_path, [0, 1, 1, 0], mean=(0.5,), std=(0.25,))
    with trusting("tests"):
        ctx = context()
        ctx.apply(checkpoint, None)
    assert "hardly more than by always saying '0' (50 %)" in ctx.warnings[0]


def test_inputs_that_are_no_images(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(6, 1, 49, 10)).astype(np.float32)
    np.savez(tmp_path / "words.npz", inputs=inputs, labels=np.arange(6) % 3)
    torch.save(Spoken(3).state_dict(), tmp_path / "w.pt")
    fields: dict[str, Any] = {"factory": "tests.foreign_checkpoints:Spoken", "file": str(tmp_path / "w.pt")}
    data = Arrays(file=str(tmp_path / "words.npz"))
    with trusting("tests"):
        for given in ({"input": (1, 49, 10)}, {"data": data}, {"data": data, "input": (1, 49, 10)}):
            network = made(Checkpoint(**fields, **given, arguments={"classes": 3}))
            assert network.signature.inputs[0].shape == ("N", 1, 49, 10)
            assert network.signature.preprocessing.kind == "none"
        with pytest.raises(DomainError, match=r"samples have shape \(1, 49, 10\), the input is \(1, 98, 10\)"):
            made(Checkpoint(**fields, data=data, input=(1, 98, 10)))
    with pytest.raises(DomainError, match=r"the data holds images, the input is \(49, 10\)"):
        made(Checkpoint(**fields, data=Corners(), input=(49, 10)))
    with pytest.raises(DomainError, match="2 numbers for 1 channels"):
        made(Checkpoint(**fields, data=Corners(), mean=(0.1, 0.2)))


@pytest.mark.slow
def test_a_users_own_class_gives_the_published_accuracy() -> None:
    folder = Path(os.environ.get("MAPSTO_DATA", "/nowhere"))
    file = folder / "weights" / "cifar10_resnet20-12fca82f.th"
    if not file.is_file():
        pytest.skip("MAPSTO_DATA holds no weights/cifar10_resnet*.th")
    data = Cifar10(split="test")
    found: dict[str, float] = {}
    for name, (mean, std) in {
        "own": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    }.items():
        factory = "tests.foreign_checkpoints:resnet20"
        checkpoint = Checkpoint(factory=factory, file=str(file), data=data, mean=mean, std=std)
        ctx = context()
        with trusting("tests"):
            network = ctx.apply(checkpoint, None)
            found[name] = ctx.apply(Accuracy(data=data), network).metrics["accuracy"].value
        assert ("with mean 0.485,0.456,0.406 and std 0.229,0.224,0.225" in "".join(ctx.warnings)) is (name == "none")
    assert found["own"] == pytest.approx(91.73, abs=0.005)
    assert found["none"] == pytest.approx(39.7, abs=0.5), "how much is lost, to what arithmetic leaves open"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "file", "figure"), [(20, "20-12fca82f", 91.73), (32, "32-d509ac18", 92.63), (56, "56-4bfd9763", 93.39)]
)
def test_published_weights_give_the_published_accuracy(depth: int, file: str, figure: float) -> None:
    folder = Path(os.environ.get("MAPSTO_DATA", "/nowhere"))
    if not (folder / "weights" / f"cifar10_resnet{file}.th").is_file():
        pytest.skip("MAPSTO_DATA holds no weights/cifar10_resnet*.th")
    data = Cifar10(split="test")
    checkpoint = Checkpoint(
        factory=RESNET,
        arguments={"depth": depth},
        file=f"weights/cifar10_resnet{file}.th",
        data=data,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    report = context().apply(Accuracy(data=data), made(checkpoint))
    assert report.metrics["accuracy"].value == pytest.approx(figure, abs=0.005)

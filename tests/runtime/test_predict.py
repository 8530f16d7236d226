"""`mapsto_runtime`: packages are verified, every kind of input is read as in training, and what is wrong is named."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from tests.nets import Plain, network
from torch import nn

from mapsto.errors import DataError, DomainError, StoreError, TrustError
from mapsto.kinds import Network, Package, Preprocessing, Signature, TensorSpec, trusting
from mapsto.mappings.export.onnx import Onnx
from mapsto.nn.network.preprocess import prepare as prepare_batch
from mapsto_runtime.predictor import Predictor
from mapsto_runtime.preprocessing import prepare, read, read_input


def unpacked(package: Package, folder: Path) -> Path:
    folder.mkdir()
    for name, path in package.files.items():
        shutil.copy(path, folder / name)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    with trusting("tests"):
        return unpacked(Onnx(samples=4)(network(Plain)), tmp_path_factory.mktemp("packages") / "images")


@pytest.fixture(scope="module")
def table_folder(tmp_path_factory) -> Path:
    with trusting("torch"):
        given = Network.from_module(nn.Linear(3, 2), torch.zeros(2, 3), classes=("no", "yes"))
        given = dataclasses.replace(given, tensors={"weight": torch.eye(2, 3) * 2, "bias": torch.zeros(2)})
        return unpacked(Onnx(samples=4)(given), tmp_path_factory.mktemp("packages") / "table")


@pytest.fixture
def predictor(folder) -> Predictor:
    return Predictor(folder)


def picture(size: int = 40) -> np.ndarray:
    """A dark stroke on a bright ground, uint8 (size, size)."""
    pixels = np.full((size, size), 250, np.uint8)
    pixels[size // 4 : size // 2, size // 3 : size // 2] = 20
    return pixels


# ----------------------------------------------------------------------------------------------------------------- packages


def test_a_changed_byte_is_found_and_named(folder, tmp_path):
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    content = bytearray((broken / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (broken / "model.onnx").write_bytes(content)
    with pytest.raises(TrustError, match=r"'model.onnx' is not the file that was exported"):
        Predictor(broken)


def test_missing_files_are_named(folder, tmp_path):
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    (broken / "model.onnx").unlink()
    with pytest.raises(StoreError, match=r"'model.onnx' cannot be read"):
        Predictor(broken)
    (broken / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"there is no manifest.json"):
        Predictor(broken)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m: m.update(format=99), StoreError, "format 99, this mapsto reads up to 5; upgrade"),
        (lambda m: m["files"].update({"../evil": {"sha256": ""}}), TrustError, "outside the package"),
        (lambda m: m["files"].update({"C:\\evil": {"sha256": ""}}), TrustError, "outside the package"),
        (lambda m: m.update(model="other.onnx"), StoreError, "names no model"),
        (lambda m: m.pop("files"), StoreError, "not a package's manifest"),
    ],
)
def test_a_manifest_that_cannot_be_trusted(folder, tmp_path, change, error, message):
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    manifest = json.loads((broken / "manifest.json").read_text())
    change(manifest)
    (broken / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(error, match=message.replace("(", r"\(")):
        Predictor(broken)


# -------------------------------------------------------------------------------------------------------------------- images


def test_probabilities_are_those_of_the_network(predictor):
    [found] = predictor.predict([picture()])
    inverted = 255 - picture()
    with trusting("tests"):
        given = network(Plain)
        module = given.module()
    batch = prepare_batch(inverted[None, None], given.signature.preprocessing)
    expected = module(batch).softmax(1)[0].detach()
    assert found.label == "abcde"[int(expected.argmax())]
    assert found.probability == pytest.approx(float(expected.max()), abs=1e-3)
    assert sum(found.scores.values()) == pytest.approx(1)
    assert list(found.scores.values()) == sorted(found.scores.values(), reverse=True)


@pytest.mark.parametrize(("channels", "size"), [(1, (16, 16)), (3, (16, 24)), (1, (64, 64))])
@pytest.mark.parametrize("given", [1, 3])
def test_preprocessing_is_that_of_training(channels, size, given):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (given, 30, 40), dtype=np.uint8)
    plan = Preprocessing(channels=channels, size=size, mean=(0.4,) * channels, std=(0.3,) * channels)
    expected = prepare_batch(image[None], plan)[0].numpy()
    np.testing.assert_allclose(prepare(image / np.float32(255), plan), expected, atol=2e-3)


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_every_mode_of_image_gives_the_same(predictor):
    base = Image.fromarray(picture())
    clear = base.convert("RGBA")
    clear.putalpha(Image.fromarray(255 - picture()).point(lambda v: 255 if v > 128 else 0))
    wide = Image.fromarray(picture().astype(np.uint16) * 257)
    images = {
        "L": encoded(base, "PNG"),
        "RGB": encoded(base.convert("RGB"), "PNG"),
        "P": encoded(base.convert("P"), "PNG"),
        "1": encoded(base.convert("1"), "PNG"),
        "CMYK": encoded(base.convert("CMYK"), "TIFF"),
        "transparent ground": encoded(clear, "PNG"),
        "16 bits": encoded(wide, "PNG"),
        "JPEG": encoded(base, "JPEG"),
        "light on dark": encoded(Image.fromarray(255 - picture()), "PNG"),
    }
    found = {mode: predictor.predict([content])[0] for mode, content in images.items()}
    reference = found["L"]
    for mode, prediction in found.items():
        assert prediction.label == reference.label, mode
        assert prediction.probability == pytest.approx(reference.probability, abs=0.08), mode
        assert prediction.source == "standard input"


def test_arrays_and_files_of_arrays(predictor, tmp_path):
    stack = np.stack([picture(), 255 - picture(), picture(), picture()])
    np.save(tmp_path / "stack.npy", stack)
    np.savez(tmp_path / "stack.npz", inputs=stack, labels=np.arange(4))
    found = predictor.predict(
        [tmp_path / "stack.npy", str(tmp_path / "stack.npz"), picture()[:, :, None], picture() / 255]
    )
    assert [item.source for item in found[:4]] == [f"{tmp_path / 'stack.npy'}[{i}]" for i in range(4)]
    assert len(found) == 10
    assert {item.label for item in found} == {found[0].label}, "ink is made light, whichever way round it came"


def test_bad_inputs_are_named(predictor, tmp_path):
    content = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)), "PNG")
    cases = {
        "text.png": (b"hello", "neither an image nor an array"),
        "cut.png": (content[: len(content) // 2], "broken or truncated image"),
        "empty.png": (b"", "it is empty"),
        "broken.npy": (b"\x93NUMPY\x01\x00", "not a plain NumPy array"),
    }
    for name, (bad, message) in cases.items():
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(DataError, match=message) as caught:
            predictor.predict([tmp_path / name])
        assert name in str(caught.value)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="not a plain NumPy array"):
        predictor.predict([tmp_path / "objects.npy"])
    np.savez(tmp_path / "two.npz", a=picture(), b=picture())
    with pytest.raises(DataError, match="holds the arrays a, b"):
        predictor.predict([tmp_path / "two.npz"])
    with pytest.raises(DataError, match="cannot be read"):
        predictor.predict([tmp_path / "missing.png"])
    with pytest.raises(DataError, match="NaN"):
        predictor.predict([np.full((4, 4), np.nan)])
    with pytest.raises(DataError, match="values must be"):
        predictor.predict([np.full((4, 4), -3.0)])
    with pytest.raises(DataError, match="has shape"):
        predictor.predict([np.zeros((2, 2, 2, 2, 2))])


def test_one_input_alone_and_inputs_of_other_types_are_refused(predictor, tmp_path):
    for alone in ("photo.png", Path("photo.png"), b"abc"):  # a string's letters would each be one
        for ask in (predictor.predict, predictor.answers):
            with pytest.raises(DataError, match="a list of them is wanted"):
                ask(alone)
    for wrong in (5, None, ["photo.png"]):
        with pytest.raises(DataError, match=f"an input is of type {type(wrong).__name__}"):
            predictor.predict([wrong])


def test_no_inputs_give_no_predictions(predictor):
    assert predictor.predict([]) == []


def test_an_embedding_is_no_class(tmp_path):
    with trusting("tests"):
        learner = unpacked(Onnx(samples=4)(network(Plain, classes=0)), tmp_path / "learner")
    predictor = Predictor(learner)
    with pytest.raises(DomainError, match="gives embeddings"):
        predictor.predict([picture()])
    assert predictor.outputs(read_input(picture(), predictor.signature)).shape == (1, 12)


# -------------------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize(
    "text", ["a,b,c\n1,0,5\n0,2,5\n", "1,0,5\n0,2,5", "\ufeffa;b;c\n1;0;5\n0;2;5\n\n", "1\t0\t5\n0\t2\t5\n"]
)
def test_tables_with_and_without_a_header(table_folder, tmp_path, text):
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    found = Predictor(table_folder).predict([tmp_path / "rows.csv"])
    assert [item.label for item in found] == ["no", "yes"]
    assert found[0].probability == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)


def test_parquet_tables(table_folder, tmp_path):
    place = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1, 0], "b": [0.0, 2.0], "c": [5, 5]}), place)
    assert [item.label for item in Predictor(table_folder).predict([place])] == ["no", "yes"]
    pyarrow.parquet.write_table(pyarrow.table({"a": ["one"], "b": [0.0], "c": [5]}), place)
    with pytest.raises(DataError, match="row 1: 'one' is no number"):
        Predictor(table_folder).predict([place])
    place.write_bytes(place.read_bytes()[:60])
    with pytest.raises(DataError, match="not a whole Parquet table"):
        Predictor(table_folder).predict([place])


@pytest.mark.parametrize(
    ("answers", "label", "probability"),
    [("labels", "no, yes", 1 / (1 + np.exp(-2))), ("values", "no 2  yes 2", None)],
)
def test_labels_and_values_are_no_classes(tmp_path, answers, label, probability):
    with trusting("torch"):
        given = Network.from_module(nn.Linear(3, 2), torch.zeros(2, 3), classes=("no", "yes"))
        given = dataclasses.replace(
            given,
            tensors={"weight": torch.eye(2, 3) * 2, "bias": torch.zeros(2)},
            signature=dataclasses.replace(given.signature, answers=answers),
        )
        folder = unpacked(Onnx(samples=4)(given), tmp_path / "package")
    found = Predictor(folder).predict([np.array([[1, 1, 0], [-5, -5, 0]], np.float32)])
    assert found[0].label == label
    assert found[0].probability == (pytest.approx(probability) if probability else None)
    assert found[1].label == ("none" if answers == "labels" else "no -10  yes -10")


def test_a_folder_is_no_file(folder, tmp_path):
    with pytest.raises(DataError, match=r"is a folder; give the files in it, as in .*/\*"):
        Predictor(folder).predict([tmp_path])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n4,x,6\n", r"row 2: 'x' is no number"),
        ("1,2,3\n4,5\n", r"row 2: 2 cells where the first row has 3"),
        ("1,2\n3,4\n", r"has shape \(2, 2\), but the network takes samples of shape \(3,\)"),
        ("a,b,c\n", "holds no rows"),
        ("1,2,nan\n", "NaN"),
        ("\x00\x01", "holds no rows"),
    ],
)
def test_tables_that_cannot_be_used(table_folder, tmp_path, text, message):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        Predictor(table_folder).predict([tmp_path / "rows.csv"])


def test_a_single_row_as_an_array(table_folder):
    assert Predictor(table_folder).predict([np.array([0.0, 1.0, 0.0])])[0].label == "yes"


def test_a_signature_survives_json(table_folder):
    signature = Predictor(table_folder).signature
    assert signature == Signature(
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 3)),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=("N", 2)),),
        preprocessing=Preprocessing(kind="none"),
        classes=("no", "yes"),
    )


def test_three_grey_images_or_one_in_colour_is_said(tmp_path: Path) -> None:
    grey = Preprocessing(channels=1, size=(8, 8))
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 1, 8, 8)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("N", 2)),),
        preprocessing=grey,
    )
    file = tmp_path / "three.npy"
    for shape, samples, said in (
        ((3, 9, 9), 1, "is taken for one image in colour, (C, H, W); give three grey ones in shape (3, 1, 9, 9)"),
        ((3, 1, 9, 9), 3, ""),
        ((4, 9, 9), 4, ""),
        ((9, 9, 3), 1, ""),
    ):
        np.save(file, np.zeros(shape, np.uint8))
        found = read(file, signature)
        assert len(found.samples) == samples
        assert [said in note for note in found.notes] == [True] * bool(said)
    in_colour = dataclasses.replace(signature, preprocessing=dataclasses.replace(grey, channels=3))
    np.save(file, np.zeros((3, 9, 9), np.uint8))
    assert read(file, in_colour).notes == (), "there is no doubt where the network takes colour"

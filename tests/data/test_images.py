"""Folders of images: read as a network reads them, by one reader, whatever else lies in them."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mapsto import adapt, datasets, evaluate, export, networks
from mapsto.context import Context
from mapsto.data.io.image_folder import splits_in
from mapsto.errors import DataError
from mapsto.kinds import Network, Package, Preprocessing
from mapsto.mapping import Mapping
from mapsto.recipe.reader import parse_recipe
from mapsto.run.executor import execute
from mapsto_runtime.predictor import Predictor
from mapsto_runtime.preprocessing import read_input
from mapsto_runtime.preprocessing.image_files import read_picture

CLASSES = ("across", "down", "slanted")


def striped(kind: str, number: int, *, side: int, pale: bool = False) -> Image.Image:
    """A picture whose class is the direction of fine stripes: nothing of them is left at a third of the size."""
    generator = np.random.default_rng([CLASSES.index(kind), number])
    y, x = np.mgrid[:side, :side]
    along = {"across": y, "down": x, "slanted": x + y}[kind]
    wave = np.sin(2 * np.pi * (along / 5 + generator.random()))
    values = 128 + 60 * wave[..., None] * np.array([1.0, 0.7, 0.4]) + generator.normal(0, 25, (side, side, 3))
    if pale:  # dark strokes on paper, in the middle
        inside = (abs(x - side / 2) < side / 3) & (abs(y - side / 2) < side / 3)
        values = np.where(inside[..., None], np.where(wave[..., None] > 0, 20, 240), 240) + 0 * values
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def photos(root: Path, *, count: int = 6, side: int = 120, pale: bool = False) -> Path:
    for kind in CLASSES:
        (root / kind).mkdir(parents=True)
        for number in range(count):
            striped(kind, number, side=side, pale=pale).save(root / kind / f"{number}.png")
    return root


def opened(package: Package, folder: Path) -> Predictor:
    for name, path in package.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(path.read_bytes())
    return Predictor(folder)


@pytest.mark.parametrize(
    ("network", "pale"),
    [
        (networks.conv4(size=96, channels=3, width=8), False),
        (networks.conv4(size=28, channels=1, width=8), False),
        (networks.conv4(data=datasets.digits(), width=8), True),
    ],
    ids=["96 px in colour", "28 px in grey", "28 px, light ink"],
)
def test_a_report_measures_what_the_package_answers(
    network: Mapping[None, Network], pale: bool, tmp_path: Path
) -> None:
    data = datasets.images(folder=str(photos(tmp_path / "photos", pale=pale)))
    ctx = Context(seed=1)
    few = datasets.subset(data=data, per_class=2)
    adapted: Network = ctx.apply(adapt.centroid(data=few), ctx.apply(network, None))
    accuracy = ctx.apply(evaluate.accuracy(data=data), adapted).metrics["accuracy"]
    predictor = opened(ctx.apply(export.onnx(data=data), adapted), tmp_path / "package")
    files = sorted((tmp_path / "photos").glob("*/*.png"))
    right = [answer.label == file.parent.name for answer, file in zip(predictor.predict(files), files, strict=True)]
    assert accuracy.n == len(files) == 18
    assert accuracy.value == pytest.approx(100 * np.mean(right))
    # Not only as often right, but by the same numbers.
    samples = ctx._once(data, adapted.signature.preprocessing, warn=False)
    assert samples.inputs.shape[1:] == adapted.signature.inputs[0].shape[1:]
    from mapsto.nn.network.preprocess import prepare

    ours = prepare(samples.inputs, adapted.signature.preprocessing).numpy()
    theirs = np.concatenate([read_input(file, adapted.signature) for file in files])
    np.testing.assert_array_equal(ours, theirs)
    assert not ctx.warnings


def test_a_folder_read_otherwise_than_the_network_says_is_warned_of(tmp_path: Path) -> None:
    folder = str(photos(tmp_path / "photos", count=2))
    network: Network = networks.conv4(size=64, channels=3, width=4)(seed=0)
    adapted = adapt.centroid(data=datasets.images(folder=folder))(network)
    ctx = Context()
    ctx.apply(
        evaluate.accuracy(data=datasets.subset(data=datasets.images(folder=folder, size=32), per_class=2)), adapted
    )
    (text,) = ctx.warnings
    assert "size: 32 × 32 pixels, the network's is 64 × 64 pixels" in text
    assert "leave out size" in text
    ctx = Context()
    ctx.apply(evaluate.accuracy(data=datasets.images(folder=folder, size=64, channels=1)), adapted)
    assert "channels: 1, the network's is 3" in ctx.warnings[0]


def test_a_teacher_of_larger_images_sees_them_at_its_own_size(tmp_path: Path) -> None:
    data = datasets.images(folder=str(photos(tmp_path / "photos", count=2)))
    large, small = (networks.conv4(size=size, channels=3, width=4)(seed=0) for size in (64, 32))
    ctx = Context()
    with ctx.giving(small):
        assert ctx.dataset(data).inputs.shape[1:] == (3, 32, 32)
        assert ctx.dataset(data, also=[large]).inputs.shape[1:] == (3, 64, 64)
        episodes = ctx.tasks(datasets.episodes(data=data, ways=2, queries=1))
    assert episodes.samples.inputs.shape[1:] == (3, 32, 32)
    with ctx.giving(large):
        assert ctx.dataset(data).inputs.shape[1:] == (3, 64, 64)


def test_the_fingerprint_is_that_of_the_files_and_the_spec(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", count=2)
    data = datasets.images(folder=str(folder))
    before = data.fingerprint()
    assert data.read_for(Preprocessing(channels=3, size=(96, 96))) != data
    assert data.read_for(Preprocessing(kind="none")) is data
    (folder / "down" / "notes.txt").write_text("no image")
    assert data.fingerprint() == before == datasets.images(folder=str(folder)).fingerprint()
    assert datasets.images(folder=str(folder), size=96).fingerprint() != before
    striped("down", 7, side=20).save(folder / "down" / "more.png")
    assert data.fingerprint() != before


def test_what_is_read_without_a_network_says_how(tmp_path: Path) -> None:
    data = datasets.images(folder=str(photos(tmp_path / "photos", count=1)))
    samples = data.open()
    assert samples.inputs.shape == (3, 3, 32, 32)
    assert any("read at 32 × 32 pixels, in colour" in note for note in samples.notes)
    # A network made from the data has its own usual size, and the photographs' colours.
    assert networks.resnet12(data=data)(seed=0).signature.preprocessing.size == (84, 84)
    assert networks.conv4(data=data)(seed=0).signature.preprocessing.channels == 3
    assert networks.conv4(data=data, size=40, channels=1)(seed=0).signature.inputs[0].shape == ("N", 1, 40, 40)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ink", ["as_is", "light"])
def test_arrays_are_the_same_inputs_in_training_and_predict(channels: int, ink: str, tmp_path: Path) -> None:
    pictures = [striped(kind, 0, side=60, pale=True).convert("RGB" if channels == 1 else "L") for kind in CLASSES]
    inputs = np.stack([np.asarray(picture) for picture in pictures])
    np.savez(tmp_path / "few.npz", inputs=inputs, labels=np.arange(3))
    network: Network = networks.conv4(size=28, channels=channels, width=2)(seed=0)
    wanted = dataclasses.replace(network.signature.preprocessing, ink=ink)
    network = dataclasses.replace(network, signature=dataclasses.replace(network.signature, preprocessing=wanted))
    ctx, data = Context(), datasets.arrays(file=str(tmp_path / "few.npz"))
    with ctx.giving(network):
        samples = ctx.dataset(data)
    from mapsto.nn.network.preprocess import prepare

    ours = prepare(samples.inputs, wanted).numpy()
    theirs = np.concatenate([read_input(image, network.signature) for image in inputs])
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert (ours[:, :, 0, 0].mean() < 0.3) == (ink == "light")
    assert data.fingerprint() == datasets.arrays(file=str(tmp_path / "few.npz")).fingerprint()


def test_a_recipe_reads_its_data_for_the_network_of_each_step(tmp_path: Path) -> None:
    photos(tmp_path / "photos", count=4)
    (tmp_path / "photos" / "down" / "note.txt").write_text("no image")
    recipe = parse_recipe(f"""
schema: 1
data:
  all: {{images: {{folder: {tmp_path / "photos"}}}}}
  few: {{subset: {{data: $all, per_class: 2}}}}
  rest: {{subset: {{data: $all, per_class: 2, part: rest}}}}
steps:
  - networks.conv4: {{size: 40, channels: 3, width: 4}}
  - adapt.centroid: {{data: $few}}
    as: adapted
    observe: {{seen: {{evaluate.accuracy: {{data: $rest, pictures: 1}}}}}}
""")
    ran = execute(recipe, store=tmp_path / "store")
    pictures = ran.report("adapted.seen").pictures
    assert {Image.open(io.BytesIO(picture)).size for picture in pictures.values()} == {(40, 40)}
    assert [path for path, text in ran.notes if "passed over 1 file" in text] == ["adapted", "adapted.seen"]
    assert not ran.warnings


# ---------------------------------------------------------------------------------------------------------- the one reader


def _wave(side: int = 40) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return (127.5 + 127.5 * np.sin(x / 6) * np.cos(y / 9)).round().astype(np.uint8)


def _colour() -> Image.Image:
    wave = _wave()
    return Image.fromarray(np.stack([wave, wave[::-1], wave.T], -1))


def _written(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **how)
    return file.getvalue()


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _written(_colour(), "JPEG", exif=exif, quality=95)


def _lab() -> Image.Image:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.applyTransform(_colour(), ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    assert lab is not None
    return lab


def _clear(image: Image.Image) -> Image.Image:
    image.putalpha(Image.fromarray(_wave().T.copy()))
    return image


WAVE = _wave().astype(np.float32)
MODES = {
    "grey": (_written(Image.fromarray(_wave()), "PNG"), "wave"),
    "1 bit": (_written(Image.fromarray(_wave() > 127), "PNG"), "binary"),
    "16-bit PNG": (_written(Image.fromarray(_wave().astype(np.uint16) * 257), "PNG"), "wave"),
    "16-bit TIFF": (_written(Image.fromarray(_wave().astype(np.uint16) * 257), "TIFF"), "wave"),
    "32-bit TIFF to 255": (_written(Image.fromarray(_wave().astype(np.int32)), "TIFF"), "wave"),
    "32-bit TIFF to 65,535": (_written(Image.fromarray(_wave().astype(np.int32) * 257), "TIFF"), "wave"),
    "32-bit TIFF beyond": (_written(Image.fromarray(_wave().astype(np.int32) * 70_000 - 900), "TIFF"), "wave"),
    "float TIFF to 1": (_written(Image.fromarray(WAVE / 255), "TIFF"), "wave"),
    "float TIFF to 255": (_written(Image.fromarray(WAVE), "TIFF"), "wave"),
    "float TIFF to 65,535": (_written(Image.fromarray(WAVE * 257), "TIFF"), "wave"),
    "float TIFF below 0": (_written(Image.fromarray(WAVE / 51 - 2), "TIFF"), "wave"),
    "colour": (_written(_colour(), "PNG"), "colour"),
    "CMYK TIFF": (_written(_colour().convert("CMYK"), "TIFF"), "colour"),
    "CMYK JPEG": (_written(_colour().convert("CMYK"), "JPEG", quality=95), "near"),
    "LAB TIFF": (_written(_lab(), "TIFF"), "near"),
    "palette": (_written(_colour().quantize(256), "PNG"), "near"),
    "palette with a clear colour": (_written(_colour().quantize(256), "PNG", transparency=3), None),
    "grey and alpha": (_written(_clear(Image.fromarray(_wave()).convert("LA")), "PNG"), None),
    "alpha": (_written(_clear(_colour().convert("RGBA")), "PNG"), None),
    "turned by EXIF": (_turned(), "turned"),
}


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("channels", [1, 3])
def test_training_and_predict_see_the_same_pixels(name: str, channels: int, tmp_path: Path) -> None:
    content, shows = MODES[name]
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "file").write_bytes(content)
    network: Network = networks.conv4(size=40, channels=channels, width=2)(seed=0)
    ctx = Context()
    with ctx.giving(network):
        samples = ctx.dataset(datasets.images(folder=str(tmp_path)))
    from mapsto.nn.network.preprocess import prepare

    ours = prepare(samples.inputs, network.signature.preprocessing).numpy()
    np.testing.assert_array_equal(ours, read_input(content, network.signature))
    pixels = samples.inputs[0].astype(int)
    assert len(np.unique(pixels)) > 1
    colour = np.asarray(_colour().convert("L" if channels == 1 else "RGB")).reshape(40, 40, -1).transpose(2, 0, 1)
    expected = {
        "wave": _wave(),
        "binary": (_wave() > 127) * 255,
        "colour": colour,
        "near": colour,
        "turned": np.rot90(colour, -1, (1, 2)),
    }
    if shows is not None:
        difference = np.abs(pixels - expected[shows])
        assert difference.mean() < (6 if shows in ("near", "turned") else 0.01)
    assert any("fit no known range" in text for text in ctx.warnings) == ("beyond" in name or "below" in name)


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    read = read_picture(_written(clear, "PNG"), "clear.png", size=(8, 8), channels=3)
    assert read.pixels.min() == 255
    assert read.constant


def test_16_bits_are_divided_by_257_and_rounded() -> None:
    values = np.array([[0, 128, 129, 257, 32_767, 65_535]], np.uint16)
    read = read_picture(_written(Image.fromarray(values), "PNG"), "x", size=(1, 6), channels=1)
    assert read.pixels[0, 0].tolist() == [0, 0, 1, 1, 127, 255]


def test_pictures_of_one_value_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos(tmp_path / "photos", count=1)
    white = tmp_path / "photos" / "down" / "white.png"
    Image.new("RGB", (50, 50), "white").save(white)
    samples = datasets.images(folder=str(tmp_path / "photos")).open()
    (text,) = samples.warnings
    assert "every pixel has the same value: 1 (" in text
    assert str(white) in text
    read_input(white, networks.conv4(width=2)(seed=0).signature)
    assert f"{white}: every pixel has the same value" in caplog.text


def _bomb() -> bytes:
    """A PNG that says it has 20,000 × 20,000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 11_000, 11_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_bomb(), "11,000 × 11,000 pixels, more than 100 megapixels"),
        (_written(_colour(), "JPEG")[:600], "truncated"),
        (_written(_colour(), "PNG")[:600], "truncated"),
        (_written(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"), "NaN"),
        (b"no image at all", "neither an image nor an array"),
    ],
    ids=["huge", "truncated JPEG", "truncated PNG", "NaN", "no image"],
)
def test_what_is_no_whole_image_is_named(content: bytes, says: str, tmp_path: Path) -> None:
    photos(tmp_path / "photos", count=1)
    (tmp_path / "photos" / "down" / "broken.png").write_bytes(content)
    data = datasets.images(folder=str(tmp_path / "photos"))
    with pytest.raises(DataError, match=rf"1 file is not whole images: .*broken.png .*{says}"):
        data.open()
    with pytest.raises(DataError, match=says):
        read_input(tmp_path / "photos" / "down" / "broken.png", networks.conv4(width=2)(seed=0).signature)
    samples = datasets.images(folder=str(tmp_path / "photos"), skip_broken=True).open()
    assert len(samples) == 3
    assert "broken images left out: 1 (" in samples.warnings[0]


# --------------------------------------------------------------------------------------------------------- folders as they are


def test_what_is_no_image_is_passed_over_and_counted(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", count=2)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "0.txt", "1.txt", "0.json", "0.xml", "labels.csv", "._0.png"):
        (root / "down" / name).write_text("no image")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        for place in (root, root / "down"):
            (place / name).mkdir()
            striped("down", 1, side=9).save(place / name / "copy.png")
    (root / "README.md").write_text("these are mine")
    striped("down", 1, side=9).save(root / "loose.png")
    (root / "nothing").mkdir()
    samples = datasets.images(folder=str(root)).open()
    assert samples.classes == ("across", "down", "nothing", "slanted")
    assert len(samples) == 6
    passed, loose, empty, _ = samples.notes
    assert "passed over 14 files or folders that are no images" in passed
    assert "2 × .txt" in passed
    assert "1 image lies beside" in loose
    assert "a class without an image: nothing" in empty


def test_kinds_of_files_are_counted_and_folders_of_almost_one_name_named(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", count=2)
    for kind in ("txt", "json", "xml", "csv", "pdf", "zip", "md"):
        (root / "down" / f"0.{kind}").write_text("no image")
    (root / "down").rename(root / "Across")
    samples = datasets.images(folder=str(root)).open()
    assert samples.notes[0].endswith(" and 1 more kind")
    assert any("the folders 'Across', 'across' count as different classes" in text for text in samples.warnings)


def test_folders_inside_a_class_count_and_links_do_not_turn_in_circles(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", count=1)
    (root / "down" / "2024" / "may").mkdir(parents=True)
    striped("down", 5, side=9).save(root / "down" / "2024" / "may" / "x.png")
    (root / "down" / "2024" / "back").symlink_to(root / "down")
    (root / "across" / "up").symlink_to(root)
    (root / "across" / "gone.png").symlink_to(root / "nowhere.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    striped("slanted", 5, side=9).save(elsewhere / "y.png")
    (root / "slanted" / "linked").symlink_to(elsewhere)
    samples = datasets.images(folder=str(root)).open()
    assert np.bincount(samples.labels).tolist() == [1, 2, 2]
    assert any("link that leads back" in note for note in samples.notes)
    assert any("broken links" in note for note in samples.notes)


def test_splits_are_recognised(tmp_path: Path) -> None:
    photos(tmp_path / "photos" / "train", count=2)
    photos(tmp_path / "photos" / "Val", count=1)
    (tmp_path / "photos" / "Val" / "across" / "0.png").unlink()
    (tmp_path / "photos" / "Val" / "across").rmdir()
    (tmp_path / "photos" / ".DS_Store").write_text("")
    folder = str(tmp_path / "photos")
    assert {name: path.name for name, path in splits_in(tmp_path / "photos").items()} == {
        "train": "train",
        "validation": "Val",
    }
    with pytest.raises(DataError, match=r"holds the splits validation, train, not classes; .*split: validation"):
        datasets.images(folder=folder).open()
    held_out = datasets.images(folder=folder, split="validation").open()
    # A class has the same number in every split, also where one has no image of it.
    assert held_out.classes == CLASSES
    assert held_out.labels.tolist() == [1, 2]
    assert any("a class without an image: across" in note for note in held_out.notes)
    with pytest.raises(DataError, match="no split 'test'"):
        datasets.images(folder=folder, split="test").open()
    assert splits_in(photos(tmp_path / "plain", count=1)) == {}
    # Classes may be called so.
    (tmp_path / "cars" / "train").mkdir(parents=True)
    (tmp_path / "cars" / "test").mkdir()
    for name in ("train", "test"):
        striped("down", 1, side=9).save(tmp_path / "cars" / name / "a.png")
    assert datasets.images(folder=str(tmp_path / "cars")).open().classes == ("test", "train")

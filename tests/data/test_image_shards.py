"""Images that stay on disk, in shards: the same pixels as in one array, whatever happens to files, shards and processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.imagenet_folder import CLASSES, imagenet, pattern

from mapsto import datasets, networks
from mapsto.context import Context
from mapsto.data.io import image_shards
from mapsto.errors import DataError
from mapsto.kinds import Preprocessing, StoredRows
from mapsto.nn.export.runners import read_image
from mapsto.nn.network.preprocess import prepare
from mapsto_runtime.preprocessing.image_files import read_picture
from mapsto_runtime.preprocessing.images import prepare as prepared


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(image_shards, "PER_SHARD", 16)
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path / "cache"))
    return imagenet(tmp_path / "photos")


def shards_of(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "images" / "shards").glob("*.images"))


def test_shards_hold_what_the_array_holds(photos: Path, tmp_path: Path) -> None:
    fields = {"folder": str(photos), "split": "train", "skip_broken": True, "size": 24, "fit": "crop"}
    array, stored = (datasets.images(**fields, kept=kept) for kept in ("array", "shards"))
    one, many = array.open(), stored.open()
    assert isinstance(many.inputs, StoredRows)
    assert one.inputs.shape == many.inputs.shape == (75, 3, 27, 27)
    assert (np.asarray(many.inputs) == one.inputs).all()
    assert array.fingerprint() == stored.fingerprint(), "where they are kept is in no key"
    assert one.warnings == many.warnings
    assert "broken images left out: 1" in many.warnings[0]
    assert "76 images are kept in 5 shards" in many.notes[-1]
    assert len(shards_of(tmp_path)) == 5
    places = np.array([70, 3, 3, 40])
    assert (many.inputs[places] == one.inputs[places]).all()
    assert (many.inputs[5] == one.inputs[5]).all()
    assert (many.inputs[10:20:3, 0] == one.inputs[10:20:3, 0]).all()
    few = many.take(places)
    assert isinstance(few.inputs, StoredRows)
    assert (few.inputs[one.labels[places] == 0] == one.inputs[places][one.labels[places] == 0]).all()
    part = datasets.subset(data=stored, classes=CLASSES[2:4]).open()
    assert isinstance(part.inputs, StoredRows)
    assert (np.asarray(part.inputs) == datasets.subset(data=array, classes=CLASSES[2:4]).open().inputs).all()


def test_broken_files_are_named(photos: Path) -> None:
    with pytest.raises(DataError, match=r"1 file is not whole images: .*cut\.JPEG \(a broken or truncated image"):
        datasets.images(folder=str(photos), split="train", kept="shards").open()


def test_finished_shards_are_kept_and_changed_ones_made_anew(photos: Path, tmp_path: Path) -> None:
    data = datasets.images(folder=str(photos), split="train", kept="shards", skip_broken=True)
    data.open()
    made = {path: path.stat().st_mtime_ns for path in shards_of(tmp_path)}
    shards_of(tmp_path)[2].unlink()
    changed = photos / "train" / CLASSES[5] / f"{CLASSES[5]}_3.JPEG"
    Image.new("RGB", (30, 30), "white").save(changed)
    inputs = data.open().inputs
    after = {path: path.stat().st_mtime_ns for path in shards_of(tmp_path)}
    assert len(after.keys() - made.keys()) == 1, "one of other content"
    assert sum(made[path] == after[path] for path in made.keys() & after.keys()) == 4, "and one that was gone"
    assert (inputs[-9:] == 255).all(axis=(1, 2, 3)).sum() == 1


def test_a_damaged_shard_is_said_and_repaired(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = datasets.images(folder=str(photos), split="validation", kept="shards")
    samples = data.open()
    before = np.asarray(samples.inputs)
    path = max(shards_of(tmp_path), key=lambda each: each.stat().st_size)
    with path.open("r+b") as file:
        file.seek(5 * 3 * 32 * 32 + 7)
        file.write(b"\xff\x00\xff")
    with caplog.at_level(logging.WARNING, "mapsto"):
        assert (np.asarray(samples.inputs) == before).all()
    assert "damaged or gone; it is made again" in caplog.text
    os.truncate(path, 100)  # a mapping of it would end the process
    assert (np.asarray(samples.inputs) == before).all()
    path.unlink()
    assert (samples.inputs[3] == before[3]).all()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    caplog.clear()
    assert (np.asarray(data.open().inputs) == before).all()
    assert "damaged or gone; it is made again" in caplog.text


def test_a_file_that_changes_while_shards_are_made(photos: Path) -> None:
    data = datasets.images(folder=str(photos), split="validation", kept="shards")
    listing = data._listing()
    digests = data._digests(listing)
    paths = [path for _, path in listing.files]
    paths[4].write_bytes(b"another")
    with pytest.raises(DataError, match=r"changed while the folder was read; run again"):
        image_shards.stored_images(paths, digests, data._reading())
    paths[4].unlink()
    with pytest.raises(DataError, match=r"cannot be read any more \(No such file"):
        image_shards.stored_images(paths, digests, data._reading())


def test_too_small_a_disk_is_told_before_anything_is_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = image_shards.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(image_shards.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"take 0\.00 GB, and 0\.00 GB are free; nothing was written; free some"):
        datasets.images(folder=str(photos), split="validation", kept="shards").open()
    assert not shards_of(tmp_path)


def test_all_samples_at_once_are_refused_where_memory_is_short(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    samples = datasets.images(folder=str(photos), split="validation", kept="shards").open()
    free = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free._replace(available=100_000))
    with pytest.raises(DataError, match="takes all samples into memory at once: 18 of them"):
        np.asarray(samples.inputs)


def test_what_a_network_sees_is_the_middle_of_the_photo(tmp_path: Path) -> None:
    how = Preprocessing(channels=3, size=(28, 28), fit="crop")
    y, x = np.mgrid[:60, :120]
    photo = np.stack([2 * x, 4 * y, x + y], -1).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "wide.png")
    assert how.scaled_size == (32, 32)
    seen = read_picture(tmp_path / "wide.png", "wide", size=how.scaled_size, channels=3, fit="crop").pixels
    assert seen.shape == (3, 32, 32)
    assert abs(int(seen[0, 16, 16]) - 120) < 4, "the middle"
    assert int(seen[0, 0, 0]) > 50, "without what is at the left"
    ours = prepare(seen[None].copy(), how).numpy()[0]
    assert (ours == seen[:, 2:30, 2:30].astype(np.float32) / 255).all(), "of what was read only the border goes"
    signature = {
        "preprocessing": {"channels": 3, "size": [28, 28], "mean": [0.0], "std": [1.0], "ink": "as_is", "fit": "crop"}
    }
    assert (read_image.read(tmp_path / "wide.png", signature)[0] == ours).all(), "a package's runner reads it alike"
    raw = photo.transpose(2, 0, 1)
    for other in (prepare(raw[None].copy(), how).numpy()[0], prepared(raw / np.float32(255), how)):
        assert other.shape == (3, 28, 28)
        assert np.abs(other - ours).max() < 0.02


@pytest.mark.parametrize("text", ["{name} {label}", "val/{name},{label} 85 1 499 272"])
def test_a_flat_folder_with_a_file_of_labels_is_the_same_as_folders_of_classes(
    photos: Path, text: str, tmp_path: Path
) -> None:
    folders = datasets.images(folder=str(photos), split="validation", size=16)
    before = folders.open()
    lines = ["ImageId,PredictionString"] if "," in text else []
    for number, folder in enumerate(sorted((photos / "val").iterdir())):
        for path in sorted(folder.iterdir()):
            label = folder.name if "," in text else number
            lines.append(text.format(name=path.name if "," not in text else path.stem, label=label))
            path.rename(photos / "val" / path.name)
        folder.rmdir()
    (photos / "val.txt").write_text("\n".join([*lines, "gone.JPEG 0"]), encoding="utf-8")
    flat = datasets.images(folder=str(photos), split="validation", size=16, labels="val.txt")
    pattern(0, 1, (20, 20)).save(photos / "val" / "more.JPEG")
    after = flat.open()
    assert after.classes == before.classes == CLASSES
    assert (after.labels == before.labels).all()
    assert (after.inputs == before.inputs).all()
    assert any("1 images left out, of which val.txt says no class" in note for note in after.notes)
    assert any("1 images that it names are not in" in note for note in after.notes)
    with pytest.raises(DataError, match=r"labels: val\.txt"):
        datasets.images(folder=str(photos), split="validation").open()
    assert len(datasets.images(folder=str(photos), split="train", size=16, skip_broken=True).open()) == 75
    (photos / "val.txt").write_text("490\n361\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 1 holds one word, '490', and not a name and a class"):
        flat.open()


def test_networks_that_read_photos_differently_are_warned_of(photos: Path) -> None:
    crop, stretch = (
        networks.conv4(data=datasets.images(folder=str(photos), split="validation", size=28, fit=fit), width=2)(seed=0)
        for fit in ("crop", "stretch")
    )
    ctx = Context()
    with ctx.giving(stretch):
        samples = ctx.dataset(datasets.images(folder=str(photos), split="validation"), also=[crop])
    assert samples.inputs.shape[1:] == (3, 32, 32)
    assert any("one crops photos and another stretches them" in text for text in ctx.warnings)


def test_odd_folders(photos: Path) -> None:
    (photos / "train" / "n09").mkdir()
    nested = photos / "val" / CLASSES[1] / "more"
    nested.mkdir()
    pattern(1, 9, (30, 30)).save(nested / "inside.JPEG")
    (photos / "val" / CLASSES[2] / "link.JPEG").symlink_to(nested / "inside.JPEG")
    (photos / "val" / CLASSES[2] / "up").symlink_to(photos / "val", target_is_directory=True)
    (photos / "val" / "n10").mkdir()
    pattern(1, 9, (30, 30)).save(photos / "val" / "n10" / "other.JPEG")
    learn, check = (
        datasets.images(folder=str(photos), split=split, size=16, kept="shards", skip_broken=True).open()
        for split in ("train", "validation")
    )
    assert learn.classes == check.classes == (*CLASSES, "n09", "n10"), "a class has one number in all splits"
    assert any("2 classes without an image: n09, n10" in note for note in learn.notes)
    assert np.bincount(check.labels).tolist() == [3, 4, 4, 3, 3, 3, 0, 1]
    assert any("a link that leads back" in note for note in check.notes)


WORK = """
import sys
from mapsto import datasets, networks
from mapsto.context import Context
from mapsto.data.io import image_shards
image_shards.PER_SHARD, image_shards._PER_PROCESS = 16, 8
if __name__ == "__main__":
    samples = datasets.images(folder=sys.argv[1], split="train", kept="shards", skip_broken=True, size=64).open()
    print(int(samples.inputs[:].astype(int).sum()))
"""


def started(work: Path, photos: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(work), str(photos)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_runs_share_the_work_and_a_killed_one_leaves_whole_shards(photos: Path, tmp_path: Path) -> None:
    work = tmp_path / "work.py"
    work.write_text(WORK, encoding="utf-8")
    first = started(work, photos)
    until = time.monotonic() + 60
    while not shards_of(tmp_path) and time.monotonic() < until:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    left = {path: path.stat().st_mtime_ns for path in shards_of(tmp_path)}
    both = [started(work, photos) for _ in range(2)]
    sums = [run.communicate(timeout=120)[0] for run in both]
    assert sums[0] == sums[1] != ""
    assert len(shards_of(tmp_path)) == 5
    assert left
    assert all(path.stat().st_mtime_ns == known for path, known in left.items()), "what was finished stays"
    assert not list((tmp_path / "cache" / "images" / "shards").glob(".*.tmp"))

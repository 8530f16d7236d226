"""Samples without labels: a folder of images of no class, and rows without a value of the target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mapsto import datasets
from mapsto.errors import DataError, SpecError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for place in ("pool/1.png", "pool/deep/2.png", "pool/deep/er/3.jpg"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    (tmp_path / "pool" / "notes.txt").write_text("of the field trip")
    return tmp_path / "pool"


def test_every_image_of_a_folder_without_a_label(folder: Path) -> None:
    samples = datasets.images(folder=str(folder), size=8, unlabelled=True).open()
    assert (samples.inputs.shape, samples.labels.shape, samples.classes) == ((3, 3, 8, 8), (3, 0), ())
    assert "1 file or folder that is no image: .txt" in samples.notes[0]


def test_the_fingerprint_is_of_the_images_alone(folder: Path) -> None:
    images = datasets.images(folder=str(folder), size=8, unlabelled=True)
    before = images.fingerprint()
    (folder / "deep").rename(folder / "z")
    assert images.fingerprint() == before
    (folder / "1.png").unlink()
    assert images.fingerprint() != before


def test_a_folder_without_an_image_and_one_with_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        datasets.images(folder=str(tmp_path), unlabelled=True).open()
    with pytest.raises(SpecError, match="unlabelled images has no splits"):
        datasets.images(folder=str(tmp_path), unlabelled=True, split="train")


def test_rows_without_a_value_of_the_target(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,kind\n1,x,no\n2,y,\n3,x,yes\n4,x,\n", encoding="utf-8")
    (tmp_path / "more.csv").write_text("a,b\n5,y\n", encoding="utf-8")
    table = datasets.table(file=str(tmp_path / "t.csv"), target="kind", scale=False, unlabelled="leave_out").open()
    rest = datasets.table(file=str(tmp_path / "t.csv"), target="kind", unlabelled="only")
    rows = rest.read_for(table.preprocessing).open()
    assert (rows.inputs[:, 0].tolist(), rows.labels.shape, rows.classes) == ([2, 4], (2, 0), ())
    other = datasets.table(file=str(tmp_path / "more.csv"), target="kind", unlabelled="only")
    assert other.read_for(table.preprocessing).open().inputs.shape == (1, rows.inputs.shape[1])


def test_no_row_is_without_a_label(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,kind\n1,no\n2,yes\n", encoding="utf-8")
    with pytest.raises(DataError, match="every row has a value of the target"):
        datasets.table(file=str(tmp_path / "t.csv"), target="kind", unlabelled="only").open()
    with pytest.raises(SpecError, match="have no splits"):
        datasets.table(file=str(tmp_path / "t.csv"), target="kind", unlabelled="only", split="test").open()

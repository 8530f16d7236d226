"""Sheets: what `mapsto show augment.NAME` draws, what reports of trainings show, and what is on them."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.command import mapsto

from mapsto import augment
from mapsto.context import Context, SilentContext
from mapsto.data.augment._sheet import drawn, picture, rows_table
from mapsto.data.sets.digits import Digits
from mapsto.data.sets.subset import Subset
from mapsto.data.sets.table import Table
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.train.augmenter import Augmenter
from mapsto.report import build, page
from mapsto.run.executor import execute

FEW: Any = Subset(data=Digits(size=8), per_class=3)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_sheet_has_each_image_beside_copies_of_it() -> None:
    """With a mirror that is always there every copy is the mirrored image; the same seed draws the same sheet."""
    samples = Digits(size=28).open()
    sheet = picture((augment.flip(probability=1),), samples, seed=3, images=4, copies=2)
    assert sheet == picture((augment.flip(probability=1),), samples, seed=3, images=4, copies=2)
    shown = pixels(sheet)
    side = 28 * (64 // 28)
    assert shown.shape == (4 * (side + 2) - 2, 3 * (side + 2) + 2, 3)
    for row in range(4):
        top = row * (side + 2)
        tiles = [shown[top : top + side, left : left + side] for left in (0, side + 6, 2 * side + 8)]
        assert np.array_equal(tiles[1], tiles[0][:, ::-1])
        assert np.array_equal(tiles[1], tiles[2])
    assert len({samples.labels[place] for place in range(4)}) > 1
    many = picture((augment.crop(),), samples, seed=3)
    assert many != picture((augment.crop(),), samples, seed=4)


def test_what_mixes_is_drawn_too_and_large_images_are_made_smaller() -> None:
    samples = Digits(size=28).open()
    mixed = drawn((augment.flip(), augment.mixup(alpha=5)), samples.take(np.arange(6)), seed=0, copies=2)
    assert (mixed.shape, mixed.dtype) == ((2, 6, 1, 28, 28), np.uint8)
    assert not np.array_equal(mixed[0], samples.inputs[:6])
    large = samples.inputs[:6].repeat(20, axis=2).repeat(20, axis=3)
    sheet = pixels(picture((), dataclasses.replace(samples.take(np.arange(6)), inputs=large), seed=0, copies=1))
    assert max(sheet.shape) < 6 * 170


def test_rows_are_shown_as_their_table_has_them(tmp_path: Path) -> None:
    file = tmp_path / "pets.csv"
    lines = [f"{k % 7},{'cat' if k % 2 else 'dog'},{'ab'[k // 3 % 2]}" for k in range(40)]
    file.write_text("\n".join(["size,kind,label", *lines]) + "\n", encoding="utf-8")
    samples = Table(file=str(file), target="label").open()
    table = rows_table((augment.swap(probability=1),), samples, seed=0)
    assert table.columns == ("row", "class", "size", "kind")
    assert {row[0] for row in table.rows} == {"before", "after"}
    assert {row[3] for row in table.rows} <= {"cat", "dog"}
    assert {row[2] for row in table.rows} <= {float(k) for k in range(7)}
    halves = rows_table((augment.mixup(alpha=5),), samples, seed=0)
    assert any(" cat + " in str(row[3]) for row in halves.rows), "half a category is shown as one"
    ctx = SilentContext()
    Augmenter((augment.swap(),), ctx, samples)
    assert list(ctx.attached) == ["augmented_rows"]
    shown = mapsto(
        "show", "augment.swap", "--set", "probability=1", "--data", str(file), "--target", "label", code=0
    ).out
    assert "Rows before and after" in shown
    assert " dog" in shown


def test_a_report_shows_the_training_images(tmp_path: Path) -> None:
    train = Supervised(data=FEW, epochs=1, augment=[augment.crop(padding=1)])
    run = execute(Conv4(data=FEW, width=4, blocks=2, classes="data") >> train, store=tmp_path)
    report = build.build(run)["steps"][-1]["report"]
    assert list(report["pictures"]) == ["training_images_then_augmented"]
    assert "Training images then augmented" in page.render(build.build(run))
    ctx = Context()
    Augmenter((), ctx, FEW.open())
    assert ctx.attached == {}


def test_show_draws_a_sheet_of_images_that_come_with_it_or_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path / "cache"))
    shown = mapsto("show", "augment.affine", code=0).out
    path = tmp_path / "cache" / "sheets" / "affine.png"
    assert f"Sheet, each image beside changed copies of it: {path}" in shown.replace("\n", "")
    assert pixels(path.read_bytes()).shape[2] == 3
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(np.full((20, 20, 3), 90 if name == "a" else 200, np.uint8)).save(
            tmp_path / "photos" / name / "1.png"
        )
    own = tmp_path / "own.png"
    tree = json.loads(
        mapsto("show", "brightness", "--data", str(tmp_path / "photos"), "--sheet", str(own), "--json", code=0).out
    )
    assert tree["sheet"] == str(own)
    assert set(np.unique(pixels(own.read_bytes())[:96, :96])) == {90}


def test_wrong_options_of_a_sheet_are_told(tmp_path: Path) -> None:
    for words, said in (
        (("show", "prune.taylor", "--sheet", "x.png"), "prune.taylor is no augmentation, so that no sheet is drawn"),
        (("show", "flip", "--set", "probabilty=1"), "unknown field 'probabilty'"),
        (("show", "flip", "--set", "probability"), "is not like field=value"),
        (("show", "flip", "--set", "probability=7"), "field 'probability'"),
        (("show", "flip", "--data", str(tmp_path / "nowhere")), "nowhere"),
        (("show", "smote", "--sheet", "x.png"), "rows are printed, not drawn"),
    ):
        assert said in mapsto(*words, code=2).err.replace("\n", " ")

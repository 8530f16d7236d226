"""Augmentation: what it does to images, that each image has its own draw, and that seeds decide."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mapsto.data.augment.field import Augmentation
from mapsto.data.augment.operations import affine, apply, flip, noise, padded_crop
from mapsto.errors import SpecError

EVERYTHING = Augmentation(flip=True, crop_padding=3, degrees=10, scale=0.1, shear=0.1, translate=0.1, noise=0.1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 64, channels: int = 3, height: int = 12, width: int = 10) -> torch.Tensor:
    return torch.randn(count, channels, height, width, generator=seeded(1))


def test_the_seed_decides_and_the_input_stays() -> None:
    batch = images()
    before = batch.clone()
    first, again, other = (apply(batch, EVERYTHING, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(batch, before)
    assert first.shape == batch.shape
    assert first.dtype == batch.dtype


def test_nothing_is_done_by_default() -> None:
    batch = images()
    assert apply(batch, Augmentation(), seeded()) is batch


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    apply(images(), EVERYTHING, seeded())
    assert torch.equal(torch.rand(1), wanted)


def test_half_of_the_images_are_mirrored() -> None:
    batch = images(400)
    result = flip(batch, seeded())
    mirrored = (result == batch.flip(3)).flatten(1).all(1)
    kept = (result == batch).flatten(1).all(1)
    assert bool((mirrored ^ kept).all())
    assert 160 < int(mirrored.sum()) < 240


@given(pad=st.integers(0, 30), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_crop_is_a_shift_with_a_mirrored_border(pad: int, height: int, width: int, seed: int) -> None:
    batch = torch.arange(2.0 * height * width).reshape(2, 1, height, width)
    result = padded_crop(batch, seeded(seed), pad=pad)
    assert all(set(r.flatten().tolist()) <= set(b.flatten().tolist()) for r, b in zip(result, batch, strict=True))
    shift = torch.randint(-pad, pad + 1, (2, 2, 1), generator=seeded(seed))[:, 0, 0].tolist()
    for row in range(height):
        for column in range(width):
            r, c = row + shift[0], column + shift[1]
            if 0 <= r < height and 0 <= c < width:
                assert result[0, 0, row, column] == batch[0, 0, r, c]


def test_a_crop_mirrors_at_the_border_pixel() -> None:
    row = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(200, 1, 1, 4)
    rows = {tuple(image.flatten().tolist()) for image in padded_crop(row, seeded(), pad=1)}
    assert rows == {(2, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 3)}


def test_an_affine_map_of_nothing_is_the_identity() -> None:
    batch = images(4)
    assert torch.allclose(affine(batch, seeded()), batch, atol=1e-4)


def test_a_quarter_turn_of_a_wide_image_keeps_its_shapes() -> None:
    batch = torch.zeros(300, 1, 21, 41)
    batch[:, :, 10, 16:25] = 1.0
    turned = affine(batch, seeded(), degrees=90)
    area = turned.flatten(1).sum(1)
    assert float((area / 9 - 1).abs().max()) < 0.15
    tall = turned[:, 0, :, 20].sum(1)
    assert float(tall.max()) > 8


@pytest.mark.parametrize(
    ("fields", "low", "high"),
    [({"scale": 0.3}, 0.48, 1.75), ({"translate": 0.1}, 0.99, 1.01), ({"shear": 0.3}, 0.97, 1.03)],
)
def test_areas_change_by_scaling_only(fields: dict[str, float], low: float, high: float) -> None:
    batch = torch.zeros(200, 1, 40, 40)
    batch[:, :, 12:28, 12:28] = 1.0
    result = affine(batch, seeded(), **fields)
    area = result.flatten(1).sum(1) / 256
    assert low < float(area.min())
    assert float(area.max()) < high
    assert len({tuple(image.flatten().tolist()) for image in result}) > 190


def test_shifts_have_the_range_given() -> None:
    batch = torch.zeros(500, 1, 40, 40)
    batch[:, :, 18:22, 18:22] = 1.0
    result = affine(batch, seeded(), translate=0.2)
    centre = (result.sum(2) * torch.arange(40.0)).sum(2) / result.sum((2, 3)) - 19.5
    assert 7 < float(centre.abs().max()) < 8.01
    assert abs(float(centre.mean())) < 0.7


def test_the_border_goes_on_beyond_it() -> None:
    batch = torch.full((20, 1, 16, 16), -0.5)
    assert torch.allclose(apply(batch, Augmentation(degrees=45, translate=0.5, crop_padding=8), seeded()), batch)


def test_noise_has_the_strength_given() -> None:
    batch = images(200)
    assert abs(float((noise(batch, seeded(), std=0.3) - batch).std()) - 0.3) < 0.01


def test_wrong_strengths_are_refused() -> None:
    with pytest.raises(SpecError, match="degrees"):
        Augmentation(degrees=200)
    with pytest.raises(SpecError, match="unknown field 'rotate'"):
        Augmentation(rotate=3)  # type: ignore[call-arg]


def test_the_settings_do_not_import_torch() -> None:
    code = "import sys, mapsto.data.augment.field; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""What each augmentation does to samples and targets; that all keep their promises is in `tests/data/test_augmentations.py`."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mapsto import discovery
from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment.affine import Affine
from mapsto.data.augment.crop import Crop
from mapsto.data.augment.cutmix import Cutmix
from mapsto.data.augment.erasing import Erasing
from mapsto.data.augment.flip import Flip
from mapsto.data.augment.mixup import Mixup
from mapsto.data.augment.noise import Noise
from mapsto.errors import SpecError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 64, channels: int = 3, height: int = 12, width: int = 10) -> torch.Tensor:
    return torch.randint(256, (count, channels, height, width), generator=seeded(1), dtype=torch.uint8)


def changed(operation: Augmentation, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return operation.draw(Drawn(x=x, targets=torch.zeros(len(x), 0)), seeded(seed)).x


def test_half_of_the_images_are_mirrored() -> None:
    batch = images(400)
    result = changed(Flip(), batch)
    mirrored = (result == batch.flip(3)).flatten(1).all(1)
    kept = (result == batch).flatten(1).all(1)
    assert bool((mirrored ^ kept).all())
    assert 160 < int(mirrored.sum()) < 240
    assert torch.equal(changed(Flip(probability=1), batch), batch.flip(3))


@given(pad=st.integers(0, 30), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_crop_is_a_shift_with_a_mirrored_border(pad: int, height: int, width: int, seed: int) -> None:
    batch = torch.arange(2.0 * height * width).reshape(2, 1, height, width)
    result = changed(Crop(padding=pad), batch, seed)
    assert all(set(r.flatten().tolist()) <= set(b.flatten().tolist()) for r, b in zip(result, batch, strict=True))
    drawn = torch.rand(2, 2, 1, generator=seeded(seed))[:, 0, 0] * (2 * pad + 1)
    shift = [int(each) - pad for each in drawn.tolist()]
    for row in range(height):
        for column in range(width):
            r, c = row + shift[0], column + shift[1]
            if 0 <= r < height and 0 <= c < width:
                assert result[0, 0, row, column] == batch[0, 0, r, c]


def test_a_crop_mirrors_at_the_border_pixel_and_all_shifts_are_alike_often() -> None:
    row = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(900, 1, 1, 4)
    rows = [tuple(image.flatten().tolist()) for image in changed(Crop(padding=1), row)]
    assert set(rows) == {(2, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 3)}
    assert all(240 < rows.count(each) < 360 for each in set(rows))


def test_an_affine_map_of_nothing_is_the_identity() -> None:
    batch = images(4)
    assert torch.equal(changed(Affine(), batch), batch)


def test_a_quarter_turn_of_a_wide_image_keeps_its_shapes() -> None:
    batch = torch.zeros(300, 1, 21, 41)
    batch[:, :, 10, 16:25] = 1.0
    turned = changed(Affine(degrees=90), batch)
    area = turned.flatten(1).sum(1)
    assert float((area / 9 - 1).abs().max()) < 0.15
    tall = turned[:, 0, :, 20].sum(1)
    assert float(tall.max()) > 8


@pytest.mark.parametrize(
    ("operation", "low", "high"),
    [
        (Affine(scale=0.3), 0.48, 1.75),
        (Affine(translate=0.1), 0.99, 1.01),
        (Affine(shear=0.3), 0.97, 1.03),
    ],
    ids=["scale", "translate", "shear"],
)
def test_areas_change_by_scaling_only(operation: Affine, low: float, high: float) -> None:
    batch = torch.zeros(200, 1, 40, 40)
    batch[:, :, 12:28, 12:28] = 1.0
    result = changed(operation, batch)
    area = result.flatten(1).sum(1) / 256
    assert low < float(area.min())
    assert float(area.max()) < high
    assert len({tuple(image.flatten().tolist()) for image in result}) > 190


def test_shifts_have_the_range_given() -> None:
    batch = torch.zeros(500, 1, 40, 40)
    batch[:, :, 18:22, 18:22] = 1.0
    result = changed(Affine(translate=0.2), batch)
    centre = (result.sum(2) * torch.arange(40.0)).sum(2) / result.sum((2, 3)) - 19.5
    assert 7 < float(centre.abs().max()) < 8.01
    assert abs(float(centre.mean())) < 0.7


def test_the_border_goes_on_beyond_it() -> None:
    batch = torch.full((20, 1, 16, 16), 77, dtype=torch.uint8)
    assert torch.equal(changed(Crop(padding=8), changed(Affine(degrees=45, translate=0.5), batch)), batch)


def test_noise_is_in_units_of_black_to_white_and_stays_between_them() -> None:
    grey = torch.full((200, 1, 8, 8), 128, dtype=torch.uint8)
    assert float(changed(Noise(std=0.1), grey).float().std()) / 255 == pytest.approx(0.1, abs=0.003)
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(100, 1, 4, 2)
    assert changed(Noise(std=0.3), ends).float().mean((0, 1, 2)).tolist() == pytest.approx([30.5, 224.5], abs=6)


def test_an_erased_box_has_the_area_and_the_shape_given() -> None:
    grey = torch.full((400, 1, 40, 20), 7, dtype=torch.uint8)
    grey[:, :, ::2] = 9
    erasing = Erasing(probability=0.5, area=(0.1, 0.2), ratio=(0.5, 2), fill="mean")
    boxes = changed(erasing, grey)[:, 0] == 8
    there = boxes.flatten(1).any(1)
    assert 160 < int(there.sum()) < 240
    rows, columns = boxes[there].any(2).sum(1), boxes[there].any(1).sum(1)
    area, ratio = rows * columns / 800, rows / columns
    assert torch.equal(boxes[there].flatten(1).sum(1), rows * columns)
    assert 0.08 < float(area.min()) < 0.115
    assert 0.185 < float(area.max()) < 0.23
    assert 0.4 < float(ratio.min()) < 0.65
    assert 1.5 < float(ratio.max()) < 2.5


def test_what_is_erased_is_filled_between_the_darkest_and_the_brightest() -> None:
    batch = images(32).clamp(40, 90)
    result = changed(Erasing(probability=1), batch)
    assert bool((result != batch).flatten(1).any(1).all())
    assert (int(result.min()), int(result.max())) == (40, 90)


def test_an_impossible_range_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"'area': the smallest, 0\.3, is above the largest, 0\.1"):
        Erasing(area=(0.3, 0.1))
    with pytest.raises(SpecError, match="degrees"):
        Affine(degrees=200)
    with pytest.raises(SpecError, match="unknown field 'rotate'"):
        Affine(rotate=3)  # type: ignore[call-arg]


def test_mixup_blends_targets_as_it_blends_samples() -> None:
    x = torch.randn(50, 6, generator=seeded(3))
    numbers = Mixup(alpha=0.5).draw(Drawn(x=x, targets=2 * x + 1), seeded())
    assert torch.allclose(numbers.targets, 2 * numbers.x + 1, atol=1e-5)
    classes = torch.arange(50) % 4
    shares = torch.nn.functional.one_hot(classes, 4).float()
    mixed = Mixup(alpha=0.5).draw(Drawn(x=shares, targets=classes, classes=4), seeded())
    assert torch.allclose(mixed.targets, mixed.x, atol=1e-6)
    assert not torch.equal(mixed.targets, shares)


def test_shares_follow_the_beta_distribution() -> None:
    """Of Beta(α, α): mean 1/2, variance 1 / (4 (2α + 1))."""
    order = torch.arange(4000)
    for alpha in (0.2, 1.0, 8.0):
        mixed = Mixup(alpha=alpha).draw(
            Drawn(x=order[:, None].float(), targets=torch.eye(4000)[:, :1], classes=0), seeded()
        )
        partner = torch.randperm(4000, generator=_after_shares())
        share = (mixed.x[:, 0] - partner) / (order - partner)
        share = share[order != partner]
        assert float(share.mean()) == pytest.approx(0.5, abs=0.03)
        assert float(share.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def _after_shares() -> torch.Generator:
    generator = seeded()
    torch.randint(2**62, (), generator=generator)
    return generator


def test_cutmix_labels_go_by_what_is_seen() -> None:
    """Images of one value each, so that the mean of a mixed one says how much of whom it shows."""
    numbers = torch.arange(40.0)
    batch = Drawn(x=numbers.view(-1, 1, 1, 1).expand(-1, 2, 20, 30), targets=torch.arange(40), classes=40)
    mixed = Cutmix().draw(batch, seeded())
    assert torch.allclose(mixed.x.mean((1, 2, 3)), mixed.targets @ numbers, atol=1e-4)
    assert torch.allclose(mixed.targets.sum(1), torch.ones(40))
    shown = [len(set(image.flatten().tolist())) for image in mixed.x]
    assert set(shown) <= {1, 2}
    assert shown.count(2) > 30


def test_a_mixed_sample_counts_as_both_did() -> None:
    weights, losses = torch.tensor([1.0, 3.0, 0.5]), torch.tensor([5.0, 7.0, 11.0])
    for operation in (Mixup(alpha=1), Cutmix()):
        batch = Drawn(x=torch.zeros(3, 1, 8, 8), targets=torch.arange(3), weights=weights, classes=3)
        plain = Drawn(x=batch.x, targets=batch.targets, classes=3)
        mixed, share = operation.draw(batch, seeded(5)), operation.draw(plain, seeded(5)).targets
        assert mixed.weights is not None
        assert torch.allclose(mixed.weights * (mixed.targets @ losses), share @ (weights * losses))
        assert torch.allclose(mixed.targets.sum(1), torch.ones(3))


def test_the_operations_do_not_import_torch() -> None:
    code = (
        "import sys\nfrom mapsto import augment\nfor name in dir(augment): getattr(augment, name)()\n"
        "print(dir(augment), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = sorted(name.removeprefix("augment.") for name in discovery.entries("augment"))
    assert done.stdout.strip() == f"{names} False"

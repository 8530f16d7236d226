"""Operations on images of bytes: native code and PyTorch give the same, that of Pillow where Pillow has it; and what all promise."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy.ndimage import gaussian_filter

from mapsto import augment, discovery
from mapsto.context import Context, Numerics
from mapsto.data.augment import Augmentation, Drawn, _pixels
from mapsto.data.augment._apply import changed as apply
from mapsto.data.augment._by_torch import by_torch
from mapsto.data.augment._pixels import PixelOperation, by_native_code, changed_by
from mapsto.data.augment._policy import AUGMIX, RANDAUGMENT, WIDE
from mapsto.data.augment._steps import Code, Kind, Steps, number_of, rows
from mapsto.data.sets.digits import Digits
from mapsto.data.sets.subset import Subset
from mapsto.errors import SpecError
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.train.supervised import Supervised
from mapsto.native import image_steps, plain, tabular
from mapsto.native.image_steps import ImageSteps
from mapsto.nn.train.augmenter import Augmenter

STRONG: dict[str, dict[str, Any]] = {
    "affine": {"degrees": 90, "scale": 0.5, "shear": 0.5, "translate": 0.3},
    "augmix": {"severity": 10, "depth": 2},
    "blur": {"probability": 1, "sigma": (0, 4)},
    "color_jitter": {"probability": 1, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.5},
    "crop": {"padding": 11},
    "elastic": {"strength": 0.3},
    "flip": {"vertical": 0.5},
    "grid_mask": {"probability": 1, "cell": (0.2, 0.9), "keep": 0.5},
    "randaugment": {"operations": 3, "magnitude": 30},
    "rotate": {"degrees": 180},
    "shear_x": {"shear": 1},
    "shear_y": {"shear": 1},
    "solarize": {"probability": 1, "threshold": 0},
    "translate_x": {"translate": 1},
    "translate_y": {"translate": 1},
}
"""Fields with which operations go far."""
NAMES = sorted(
    {"affine", "crop", "flip"}
    | {
        name.removeprefix("augment.")
        for name in discovery.entries("augment")
        if issubclass(discovery.find("augment", name), PixelOperation)
    }
)
MOVING = (
    "affine",
    "augmix",
    "randaugment",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "trivialaugment",
)
NOTHING: dict[str, dict[str, Any]] = {
    "affine": {},
    "blur": {"sigma": (0, 0), "probability": 1},
    "brightness": {"strength": 0},
    "color": {"strength": 0},
    "color_jitter": {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "probability": 1},
    "contrast": {"strength": 0},
    "crop": {"padding": 0},
    "cutout": {"size": 0},
    "elastic": {"strength": 0},
    "flip": {"probability": 0},
    "grid_mask": {"keep": 1, "probability": 1},
    "posterize": {"bits": 8, "probability": 1},
    "randaugment": {"operations": 0},
    "rotate": {"degrees": 0},
    "sharpness": {"strength": 0},
    "shear_x": {"shear": 0},
    "shear_y": {"shear": 0},
    "solarize": {"threshold": 256, "probability": 1},
    "translate_x": {"translate": 0},
    "translate_y": {"translate": 0},
    "autocontrast": {"probability": 0},
    "equalize": {"probability": 0},
    "invert": {"probability": 0},
}
"""Fields with which operations change nothing."""


def operation_of(name: str, **fields: Any) -> Augmentation:
    return discovery.find("augment", f"augment.{name}")(**fields)


def strong(name: str) -> Augmentation:
    return operation_of(name, **STRONG.get(name, {}))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, channels: int, height: int, width: int, low: int = 0, high: int = 256) -> torch.Tensor:
    """Images whose values are not alike often."""
    drawn = torch.rand(count, channels, height, width, generator=seeded(1)) ** torch.linspace(0.3, 3, count).view(
        -1, 1, 1, 1
    )
    return (low + drawn * (high - low)).to(torch.uint8)


def changed(operation: Augmentation, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return operation.draw(Drawn(x=x, targets=torch.zeros(len(x), 0)), seeded(seed)).x


@pytest.fixture(name="without_native")
def _without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a compiler."""
    nowhere = ImageSteps.__new__(ImageSteps)
    nowhere.missing = "there is no C++ compiler"
    monkeypatch.setattr(ImageSteps, "_kept", nowhere)


# ------------------------------------------------------------------------------------------- native code and PyTorch


@pytest.mark.skipif(ImageSteps.kept().missing is not None, reason="there is no native code here")
@pytest.mark.parametrize("name", NAMES)
def test_native_code_and_pytorch_give_the_same_bytes(name: str, request: pytest.FixtureRequest) -> None:
    listed = [strong(name)]
    if name in MOVING and name != "affine":
        listed.append(dataclasses.replace(listed[0], fill="edge"))
    shapes = ((3, 33, 24), (1, 9, 20), (4, 7, 5), (3, 2, 1), (2, 1, 1), (3, 5, 70))
    batches = [(operation, images(40, *shape)) for operation in listed for shape in shapes]
    native = [changed(*each) for each in batches]
    assert by_native_code(Steps(table=np.zeros((40, 1, 8), np.int32)), batches[0][1]) is not None
    request.getfixturevalue("without_native")
    assert by_native_code(Steps(table=np.zeros((40, 1, 8), np.int32)), batches[0][1]) is None
    for (operation, batch), wanted in zip(batches, native, strict=True):
        assert torch.equal(changed(operation, batch), wanted), f"{operation} on {tuple(batch.shape)}"


@pytest.mark.skipif(ImageSteps.kept().missing is not None, reason="there is no native code here")
def test_numbers_at_the_ends_of_their_ranges() -> None:
    """Every step by numbers far beyond those that operations draw."""
    batch = images(60, 3, 8, 11)
    random = np.random.default_rng(0)
    for code in Code:
        if code in (Code.BLUR, Code.WARP):
            continue
        table = np.zeros((len(batch), 2, 8), np.int32)
        table[..., 0] = code
        table[..., 1:7] = random.integers(-200_000, 200_000, (len(batch), 2, 6)) // random.choice(
            (1, 20_000), (60, 2, 1)
        )
        table[..., 7] = random.integers(-1, 256, (len(batch), 2))
        if code in (Code.BRIGHTNESS, Code.CONTRAST, Code.COLOR, Code.SHARPNESS, Code.BOX, Code.GRID):
            table[..., 1:7] = abs(table[..., 1:7])
            table[..., 7] = abs(table[..., 7])
        steps = Steps(table=table)
        native = by_native_code(steps, batch)
        assert native is not None
        assert torch.equal(native, by_torch(batch, steps)), code.name


# ------------------------------------------------------------------------------------------------------------- Pillow


def one(kind: Kind, value: float, x: torch.Tensor, fill: int = 0) -> torch.Tensor:
    table = rows(np.full(len(x), number_of(kind)), np.full(len(x), float(value)), fill)[:, None]
    return changed_by(Steps(table=table), x)


def by_pillow(kind: Kind, value: float, x: torch.Tensor) -> torch.Tensor:
    arrays = [
        np.asarray(pillow(kind, value, Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()))) for image in x
    ]
    return torch.from_numpy(np.stack(arrays)).view(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colours"])
def pillow(kind: Kind, value: float, image: Image.Image) -> Image.Image:
    def moved(*matrix: float, between: Image.Resampling = Image.Resampling.NEAREST) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, between)

    width, height = image.size
    ways: dict[str, Callable[[], Image.Image]] = {
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
        "solarize": lambda: ImageOps.solarize(image, int(value)),
        "posterize": lambda: ImageOps.posterize(image, int(value)),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(value),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(value),
        "color": lambda: ImageEnhance.Color(image).enhance(value),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(value),
        "rotate": lambda: image.rotate(value, Image.Resampling.BILINEAR),
        "translate_x": lambda: moved(1, 0, -value * width, 0, 1, 0),
        "translate_y": lambda: moved(1, 0, 0, 0, 1, -value * height),
        "shear_x": lambda: moved(1, value, -value * height / 2, 0, 1, 0, between=Image.Resampling.BILINEAR),
    }
    return ways[kind]()


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colours"])
@pytest.mark.parametrize(
    ("kind", "value", "within"),
    [
        ("autocontrast", 0, 1),
        ("equalize", 0, 0),
        ("invert", 0, 0),
        ("solarize", 100, 0),
        ("posterize", 3, 0),
        ("brightness", 0.3, 1),
        ("brightness", 1.7, 1),
        ("contrast", 0.3, 1),
        ("contrast", 1.9, 1),
        ("color", 0.3, 1),
        ("color", 1.9, 1),
        ("sharpness", 0.3, 1),
        ("sharpness", 1.9, 1),
        ("rotate", 30, 2),
        ("translate_x", 0.25, 0),
        ("translate_y", -0.25, 0),
        ("shear_x", 0.3, 2),
    ],
)
def test_what_pillow_has_gives_what_pillow_does(kind: Kind, value: float, within: int, channels: int) -> None:
    """Pillow cuts off fractions of a level, and leaves out what lies less than a pixel beyond the border."""
    batch = images(12, channels, 32, 24, 10, 220)
    ours, theirs = one(kind, value, batch), by_pillow(kind, value, batch)
    if kind in ("rotate", "shear_x"):
        # within the image, away from its border
        seen = one(kind, value, torch.full_like(batch, 255)) == 255
        seen &= by_pillow(kind, value, torch.full_like(batch, 255)) == 255
        assert float(seen.float().mean()) > 0.6
        ours, theirs = ours * seen, theirs * seen
    difference = (ours.int() - theirs.int()).abs()
    assert int(difference.max()) <= within
    assert within == 0 or float(difference.float().mean()) < 0.6
    assert (channels == 1 and kind == "color") or not torch.equal(ours, batch)


def test_a_blur_is_gaussian() -> None:
    batch = images(6, 3, 40, 30)
    blurred = changed(augment.blur(probability=1, sigma=(2, 2)), batch)
    planes = batch.double().numpy()
    wanted = gaussian_filter(planes, (0, 0, 2, 2), mode="mirror", truncate=3.0)
    assert float((blurred - torch.from_numpy(wanted)).abs().max()) <= 1


def test_a_hue_goes_around_the_circle() -> None:
    from colorsys import hsv_to_rgb, rgb_to_hsv

    batch = images(4, 3, 8, 8)
    for share in (-0.5, -0.1, 0.25, 1 / 3, 0.5):
        turned = one("hue", share, batch).permute(0, 2, 3, 1).reshape(-1, 3)
        for before, after in zip(batch.permute(0, 2, 3, 1).reshape(-1, 3).tolist(), turned.tolist(), strict=True):
            hue, saturation, value = rgb_to_hsv(*(each / 255 for each in before))
            wanted = hsv_to_rgb((hue + share) % 1, saturation, value)
            assert after == pytest.approx([255 * each for each in wanted], abs=1)
    assert torch.equal(
        one("hue", 1 / 3, torch.tensor([200, 10, 10]).to(torch.uint8).view(1, 3, 1, 1)).flatten(),
        torch.tensor([10, 200, 10]),
    )


# ----------------------------------------------------------------------------------------------------------- promises


@pytest.mark.parametrize("name", NAMES)
def test_each_image_has_draws_of_its_own(name: str) -> None:
    one_image = images(3, 3, 16, 16, 20, 200)[1:2].expand(60, -1, -1, -1)
    result = changed(strong(name), one_image)
    assert len({image.numpy().tobytes() for image in result}) >= 2
    assert torch.equal(changed(strong(name), one_image.contiguous()), result), "however it lies in memory"
    few = {"autocontrast", "equalize", "invert", "flip", "posterize"}
    assert name in few or len({image.numpy().tobytes() for image in result}) > 15


@pytest.mark.parametrize("name", sorted(NOTHING))
def test_strength_0_changes_nothing(name: str) -> None:
    batch = images(30, 3, 13, 10)
    result = changed(operation_of(name, **NOTHING[name]), batch)
    assert torch.equal(result, batch)
    assert result.data_ptr() != batch.data_ptr()


def test_strength_0_of_policies_leaves_only_what_has_no_strength() -> None:
    kinds = {"autocontrast", "equalize"}
    for space in (RANDAUGMENT, WIDE, AUGMIX):
        batch = images(len(space.kinds), 3, 20, 20, 30, 200)
        result = changed_by(Steps(table=space.rows(np.arange(len(batch)), np.zeros(len(batch)), 0)[:, None]), batch)
        moved = {kind for kind, a, b in zip(space.kinds, result, batch, strict=True) if not torch.equal(a, b)}
        assert moved == kinds


def test_strengths_are_those_that_were_published() -> None:
    def numbers(space: Any, kind: str, strength: float) -> list[int]:
        return space.rows(np.array([space.kinds.index(kind)]), np.array([strength]), 128)[0].tolist()

    one_ = 65536
    assert numbers(RANDAUGMENT, "shear_x", 1)[1:5] == [one_, round(0.3 * one_), 0, one_]
    assert numbers(RANDAUGMENT, "rotate", -1)[1:3] == [round(0.75**0.5 * one_), one_ // 2]
    assert numbers(RANDAUGMENT, "color", -1)[1] == round(0.1 * one_)
    assert numbers(RANDAUGMENT, "color", 0.5)[1] == round(1.45 * one_)
    assert numbers(RANDAUGMENT, "solarize", -1)[1] == 0
    assert numbers(RANDAUGMENT, "posterize", 0.3)[1] == 7
    assert numbers(RANDAUGMENT, "posterize", -1)[1] == 4
    assert numbers(RANDAUGMENT, "translate_y", 1)[1:3] == [-round(150 / 331 * one_), 0]
    assert numbers(WIDE, "posterize", 1)[1] == 2
    assert numbers(WIDE, "brightness", 1)[1] == round(1.99 * one_)
    assert numbers(WIDE, "translate_x", -1)[1:3] == [0, round(one_ / 7)]
    assert "brightness" not in AUGMIX.kinds


def test_the_operations_of_a_policy_come_alike_often() -> None:
    table = augment.randaugment(magnitude=30).steps((7000, 3, 8, 8), seeded()).table  # type: ignore[attr-defined]
    counts = np.bincount(table[..., 0].ravel(), minlength=len(Code)) / table[..., 0].size * 14
    once = [Code.KEEP, Code.SOLARIZE, Code.POSTERIZE, Code.BRIGHTNESS, Code.CONTRAST, Code.COLOR, Code.SHARPNESS]
    assert counts[[*once, Code.AUTOCONTRAST, Code.EQUALIZE]] == pytest.approx(1, abs=0.1)
    assert counts[[Code.AFFINE, Code.TRANSLATE]] == pytest.approx([3, 2], abs=0.15)
    up = table[table[..., 0] == Code.BRIGHTNESS][:, 1] > 65536
    assert 0.45 < up.mean() < 0.55
    wide = augment.trivialaugment().steps((7000, 3, 8, 8), seeded()).table  # type: ignore[attr-defined]
    bits = wide[wide[..., 0] == Code.POSTERIZE][:, 1]
    assert set(bits) == {2, 3, 4, 5, 6, 7, 8}


def test_augmix_stays_near_the_image() -> None:
    """Shares sum to 1, are uniform for the image itself at α = 1, and a chain of nothing but the image gives the image."""
    operation: Any = augment.augmix()
    steps = operation.steps((4000, 3, 8, 8), seeded())
    assert (steps.shares.sum(1) == 65536).all()
    assert steps.shares.min() >= 0
    own = steps.shares[:, 0] / 65536
    assert (own.mean(), own.var()) == (pytest.approx(1 / 2, abs=0.02), pytest.approx(1 / 12, abs=0.005))
    lengths = (steps.table[..., 0] != Code.KEEP).sum(2)
    assert np.bincount(lengths.ravel()).tolist()[1:] == pytest.approx([4000, 4000, 4000], rel=0.06)
    batch = images(len(steps.table), 3, 8, 8)
    assert torch.equal(changed_by(dataclasses.replace(steps, table=np.zeros_like(steps.table)), batch), batch)


def test_cutout_covers_up_to_the_share_given() -> None:
    white = torch.full((500, 3, 20, 30), 255, dtype=torch.uint8)
    covered = (changed(augment.cutout(size=0.5, fill=7), white) == 7).all(1)
    rows_covered, columns_covered = covered.any(2).sum(1), covered.any(1).sum(1)
    assert torch.equal(covered.sum((1, 2)), rows_covered * columns_covered)
    assert (int(rows_covered.max()), int(columns_covered.max())) == (10, 15)
    assert (int(rows_covered.min()), int(columns_covered.min())) == (5, 8)
    assert int(covered.float().mean(0).gt(0).sum()) == 600, "it may be anywhere"


def test_a_grid_leaves_the_share_that_its_rule_says() -> None:
    white = torch.full((200, 1, 60, 60), 255, dtype=torch.uint8)
    for keep in (0.4, 0.6):
        left = changed(augment.grid_mask(probability=1, keep=keep, cell=(0.2, 0.2), fill=0), white) > 0
        assert float(left.float().mean()) == pytest.approx(2 * keep - keep**2, abs=0.03)


def test_bends_are_smooth_and_as_far_as_said() -> None:
    ramp = torch.arange(0, 200, 2, dtype=torch.uint8).expand(40, 1, 100, 100).contiguous()
    moved = (changed(augment.elastic(strength=0.1), ramp).float() - ramp)[..., 15:-15] / 2
    assert 3 < float(moved.abs().max()) < 10
    assert float((moved[..., 1:, :] - moved[..., :-1, :]).abs().max()) < 1.1
    assert float(moved.mean().abs()) < 0.5


def test_numbers_that_are_no_bytes_are_taken_too() -> None:
    batch = images(20, 3, 12, 12, 10, 250)
    for operation in (augment.contrast(), augment.invert(probability=1), augment.rotate(fill=0)):
        wanted = changed(operation, batch)
        assert torch.equal(changed(operation, batch.long()), wanted.long())
        assert torch.allclose(changed(operation, batch / 255), wanted / 255, atol=1e-6)
    normalised = torch.randn(20, 3, 12, 12, generator=seeded())
    low, high = (each.view(-1, 1, 1, 1) for each in normalised.flatten(1).aminmax(dim=1))
    inverted = changed(augment.invert(probability=1), normalised)
    assert torch.allclose(inverted, low + high - normalised, atol=float((high - low).max()) / 255)


def test_impossible_fields_are_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"'sigma': the smallest, 2\.0, is above the largest, 1\.0"):
        augment.blur(sigma=(2, 1))
    with pytest.raises(SpecError, match="'cell': the smallest"):
        augment.grid_mask(cell=(0.5, 0.2))
    for fields in ({"fill": 256}, {"fill": "black"}, {"degrees": 181}):
        with pytest.raises(SpecError, match=next(iter(fields))):
            augment.rotate(**fields)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="magnitude"):
        augment.randaugment(magnitude=31)


def test_operations_in_one_pass_are_those_one_after_the_other() -> None:
    batch = images(50, 3, 14, 11)
    listed = [strong(name) for name in ("flip", "crop", "blur", "randaugment", "augmix", "invert", "noise", "rotate")]
    wanted = batch
    for place, each in enumerate(listed):
        wanted = changed(each, wanted, place)
    assert torch.equal(apply(listed, batch, seeded), wanted)
    moves = listed[:2]
    numbers = torch.randn(50, 3, 14, 11, generator=seeded(5))
    assert torch.equal(apply(moves, numbers, seeded), changed(moves[1], changed(moves[0], numbers, 0), 1))
    assert set(apply(moves, numbers, seeded).flatten().tolist()) <= set(numbers.flatten().tolist()), (
        "nothing is rounded"
    )


@pytest.mark.skipif(ImageSteps.kept().missing is not None, reason="there is no native code here")
def test_threads_change_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = images(50, 3, 14, 11)
    listed = [strong(name) for name in ("flip", "randaugment", "blur", "elastic", "augmix")]
    wanted = [changed(each, batch) for each in listed]
    monkeypatch.setattr(_pixels, "THREADED", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert all(torch.equal(changed(each, batch), one) for each, one in zip(listed, wanted, strict=True))
    assert changed(listed[0], batch[:0]).shape == (0, 3, 14, 11)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_gives_the_same_bytes(name: str) -> None:
    batch = images(40, 3, 33, 24)
    assert torch.equal(changed(strong(name), batch.cuda()).cpu(), changed(strong(name), batch))


def test_a_training_without_native_code_ends_with_the_same_network(request: pytest.FixtureRequest) -> None:
    few: Any = Subset(data=Digits(size=16), per_class=4)
    network: Any = Conv4(data=few, width=4, blocks=2, classes="data")
    listed = (augment.flip(), augment.crop(), augment.randaugment(), augment.augmix())
    training = Supervised(data=few, epochs=1, batch_size=20, augment=listed)
    native = training(network(seed=1), seed=2).tensors
    request.getfixturevalue("without_native")
    other = training(network(seed=1), seed=2).tensors
    assert all(torch.equal(other[name], native[name]) for name in native)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in plain.VARIANTS, reason="wheels for this machine hold nothing compiled")
def test_every_form_in_a_wheel_gives_the_same_bytes(tmp_path: Path) -> None:
    batch = images(200, 3, 32, 24)
    listed = [strong(name) for name in ("crop", "randaugment", "color_jitter", "blur", "elastic", "affine")]
    wanted = [changed(each, batch) for each in listed]
    (source,) = (path for path in plain.SOURCES["image_steps"] if path.suffix == ".cpp")
    for march, needed in plain.VARIANTS[platform.machine()]:
        if not needed <= tabular._flags():
            continue
        place = tmp_path / f"{march}.so"
        subprocess.run(["c++", *plain.FLAGS, f"-march={march}", "-shared", str(source), "-o", str(place)], check=True)

        def form(*_: Any, place: Path = place) -> Path:
            return place

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(image_steps, "plain_library", form)
            patch.setattr(ImageSteps, "_kept", None)
            assert ImageSteps.kept().missing is None
            assert all(torch.equal(changed(each, batch), one) for each, one in zip(listed, wanted, strict=True))


@pytest.mark.usefixtures("without_native")
def test_what_runs_without_native_code_says_so() -> None:
    ctx = Context(key="a step", numerics=Numerics(threads=1))
    Augmenter((augment.noise(),), ctx)
    assert ctx.notes == []
    Augmenter((augment.noise(), augment.rotate()), ctx)
    assert ctx.notes == [
        "images are changed without compiled code, which takes longer and gives the same: there is no C++ compiler"
    ]


def test_images_too_large_for_32_bits_go_by_pytorch() -> None:
    long = images(1, 1, 1, 20_000)
    assert by_native_code(Steps(table=np.zeros((1, 1, 8), np.int32)), long) is None
    assert torch.equal(changed(augment.invert(probability=1), long), 255 - long)

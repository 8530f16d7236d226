"""Corruptions: the same for a seed, worse with severity, and of the kind that their names say."""

import numpy as np
import pytest

from mapsto.data.corruptions.blur import along, zoomed
from mapsto.data.corruptions.severities import CORRUPTIONS, corrupted
from mapsto.data.corruptions.textures import frost_textures, plasma
from mapsto.errors import DataError


def scenes(count=12, size=32, channels=3):
    """Smooth shapes over a gradient, not the same twice."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size
    images = np.empty((count, channels, size, size), np.uint8)
    for image in images:
        for channel in image:
            a, b, c = draw.uniform(0.2, 0.8, 3)
            channel[:] = 60 + 90 * rows * a + 80 * (np.hypot(rows - b, columns - c) < 0.25) * draw.uniform(0.4, 1)
    return images


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_gives_bytes_of_that_shape_the_same_for_a_seed_and_changes_more_with_severity(name, channels):
    images = scenes(channels=channels)
    before = images.copy()
    mild, hard = (corrupted(images, name, severity, seed=1) for severity in (1, 5))
    assert mild.dtype == np.uint8
    assert mild.shape == images.shape
    assert np.array_equal(images, before)
    assert np.array_equal(hard, corrupted(images, name, 5, seed=1))
    distances = [np.abs(each.astype(int) - images).mean() for each in (mild, hard)]
    assert (
        distances[1] > distances[0] > 0 or name == "elastic_transform"
    )  # whose severities of CIFAR-10-C differ in kind
    assert distances[1] < 110


@pytest.mark.parametrize("name", ["gaussian_noise", "snow", "fog", "glass_blur", "elastic_transform", "motion_blur"])
def test_another_seed_draws_something_else(name):
    images = scenes(3)
    assert not np.array_equal(corrupted(images, name, 3, seed=1), corrupted(images, name, 3, seed=2))


@pytest.mark.parametrize("name", ["defocus_blur", "glass_blur", "snow", "elastic_transform", "pixelate", "fog"])
def test_images_of_other_sizes_and_shapes(name):
    for shape in ((2, 3, 80, 72), (2, 1, 24, 40), (1, 3, 8, 8)):
        images = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
        assert corrupted(images, name, 5).shape == shape


def test_what_the_names_say():
    images = scenes()
    assert corrupted(images, "brightness", 3).mean() > images.mean() + 10
    assert corrupted(images, "contrast", 5).std((2, 3)).mean() < 0.3 * images.std((2, 3)).mean()
    assert abs(corrupted(images, "contrast", 5).mean() - images.mean()) < 1
    edges = [
        np.abs(np.diff(each.astype(int), axis=3)).mean() for each in (images, corrupted(images, "defocus_blur", 5))
    ]
    assert edges[1] < edges[0]
    small = corrupted(np.repeat(np.repeat(np.eye(8, dtype=np.uint8)[None, None] * 200, 4, 2), 4, 3), "pixelate", 1)
    assert small.shape == (1, 1, 32, 32)
    assert abs(float(small.mean()) - 25) < 3


def test_blur_along_a_line_and_zoom_keep_what_is_uniform():
    flat = np.full((2, 1, 9, 9), 0.5, np.float32)
    assert np.allclose(along(flat, np.array([0.3, -1.0]), 4, 2), 0.5, atol=2e-3)
    assert np.allclose(zoomed(flat, 1.3), 0.5)
    dot = np.zeros((1, 1, 9, 9), np.float32)
    dot[0, 0, 4, 6] = 1
    smeared = along(dot, np.array([0.0]), 3, 2)
    assert smeared[0, 0, 4].sum() > 0.95
    assert smeared[0, 0, [3, 5]].sum() == 0


def test_textures_are_within_black_and_white_and_not_flat():
    frost = frost_textures(2, 96, np.random.default_rng(0))
    assert frost.shape == (2, 3, 96, 96)
    assert frost.min() >= 0
    assert frost.max() <= 1
    assert 0.2 < frost.mean() < 0.7
    assert frost.std() > 0.1
    assert (frost[:, 2].mean() - frost[:, 0].mean()) > 0.01, "ice is bluish"
    rough, smooth = (
        np.abs(np.diff(plasma(3, 64, decay, np.random.default_rng(0)), axis=2)).mean() for decay in (1.3, 3)
    )
    assert rough > 1.5 * smooth


def test_rows_and_floats_are_refused():
    with pytest.raises(DataError, match="no batch of images of bytes"):
        corrupted(np.zeros((2, 3, 8, 8), np.float32), "fog", 1)

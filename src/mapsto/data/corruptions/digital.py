"""What processing does: less contrast, an elastic warp, too few pixels, JPEG. Images are float32 (N, C, H, W) from 0 to 1."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["contrast", "elastic_transform", "jpeg_compression", "pixelate"]

Images = NDArray[Any]


def contrast(x: Images, draws: np.random.Generator, unit: float, share: float) -> Images:
    """``mean + share · (x − mean)``, the mean of each channel of each image."""
    mean = x.mean((2, 3), keepdims=True)
    return mean + share * (x - mean)


def elastic_transform(
    x: Images, draws: np.random.Generator, unit: float, far: float, smooth: float, affine: float
) -> Images:
    """Each image is sheared by moving three points, up to `affine`, then warped by a smooth random field; lengths are shares of its size.

    Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks", 2003.
    """
    from scipy import ndimage

    height, width = x.shape[2:]
    size = float(max(height, width))
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    third = size // 3
    middle = np.array([height // 2, width // 2])
    corners = np.array([middle + third, middle + np.array([third, -third]), middle - third], np.float64)
    found = np.empty_like(x)
    for place, image in enumerate(x):
        moved = corners + draws.uniform(-affine * size, affine * size, corners.shape)
        linear = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners)
        field = draws.uniform(-1, 1, (2, height, width))
        if smooth > 0:
            field = ndimage.gaussian_filter(field, (0, smooth * size, smooth * size), mode="reflect", truncate=3)
        field *= far * size
        at = np.stack([rows, columns, np.ones_like(rows)], -1) @ linear
        places = [at[..., 0] + field[0], at[..., 1] + field[1]]
        for channel, plane in enumerate(image):
            found[place, channel] = ndimage.map_coordinates(plane, places, order=1, mode="reflect")
    return found


def pixelate(x: Images, draws: np.random.Generator, unit: float, share: float) -> Images:
    """Made smaller to that share of its size by means over boxes, and larger again by repetition."""
    for axis in (2, 3):
        size = x.shape[axis]
        fewer = max(1, int(size * share))
        edges = np.arange(fewer + 1) * size / fewer
        before = np.concatenate([np.zeros_like(np.take(x, [0], axis)), np.cumsum(x, axis, np.float64)], axis)
        low = np.floor(edges).astype(int)
        shape = [1] * 4
        shape[axis] = -1
        part = (edges - low).reshape(shape)
        sums = np.take(before, low, axis) * (1 - part) + np.take(before, np.minimum(low + 1, size), axis) * part
        boxes = np.diff(sums, axis=axis) * fewer / size
        x = np.take(boxes, np.minimum((np.arange(size) + 0.5) * fewer / size, fewer - 1).astype(int), axis).astype(
            np.float32
        )
    return x


def jpeg_compression(x: Images, draws: np.random.Generator, unit: float, quality: float) -> Images:
    """Written as JPEG of that quality, 1 to 95, and read again."""
    from PIL import Image

    found = np.empty_like(x)
    whole = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
    for place, image in enumerate(whole):
        file = io.BytesIO()
        grey = len(image) == 1
        Image.fromarray(image[0] if grey else image.transpose(1, 2, 0)).save(file, "JPEG", quality=int(quality))
        read = np.asarray(Image.open(file), np.float32) / 255
        found[place] = read[None] if grey else read.transpose(2, 0, 1)
    return found

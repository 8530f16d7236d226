"""Images as a network's input, from arrays; `image_files` reads files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mapsto_runtime.errors import DataError
from mapsto_runtime.preprocessing.arrays import finite
from mapsto_runtime.signature import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["covering", "images_of", "lightened", "middle", "normalised", "prepare"]


def prepare(image: NDArray[Any], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """An image (C, H, W), C 1 or 3, values 0 to 1, as the network's input (channels, height, width).

    >>> import numpy as np
    >>> ink = Preprocessing(channels=1, size=(2, 2), ink="light")
    >>> float(prepare(np.ones((3, 8, 8), np.float32), ink).max())  # bright ground becomes dark
    0.0
    """
    import numpy as np

    pixels = image.astype(np.float32)
    if preprocessing.ink == "light" and _has_bright_border(pixels):
        pixels = 1 - pixels
    if pixels.shape[0] != preprocessing.channels:
        grey = (
            np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), pixels, 1)[None] if len(pixels) == 3 else pixels
        )
        pixels = np.repeat(grey, preprocessing.channels, axis=0)
    scaled = (
        covering(pixels.shape[1:], preprocessing.scaled_size) if preprocessing.fit == "crop" else preprocessing.size
    )
    if pixels.shape[1:] != tuple(scaled):
        pixels = np.stack([_resized(plane, scaled) for plane in pixels])
    rows, columns = middle(pixels.shape[1:], preprocessing.size)
    return normalised(pixels[:, rows, columns], preprocessing)


def covering(shape: Sequence[int], size: tuple[int, int]) -> tuple[int, int]:
    """The smallest height and width of the proportions of `shape` that cover `size`.

    >>> covering((300, 600), (256, 256)), covering((256, 256), (256, 256))
    ((256, 512), (256, 256))
    """
    factor = max(size[0] / shape[0], size[1] / shape[1])
    return max(size[0], round(shape[0] * factor)), max(size[1], round(shape[1] * factor))


def middle(shape: Sequence[int], size: tuple[int, int]) -> tuple[slice, slice]:
    """Where the middle of that height and width is in an image: its rows and its columns."""
    top, left = (shape[0] - size[0]) // 2, (shape[1] - size[1]) // 2
    return slice(top, top + size[0]), slice(left, left + size[1])


def normalised(pixels: NDArray[np.float32], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """``(x - mean) / std`` by channel, for values 0 to 1 of shape (..., C, H, W)."""
    import numpy as np

    mean = np.array(preprocessing.mean, np.float32).reshape(-1, 1, 1)
    std = np.array(preprocessing.std, np.float32).reshape(-1, 1, 1)
    return ((pixels - mean) / std).astype(np.float32, copy=False)


def lightened(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image of shape (C, H, W), inverted where its border is bright, so that ink is light on a dark ground."""
    height, width = image.shape[1:]
    border = image[:, [0, -1], :].sum() + image[:, 1:-1, [0, -1]].sum()
    count = image.shape[0] * (2 * width + 2 * max(height - 2, 0))
    return 255 - image if border > 127.5 * count else image


def _has_bright_border(pixels: NDArray[np.float32]) -> bool:
    _, height, width = pixels.shape
    total = pixels[:, [0, -1], :].sum() + pixels[:, 1:-1, [0, -1]].sum()
    return bool(total > 0.5 * len(pixels) * (2 * width + 2 * max(height - 2, 0)))


def _resized(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    import numpy as np
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(plane), mode="F")
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR), dtype=np.float32)


def said_of(samples: NDArray[Any], preprocessing: Preprocessing, name: str) -> tuple[str, ...]:
    """A note on an array that may be one image in colour or three grey ones, and which it is taken for."""
    shape = samples.shape
    if preprocessing.channels != 1 or len(shape) != 3 or shape[0] != 3 or shape[2] in (1, 3):
        return ()
    grey = (3, 1, *shape[1:])
    return (f"{name}: shape {shape} is taken for one image in colour, (C, H, W); give three grey ones in shape {grey}",)


def images_of(samples: NDArray[Any], name: str) -> list[NDArray[np.float32]]:
    """One or more images of shape (C, H, W), values 0 to 1."""
    import numpy as np

    values: NDArray[np.float32] = finite(samples, name)
    if samples.dtype.kind != "f" or values.max(initial=0) > 1:
        values = np.divide(values, 255, dtype=np.float32)
    if values.size == 0 or values.min() < 0 or values.max() > 1:
        raise DataError(
            "is no image: values must be 0 to 255, or 0 to 1", where=name, hint="scale it, or save it as a PNG"
        )
    if values.ndim == 2:
        return [values[None]]
    if values.ndim == 3:
        if values.shape[2] in (1, 3):
            return [values.transpose(2, 0, 1)]
        return [values] if values.shape[0] in (1, 3) else [image[None] for image in values]
    if values.ndim == 4 and values.shape[1] in (1, 3):
        return list(values)
    if values.ndim == 4 and values.shape[3] in (1, 3):
        return list(values.transpose(0, 3, 1, 2))
    raise DataError(
        f"has shape {samples.shape}",
        where=name,
        hint="an image is (H, W), (H, W, C) or (C, H, W); several are stacked in front",
    )

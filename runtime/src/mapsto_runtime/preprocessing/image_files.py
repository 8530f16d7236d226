"""The one reader of image files, for training, evaluation and a package: what a file shows, as 8-bit pixels of a network's size.

In this order: upright by its EXIF data, 8 bits, transparency on white, grey or colour, resized bilinearly with antialiasing,
light ink. With `fit` ``crop`` the picture keeps its proportions and the middle is cut out. How a mode becomes 8 bits:

| mode | rule |
|---|---|
| 1, L, RGB | as it is; 1 becomes 0 and 255 |
| P, PA | its palette's colours |
| LA, RGBA, and any mode with a transparent colour | laid on white |
| CMYK, YCbCr, HSV, LAB | Pillow's conversion to sRGB |
| 16 bits (PNG, TIFF, PGM) | ``round(x / 257)``: 0 to 65,535 become 0 to 255 |
| 32-bit whole numbers (TIFF) | in the narrowest range that holds them all: 0 to 255, 0 to 65,535, else their own |
| floats (TIFF, PFM) | in the narrowest range that holds them all: 0 to 1, 0 to 255, 0 to 65,535, else their own |

"Their own" range is from the smallest value of the picture to its largest; that is said, since two pictures are then no longer on
one scale.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mapsto_runtime.errors import DataError
from mapsto_runtime.preprocessing.images import covering, lightened, middle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["MAX_PIXELS", "Picture", "huge_allowed", "read_picture"]

MAX_PIXELS = 100_000_000
"""A file that says it has more is not decoded: a few kilobytes can unfold to gigabytes."""

_SIXTEEN_BITS = ("PNG", "PPM")
"""Formats whose wide modes always hold 0 to 65,535."""


@dataclass(frozen=True)
class Picture:
    """A file's pixels, and what is odd about them."""

    pixels: NDArray[np.uint8]
    """Shape (C, H, W)."""
    stretched: bool
    """Whether its values fit no known range and were stretched from their own to 0 to 255."""

    @property
    def constant(self) -> bool:
        """Whether all pixels are alike, so that there is nothing to be seen."""
        return bool((self.pixels == self.pixels[:, :1, :1]).all())


def read_picture(
    source: Path | bytes,
    name: str,
    *,
    size: tuple[int, int],
    channels: int,
    ink: Literal["as_is", "light"] = "as_is",
    fit: Literal["stretch", "crop"] = "stretch",
) -> Picture:
    """An image file as a network takes it.

    Parameters
    ----------
    source
        A path, or the bytes of a file; of several frames or pages the first counts.
    name
        What messages call it.
    size
        Height and width in pixels.
    channels
        1 for grey (Rec. 601 luma), 3 for colour.
    ink
        ``light`` inverts an image with a bright border, after it was resized.
    fit
        ``crop`` scales the picture until it just covers `size` and cuts out its middle; ``stretch`` gives it the proportions of `size`.

    Raises
    ------
    DataError
        It is no image, broken, truncated, of more than `MAX_PIXELS`, or holds NaN.
    """
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise DataError(
                    f"has {width:,} × {height:,} pixels, more than {MAX_PIXELS // 1_000_000} megapixels",
                    where=name,
                    hint="save it smaller",
                )
            sixteen_bits = opened.format in _SIXTEEN_BITS
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            image, stretched = _eight_bits(upright, name, sixteen_bits=sixteen_bits)
            image = image.convert("L" if channels == 1 else "RGB")
            scaled = covering((image.height, image.width), size) if fit == "crop" else size
            image = _resized(image, scaled)
            rows, columns = middle(scaled, size)
            image = image.crop((columns.start, rows.start, columns.stop, rows.stop))
    except Image.UnidentifiedImageError as error:
        raise DataError(
            "neither an image nor an array that is known",
            where=name,
            hint="give PNG, JPEG, BMP, GIF, TIFF, WebP or .npy",
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"has more than {MAX_PIXELS // 1_000_000} megapixels", where=name, hint="save it smaller"
        ) from error
    except (OSError, SyntaxError, ValueError, ArithmeticError, EOFError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"a broken or truncated image ({reason})", where=name, hint="save it again") from error
    pixels = np.asarray(image, dtype=np.uint8).reshape(*size, channels).transpose(2, 0, 1)
    return Picture(lightened(pixels) if ink == "light" else pixels, stretched)


def _resized(image: Image, size: tuple[int, int]) -> Image:
    from PIL import Image as images

    return image.resize((size[1], size[0]), images.Resampling.BILINEAR)


@contextmanager
def huge_allowed() -> Generator[None]:
    """For a block Pillow does not warn of pictures that are large but allowed. Not within threads: filters of warnings are global."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _eight_bits(image: Image, name: str, *, sixteen_bits: bool) -> tuple[Image, bool]:
    """In mode L or RGB, and whether its values had to be stretched."""
    from PIL import Image as images

    if image.mode.startswith("I;16"):
        return _scaled(image, name, full=65535.0), False
    if image.mode in ("I", "F"):
        full = 65535.0 if sixteen_bits and image.mode == "I" else None
        low, high = _extent(image, name)
        stretched = full is None and not (low >= 0 and high <= 65535)
        return _scaled(image, name, full=full), stretched
    if image.has_transparency_data:
        opaque = images.new("RGBA", image.size, "white")
        clear = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        return images.alpha_composite(opaque, clear).convert("RGB"), False
    if image.mode == "1":
        return image.convert("L"), False
    return image if image.mode in ("L", "RGB") else image.convert("RGB"), False


def _extent(image: Image, name: str) -> tuple[float, float]:
    import numpy as np

    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise DataError("holds NaN or infinity", where=name, hint="fill in what is missing, and save it again")
    return float(values.min()), float(values.max())


def _scaled(image: Image, name: str, *, full: float | None) -> Image:
    """0 to `full` as 0 to 255; without `full` the narrowest known range that holds all values, else their own."""
    import numpy as np
    from PIL import Image as images

    values = np.asarray(image).astype(np.float64)
    low = 0.0
    if full is None:
        least, most = _extent(image, name)
        ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        known = [end for end in ranges if least >= 0 and most <= end]
        low, full = (0.0, known[0]) if known else (least, most - least)
    pixels = np.zeros_like(values) if full == 0 else (values - low) * (255.0 / full)
    return images.fromarray(pixels.round().clip(0, 255).astype(np.uint8))

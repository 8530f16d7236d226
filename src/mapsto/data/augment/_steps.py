"""What is done to images of bytes, as a table of whole numbers: a row of eight an image and step, the same whatever the size of images.

The table is drawn once; native code (`mapsto/native/csrc/image_steps.cpp`) and PyTorch (`_by_torch.py`) follow it in arithmetic of whole
numbers, and give the same bytes. Parts of a pixel, a side or a factor are counted in 1/65536.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Generator

__all__ = ["EDGE", "ONE", "Code", "Fill", "Kind", "Steps", "fixed", "level_of", "number_of", "rows", "uniforms"]

ONE = 65536
"""What stands for 1."""
EDGE = -1
"""The level that stands for the outermost pixels."""
Fill: TypeAlias = Annotated[int, Field(ge=0, le=255)] | Literal["edge"]
"""What is seen beyond the border: a grey level, 0 to 255, or the outermost pixels."""


class Code(IntEnum):
    """What a step does; the numbers after its code, the last of the eight being what fills."""

    KEEP = 0
    FLIP = 1
    FLIP_VERTICALLY = 2
    SHIFT = 3
    """Rows and columns in pixels, mirrored at the border."""
    AFFINE = 4
    """A map (a, b; c, d) from places in the result to places in the image, about its centre, and shares of width and height."""
    TRANSLATE = 5
    """Shares of height and width, rounded to whole pixels."""
    INVERT = 6
    SOLARIZE = 7
    """Threshold, 0 to 256."""
    POSTERIZE = 8
    """Bits, 0 to 8."""
    BRIGHTNESS = 9
    """Factor; so do the next three."""
    CONTRAST = 10
    COLOR = 11
    SHARPNESS = 12
    AUTOCONTRAST = 13
    EQUALIZE = 14
    HUE = 15
    """Sixths of the circle."""
    BLUR = 16
    """Where the weights begin in the pool, and the radius in pixels."""
    BOX = 17
    """Top, left, bottom and right, as shares of the sides."""
    GRID = 18
    """A cell's side as a share of the shorter side; of the cell the part that stays, and offsets down and across."""
    WARP = 19
    """Where the field (2, H, W) of shifts of rows and columns, in 1/256 of a pixel, begins in the pool."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """A table of steps and what they point to."""

    table: NDArray[np.int32]
    """Shape (N, steps, 8); of chains that are blended (N, chains, steps, 8)."""
    pool: NDArray[np.int32] | None = None
    """Longer rows of numbers, such as the weights of a blur."""
    shares: NDArray[np.int32] | None = None
    """Of chains that are blended: of the image itself and of each chain, (N, 1 + chains), their sum 65536."""

    def of(self, images: slice) -> Steps:
        """Those of some of the images."""
        shares = None if self.shares is None else self.shares[images]
        return Steps(table=self.table[images], pool=self.pool, shares=shares)


Kind: TypeAlias = Literal[
    "identity",
    "autocontrast",
    "equalize",
    "rotate",
    "solarize",
    "color",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "invert",
    "hue",
]
"""Steps with one number at most."""

_KINDS: dict[Kind, tuple[Code, float]] = {
    "identity": (Code.KEEP, 0),
    "autocontrast": (Code.AUTOCONTRAST, 0),
    "equalize": (Code.EQUALIZE, 0),
    "rotate": (Code.AFFINE, 0),
    "solarize": (Code.SOLARIZE, 1),
    "color": (Code.COLOR, ONE),
    "posterize": (Code.POSTERIZE, 1),
    "contrast": (Code.CONTRAST, ONE),
    "brightness": (Code.BRIGHTNESS, ONE),
    "sharpness": (Code.SHARPNESS, ONE),
    "shear_x": (Code.AFFINE, ONE),
    "shear_y": (Code.AFFINE, ONE),
    "translate_x": (Code.TRANSLATE, -ONE),
    "translate_y": (Code.TRANSLATE, -ONE),
    "invert": (Code.INVERT, 0),
    "hue": (Code.HUE, 6 * ONE),
}
"""Kind → code and what its value is multiplied by."""
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}
_CODES = np.array([code for code, _ in _KINDS.values()], np.int32)
_SCALES = np.array([scale for _, scale in _KINDS.values()])


def number_of(kind: Kind) -> int:
    """The number that stands for a kind in `rows`."""
    return _NUMBERS[kind]


def rows(kinds: NDArray[np.intp], values: NDArray[np.float64], fill: Fill) -> NDArray[np.int32]:
    """The table's rows, (..., 8), of kinds by number and their values, of any shape.

    Values are degrees to the left (counter-clockwise), the slope of a shear, shares of the side to the right and down, a threshold, bits,
    factors, and for hues a share of the circle.

    >>> rows(np.array([number_of("posterize"), number_of("brightness")]), np.array([4, 0.5]), 128)
    array([[    8,     4,     0,     0,     0,     0,     0,   128],
           [    9, 32768,     0,     0,     0,     0,     0,   128]], dtype=int32)
    """
    table = np.zeros((*kinds.shape, 8), np.int32)
    table[..., 0] = _CODES[kinds]
    table[..., 7] = level_of(fill)
    number = np.rint(values * _SCALES[kinds]).astype(np.int32)
    across = kinds == _NUMBERS["translate_x"]
    table[..., 1] = np.where(across, 0, number)
    table[..., 2] = np.where(across, number, 0)
    slanted = table[..., 0] == Code.AFFINE
    if slanted.any():
        picked, value = kinds[slanted], number[slanted]
        angle = np.radians(np.where(picked == _NUMBERS["rotate"], values[slanted], 0))
        cos, sin = fixed(np.cos(angle)), fixed(np.sin(angle))
        shear_x, shear_y = picked == _NUMBERS["shear_x"], picked == _NUMBERS["shear_y"]
        table[slanted, 1:5] = np.stack(
            [cos, np.where(shear_x, value, -sin), np.where(shear_y, value, sin), cos], axis=-1
        )
    return table


def fixed(values: NDArray[np.float64]) -> NDArray[np.int32]:
    """Numbers in 1/65536."""
    return np.rint(values * ONE).astype(np.int32)


def level_of(fill: Fill) -> int:
    """The last number of a step."""
    return EDGE if fill == "edge" else fill


def uniforms(count: int, images: int, generator: Generator) -> NDArray[np.float64]:
    """Numbers from 0 to below 1, shape (count, images): as many an image, whatever its size."""
    import torch

    drawn: NDArray[Any] = torch.rand(count, images, generator=generator).numpy()
    return drawn.astype(np.float64)

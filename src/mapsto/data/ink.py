"""What the sets of written and printed characters share: light ink on a dark ground, and one normalisation.

A network trained on one of them takes images of the others as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mapsto.kinds import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["EXTENT", "MEAN", "STD", "ink_preprocessing", "lightened"]

MEAN: Final = 0.1
"""Of the train glyphs, rounded to one place."""
STD: Final = 0.2
"""Of the train glyphs, rounded to one place."""
EXTENT: Final = 0.72
"""The longer side of a character, as a share of the image's side."""


def ink_preprocessing(size: int) -> Preprocessing:
    """Grey, light on dark, square with sides of `size` pixels."""
    return Preprocessing(channels=1, size=(size, size), mean=(MEAN,), std=(STD,), ink="light")


def lightened(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image of shape (C, H, W), inverted where its border is bright, so that ink is light on a dark ground."""
    height, width = image.shape[1:]
    border = image[:, [0, -1], :].sum() + image[:, 1:-1, [0, -1]].sum()
    count = image.shape[0] * (2 * width + 2 * max(height - 2, 0))
    return 255 - image if border > 127.5 * count else image

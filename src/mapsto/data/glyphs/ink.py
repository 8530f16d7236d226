"""What the sets of written and printed characters share: light ink on a dark ground, and one normalisation.

A network trained on one of them takes images of the others as they are.
"""

from __future__ import annotations

from typing import Final

from mapsto.kinds import Preprocessing
from mapsto_runtime.preprocessing.images import lightened

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

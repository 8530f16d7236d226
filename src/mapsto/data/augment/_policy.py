"""The fourteen operations that RandAugment and its like draw from, with strengths as shares of the largest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mapsto.data.augment._steps import Fill, Kind, number_of, rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AUGMIX", "RANDAUGMENT", "WIDE", "Space"]


@dataclass(frozen=True, kw_only=True)
class Space:
    """Kinds of steps, and how far each goes at most."""

    kinds: tuple[Kind, ...]
    degrees: float
    shear: float
    translate: float
    """Share of the side."""
    enhance: float
    """How far the factors of colour, contrast, brightness and sharpness are from 1."""
    bits: int
    """That are taken away."""

    def rows(self, choices: NDArray[np.intp], strengths: NDArray[np.float64], fill: Fill) -> NDArray[np.int32]:
        """Rows of a table, (..., 8), of the kinds at `choices` with strengths from -1 to 1; some kinds have no sign."""
        numbers, base, slope, whole = self._columns
        whole = whole[choices]
        values = base[choices] + slope[choices] * np.where(whole, np.abs(strengths), strengths)
        return rows(numbers[choices], np.where(whole, np.rint(values), values), fill)

    @cached_property
    def _columns(self) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """By choice: the kind's number, its value at strength 0, what strength 1 adds, and whether it is a whole number without a sign."""
        lines: dict[Kind, tuple[float, float]] = {
            "rotate": (0, self.degrees),
            "solarize": (256, -256),
            "posterize": (8, -self.bits),
            "shear_x": (0, self.shear),
            "shear_y": (0, self.shear),
            "translate_x": (0, self.translate),
            "translate_y": (0, self.translate),
            **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), (1, self.enhance)),
        }
        base, slope = (np.array([lines.get(kind, (0, 0))[part] for kind in self.kinds], float) for part in (0, 1))
        whole = np.isin(self.kinds, ("solarize", "posterize"))
        return np.array([number_of(kind) for kind in self.kinds]), base, slope, whole


_ALL: tuple[Kind, ...] = (
    *("identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize"),
    *("contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
)
RANDAUGMENT = Space(kinds=_ALL, degrees=30, shear=0.3, translate=150 / 331, enhance=0.9, bits=4)
"""As in AutoAugment (Cubuk et al., 2019), whose images of 331 pixels move by up to 150."""
WIDE = Space(kinds=_ALL, degrees=135, shear=0.99, translate=32 / 224, enhance=0.99, bits=6)
"""As in TrivialAugment (Müller and Hutter, 2021), whose images of 224 pixels move by up to 32."""
AUGMIX = Space(
    kinds=tuple(kind for kind in _ALL if kind not in ("identity", "color", "contrast", "brightness", "sharpness")),
    degrees=30,
    shear=0.3,
    translate=1 / 3,
    enhance=0,
    bits=4,
)
"""As in AugMix (Hendrycks et al., 2020): nothing that its test of corruptions holds too."""

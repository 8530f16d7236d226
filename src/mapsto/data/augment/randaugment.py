"""Do a few operations of fourteen, drawn anew for each image, all of one strength: two numbers instead of a learnt policy.

N operations are drawn one after the other, alike likely and with repeats, each with the share M / 30 of its largest strength and a sign
of its own (Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space", 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from mapsto.data.augment._pixels import PixelOperation
from mapsto.data.augment._steps import Fill, Steps, uniforms

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["Randaugment"]


class Randaugment(PixelOperation):
    """Images (N, C, H, W), each after operations of its own.

    They are identity, autocontrast, equalize, rotate (up to 30°), solarize, color, posterize (down to 4 bits), contrast, brightness,
    sharpness (factors 0.1 to 1.9), shear_x, shear_y (up to 0.3), translate_x and translate_y (up to 45 % of the side).

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> photo = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8).expand(40, -1, -1, -1)
    >>> changed = Randaugment().draw(Drawn(x=photo, targets=torch.zeros(40)), torch.Generator().manual_seed(0)).x
    >>> len({image.numpy().tobytes() for image in changed}) > 30
    True
    """

    operations: int = Field(default=2, ge=0, le=16)
    """N: how many, one after the other; 2 for CIFAR and ImageNet in the paper, 3 for SVHN."""
    magnitude: float = Field(default=9.0, ge=0, le=30)
    """M: 0 is no change of strength, 30 the largest, as torchvision and kornia count, where the paper has 10; 9 is usual."""
    fill: Fill = 128
    """What is seen beyond the border: a grey level, 0 to 255, or `edge`, the outermost pixels; grey in the paper."""

    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"magnitude": 9.0},)

    def steps(self, shape: tuple[int, ...], generator: Generator) -> Steps:
        from mapsto.data.augment._policy import RANDAUGMENT

        choice, sign = uniforms(2 * self.operations, shape[0], generator).reshape(2, self.operations, shape[0])
        choices = (choice.T * len(RANDAUGMENT.kinds)).astype(np.intp)
        strengths = np.where(sign.T < 0.5, -1, 1) * (self.magnitude / 30)
        return Steps(table=RANDAUGMENT.rows(choices, strengths, self.fill))

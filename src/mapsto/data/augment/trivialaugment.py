"""Do one operation of fourteen to each image, of a strength of its own: nothing to tune at all.

The operation is one of those of `randaugment`, alike likely; its strength is j / 30 of the largest with j from 0 to 30, and with a sign
of its own (Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from mapsto.data.augment._pixels import PixelOperation
from mapsto.data.augment._steps import Fill, Steps, uniforms

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["Trivialaugment"]


class Trivialaugment(PixelOperation):
    """Images (N, C, H, W), each after one operation.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> photo = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8).expand(40, -1, -1, -1)
    >>> changed = Trivialaugment().draw(Drawn(x=photo, targets=torch.zeros(40)), torch.Generator().manual_seed(0)).x
    >>> len({image.numpy().tobytes() for image in changed}) > 20
    True
    """

    space: Literal["wide", "randaugment"] = "wide"
    """How far operations go: `wide`, best in the paper, turns by up to 135°, slants by 0.99, shifts by 32 of 224 pixels, has factors from
    0.01 to 1.99 and leaves 2 bits; `randaugment` goes as far as that does."""
    fill: Fill = 128
    """What is seen beyond the border: a grey level, 0 to 255, or `edge`, the outermost pixels; grey in the paper."""

    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    def steps(self, shape: tuple[int, ...], generator: Generator) -> Steps:
        from mapsto.data.augment._policy import RANDAUGMENT, WIDE

        space = WIDE if self.space == "wide" else RANDAUGMENT
        choice, strength, sign = uniforms(3, shape[0], generator)
        choices = (choice * len(space.kinds)).astype(np.intp)
        strengths = np.where(sign < 0.5, -1, 1) * np.floor(strength * 31) / 30
        return Steps(table=space.rows(choices, strengths, self.fill)[:, None])

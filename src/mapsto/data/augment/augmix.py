"""Blend each image with what several chains of operations make of it: varied, and yet never far from the image.

``x' = (1 − m) x + m Σ_k w_k c_k(x)`` with w from Dirichlet(α, …, α), m from Beta(α, α), and chains c_k of one to `depth` operations that
share nothing with the corruptions networks are tested on (Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve
Robustness and Uncertainty", 2020; without its loss of consistency).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from mapsto.data.augment._pixels import PixelOperation
from mapsto.data.augment._steps import ONE, Code, Fill, Steps, uniforms

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["Augmix"]


class Augmix(PixelOperation):
    """Images (N, C, H, W), each blended with chains of operations.

    They are autocontrast, equalize, posterize, rotate, solarize, shear_x, shear_y, translate_x and translate_y.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> photo = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8).expand(40, -1, -1, -1)
    >>> mixed = Augmix().draw(Drawn(x=photo, targets=torch.zeros(40)), torch.Generator().manual_seed(0)).x
    >>> len({image.numpy().tobytes() for image in mixed}) > 30
    True
    """

    severity: float = Field(default=3.0, ge=0, le=10)
    """Strengths are drawn up to this many tenths of the largest; 3 in the paper. At 0 nothing is turned, slanted or shifted."""
    width: int = Field(default=3, ge=1, le=8)
    """How many chains; 3 in the paper."""
    depth: int = Field(default=3, ge=1, le=8)
    """How many operations a chain has at most, one to this alike likely; 3 in the paper."""
    alpha: float = Field(default=1.0, gt=0, le=100)
    """α of both distributions; 1, as in the paper, has all blends alike likely."""
    fill: Fill = 128
    """What is seen beyond the border: a grey level, 0 to 255, or `edge`, the outermost pixels; black in the paper."""

    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    def steps(self, shape: tuple[int, ...], generator: Generator) -> Steps:
        import torch

        from mapsto.data.augment._policy import AUGMIX

        count, size = shape[0], (self.width, self.depth)
        uniform = uniforms(self.width * (1 + 3 * self.depth), count, generator).T
        lengths = (uniform[:, : self.width, None] * self.depth).astype(np.intp)
        choice, strength, sign = np.moveaxis(uniform[:, self.width :].reshape(count, 3, *size), 1, 0)
        choices = (choice * len(AUGMIX.kinds)).astype(np.intp)
        strengths = np.where(sign < 0.5, -1, 1) * strength * (self.severity / 10)
        table = AUGMIX.rows(choices, strengths, self.fill)
        table[np.arange(self.depth) > lengths, 0] = Code.KEEP
        # torch's distributions take no generator
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        weights = random.dirichlet((self.alpha,) * self.width, count) * random.beta(self.alpha, self.alpha, (count, 1))
        chains = np.floor(weights * ONE).astype(np.int32)
        shares = np.concatenate([ONE - chains.sum(1, keepdims=True), chains], axis=1).astype(np.int32)
        return Steps(table=table, shares=shares)

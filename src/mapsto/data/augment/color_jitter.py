"""Change brightness, contrast, saturation and hue of images, each by draws of its own and in an order of its own.

Brightness, contrast and saturation go by factors from 1 − strength to 1 + strength, as `brightness`, `contrast` and `color`; the hue is
turned by a share of the circle from −hue to hue, while a pixel's brightest and darkest channel keep their values (Howard, "Some
Improvements on Deep Convolutional Neural Network Based Image Classification", 2013; Chen et al., "A Simple Framework for Contrastive
Learning of Visual Representations", 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from mapsto.data.augment._pixels import PixelOperation, signed
from mapsto.data.augment._steps import Steps, number_of, rows, uniforms

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["ColorJitter"]


class ColorJitter(PixelOperation):
    """Images (N, C, H, W) in other light; saturation and hue change where there are three channels, red, green and blue.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> red = torch.tensor([200, 50, 50], dtype=torch.uint8).view(3, 1, 1).expand(4, 3, 1, 1)
    >>> turned = ColorJitter(brightness=0, contrast=0, saturation=0, hue=0.5)
    >>> turned.draw(Drawn(x=red, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x.flatten(1).tolist()
    [[50, 180, 200], [52, 50, 200], [165, 50, 200], [200, 67, 50]]
    """

    probability: float = Field(default=0.8, ge=0, le=1)
    """Of each image to be changed, 0 to 1; 0.8 in Chen et al."""
    brightness: float = Field(default=0.4, ge=0, le=1)
    """Factors from 1 − this to 1 + this; 0.4 in Chen et al. for CIFAR, 0.8 for ImageNet."""
    contrast: float = Field(default=0.4, ge=0, le=1)
    """As `brightness`."""
    saturation: float = Field(default=0.4, ge=0, le=1)
    """As `brightness`."""
    hue: float = Field(default=0.1, ge=0, le=0.5)
    """Turned by up to this share of the circle, each way; 0.1 in Chen et al. for CIFAR, 0.2 for ImageNet."""

    candidates: ClassVar[tuple[dict[str, Any], ...]] = (
        {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05},
        {},
    )

    def steps(self, shape: tuple[int, ...], generator: Generator) -> Steps:
        uniform = uniforms(9, shape[0], generator)
        kinds = np.array([number_of(kind) for kind in ("brightness", "contrast", "color", "hue")])
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        values = np.stack(
            [signed(each, strength) for each, strength in zip(uniform[:4], strengths, strict=True)], axis=1
        )
        values += np.array([1, 1, 1, 0])
        order = uniform[4:8].T.argsort(axis=1, kind="stable")
        chosen = np.where((uniform[8] < self.probability)[:, None], kinds[order], number_of("identity"))
        return Steps(table=rows(chosen, np.take_along_axis(values, order, axis=1), 0))

"""Blot out a rectangle of an image, so that a network learns to go by more than one part.

A box of area s · H · W and ratio of sides r at a random place, s and log r uniform, is filled with random values (Zhong et al., "Random
Erasing Data Augmentation", 2020).
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from mapsto.data.augment import Augmentation, Drawn
from mapsto.errors import SpecError

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Erasing"]

_Share = Annotated[float, Field(gt=0, le=1)]
_Ratio = Annotated[float, Field(gt=0, le=100)]


class Erasing(Augmentation):
    """Images (N, C, H, W), some of them with a box that shows nothing of them.

    >>> import torch
    >>> grey = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(3, -1, -1, -1)
    >>> erasing = Erasing(probability=1, area=(0.25, 0.25), ratio=(1, 1), fill="mean")
    >>> erased = erasing.draw(Drawn(x=grey, targets=torch.zeros(3)), torch.Generator().manual_seed(0)).x
    >>> (erased != grey).flatten(1).sum(1).tolist()
    [16, 16, 16]
    """

    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"probability": 1.0, "area": (0.02, 0.2)},)

    probability: float = Field(default=0.5, ge=0, le=1)
    """Of each image to be blotted, 0 to 1; a half in the paper."""
    area: tuple[_Share, _Share] = (0.02, 0.33)
    """Smallest and largest share of the image that the box covers; 0.02 and 0.4 in the paper, 0.33 in torchvision."""
    ratio: tuple[_Ratio, _Ratio] = (0.3, 3.3)
    """Smallest and largest height by width of the box, in pixels; 0.3 and 1 / 0.3 in the paper."""
    fill: Literal["random", "mean"] = "random"
    """`random`: each pixel anew, from the image's darkest value to its brightest, best in the paper; `mean`: the image's mean colour."""

    def __post_init__(self) -> None:
        for name in ("area", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                problem = f"field '{name}': the smallest, {low}, is above the largest, {high}"
                raise SpecError(problem, where="augment.erasing", details=(((name,), problem),))

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        import torch

        from mapsto.data.augment._boxes import inside

        x = drawn.x
        count, _, height, width = x.shape
        uniform = torch.rand(5, count, generator=generator).to(x.device)
        area = self.area[0] + uniform[0] * (self.area[1] - self.area[0])
        low, high = map(math.log, self.ratio)
        ratio = (low + uniform[1] * (high - low)).exp() * width / height
        extent = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()]).clamp(max=1)
        centre = extent / 2 + uniform[2:4] * (1 - extent)
        chosen = uniform[4] < self.probability
        part, erased = x[chosen], inside(centre[:, chosen], extent[:, chosen], (height, width))
        blotted = x.clone()
        blotted[chosen] = torch.where(erased, self._filling(part, generator), part)
        return dataclasses.replace(drawn, x=blotted)

    def _filling(self, x: Tensor, generator: Generator) -> Tensor:
        """What is seen of each image where it is erased, in its type."""
        import torch

        kind = x.dtype if x.is_floating_point() else torch.float32
        if self.fill == "mean":
            values = x.mean((2, 3), keepdim=True, dtype=kind)
        else:
            low, high = (each.to(kind)[:, None, None, None] for each in x.flatten(1).aminmax(dim=1))
            values = torch.rand(x.shape, generator=generator, dtype=kind).to(x.device).mul_(high - low).add_(low)
        return values if x.is_floating_point() else values.round_().to(x.dtype)

"""ShuffleNetV2: half of the channels pass a unit untouched, and the halves are shuffled between units.

``x ← shuffle([x_left, F(x_right)])`` (Ma, Zhang, Zheng and Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture
Design", 2018).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveInt

from mapsto.context import Context
from mapsto.kinds import Json, Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import ForImages, count, network_of

__all__ = ["ShufflenetV2"]


class ShufflenetV2(ForImages, Mapping[None, Network]):
    """A fresh ShuffleNetV2, by default for colour images of 32 pixels."""

    width: float = 1.0
    """Which of the published widths: 0.5, 1, 1.5 or 2."""
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt] = (4, 8, 4)
    """Units of each stage; (4, 8, 4) in the paper."""
    plan: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] | None = None
    """Even channels of each stage, and those of the last convolution, in place of `width`."""
    small: bool | None = None
    """Whether the stem's reductions of the image are left out; by default for images below 96 pixels."""

    contract: ClassVar[dict[str, Any]] = {"plan": (8, 12, 16, 16), "blocks": (2, 1, 1), "size": 16}

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `DomainError` for a width that is not published, odd channels, or an image that is too small."""
        preprocessing, classes = self.image_input(ctx, usual=Preprocessing(channels=3, size=(32, 32)))
        arguments: dict[str, Json] = {
            "width": self.width,
            "blocks": list(self.blocks),
            "plan": list(self.plan) if self.plan is not None else None,
            "channels": preprocessing.channels,
            "small": min(preprocessing.size) < 96 if self.small is None else self.small,
            "classes": count(classes),
        }
        return network_of("mapsto.nn.networks.shufflenet_v2:shufflenet_v2", arguments, preprocessing, classes=classes)

"""What is done to each image of a training batch, as a field of training mappings; `mapsto.data.augment.operations` does it."""

from __future__ import annotations

from pydantic import Field

from mapsto.kinds import Frozen

__all__ = ["Augmentation"]


class Augmentation(Frozen):
    """Random changes drawn anew for each image; every default leaves images as they are.

    >>> Augmentation(flip=True, crop_padding=4).flip
    True
    >>> Augmentation().is_identity
    True
    """

    flip: bool = False
    """Mirror half of the images left to right. Not for characters."""
    crop_padding: int = Field(default=0, ge=0, le=64)
    """Shift by up to so many pixels each way, the border mirrored; 4 is usual for CIFAR (He et al., 2016)."""
    degrees: float = Field(default=0.0, ge=0.0, le=180.0)
    """Turn by up to so many degrees each way."""
    scale: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Scale by a factor within 1 ± this."""
    shear: float = Field(default=0.0, ge=0.0, le=1.0)
    """Shear by a factor within ± this."""
    translate: float = Field(default=0.0, ge=0.0, le=0.5)
    """Shift by up to this share of the side, each way."""
    noise: float = Field(default=0.0, ge=0.0, le=2.0)
    """Standard deviation of Gaussian noise, in units of the normalised input."""

    @property
    def is_affine(self) -> bool:
        """Whether images are turned, scaled, sheared or shifted."""
        return bool(self.degrees or self.scale or self.shear or self.translate)

    @property
    def is_identity(self) -> bool:
        """Whether images stay as they are."""
        return not (self.flip or self.crop_padding or self.is_affine or self.noise)

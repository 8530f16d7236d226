"""Random changes of training samples: one file an operation, found as ``augment.NAME``; what they share begins with an underscore."""

from mapsto.data.augment._base import Augmentation, Drawn
from mapsto.data.augment._field import Augmentations, refuse_mixing

__all__ = ["Augmentation", "Augmentations", "Drawn", "refuse_mixing"]

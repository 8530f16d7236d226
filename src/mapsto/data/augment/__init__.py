"""Random changes of training samples: one file an operation, found as ``augment.NAME``; what they share begins with an underscore."""

from mapsto.data.augment._auto import AUTO, Auto
from mapsto.data.augment._base import Augmentation, Drawn
from mapsto.data.augment._field import Augmentations, AugmentationsOrAuto, refuse_mixing

__all__ = ["AUTO", "Augmentation", "Augmentations", "AugmentationsOrAuto", "Auto", "Drawn", "refuse_mixing"]

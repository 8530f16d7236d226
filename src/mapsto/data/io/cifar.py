"""The binary records of CIFAR-10 and CIFAR-100.

A record is one label byte for CIFAR-10 or two (coarse, fine) for CIFAR-100, then 3 × 32 × 32 pixels, channel by
channel. Krizhevsky, 2009, "Learning multiple layers of features from tiny images".
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from mapsto.data.checks import require_in_range
from mapsto.data.stratify import share_of_each_class
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Samples

__all__ = ["held_out", "read_names", "read_records"]

_HOLDOUT_SEED: Final = 0
_PIXELS: Final = 3 * 32 * 32


def read_records(
    path: Path, *, label_bytes: int, images: int, classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 3, 32, 32), memory-mapped, and the last label byte of each.

    Raises
    ------
    DataError
        The file has not the size of `images` records, or a label is out of range.
    """
    record = label_bytes + _PIXELS
    size = path.stat().st_size
    if size != record * images:
        raise DataError(
            f"the file is truncated or not CIFAR's: {size} bytes instead of {record * images}",
            where=str(path),
            hint="remove it, and it is downloaded again",
        )
    records = np.memmap(path, np.uint8, mode="c", shape=(images, record)).view(np.ndarray)
    labels = records[:, label_bytes - 1].astype(np.int64)
    require_in_range(labels, classes, where=str(path))
    return records[:, label_bytes:].reshape(images, 3, 32, 32), labels


def read_names(path: Path) -> tuple[str, ...]:
    """The names of the classes, one a line."""
    return tuple(path.read_text(encoding="utf-8").split())


def held_out(samples: Samples, split: Literal["train", "validation", "test"], holdout: int, *, where: str) -> Samples:
    """The part of the training images that a split means: `holdout` of them, stratified, are its validation images.

    Raises
    ------
    SpecError
        Validation images are asked for, but none is held out.
    DomainError
        More are held out than there are.
    """
    if split == "validation" and holdout == 0:
        raise SpecError(
            "the split is validation, but holdout is 0",
            where=f"{where}.holdout",
            hint="set holdout, for example to 5000",
        )
    if holdout >= len(samples):
        raise DomainError(f"holdout must be below {len(samples)}, got {holdout}", where=f"{where}.holdout")
    if split == "test" or holdout == 0:
        return samples
    chosen = share_of_each_class(samples.labels, holdout, _HOLDOUT_SEED)
    return samples.take(np.flatnonzero(chosen if split == "validation" else ~chosen))

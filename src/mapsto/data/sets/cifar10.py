"""CIFAR-10: 60,000 colour photographs of 32 × 32 pixels in ten classes.

Krizhevsky, 2009, "Learning multiple layers of features from tiny images". Read from ``cifar-10-batches-bin`` in the
data folder.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mapsto.kinds import Dataset, Preprocessing, Samples

__all__ = ["Cifar10"]

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Cifar10(Dataset):
    """Photographs: uint8, shape (N, 3, 32, 32).

    Mean and standard deviation are those of the training images, by channel.
    """

    split: Literal["train", "validation", "test"] = "train"
    """50,000 training images less what is held out, the held-out ones, or the 10,000 test images."""
    holdout: int = Field(default=0, ge=0, lt=50_000)
    """How many training images, the same share of each class, are the validation split; 5,000 is usual."""

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of, folder_digest
        from mapsto.data.io.sources import cifar10_files

        return fingerprint_of(self, [folder_digest(cifar10_files(self.split))])

    def open(self) -> Samples:
        import numpy as np

        from mapsto.data.io.cifar import held_out, read_records
        from mapsto.data.io.sources import cifar10_files

        parts = [read_records(path, label_bytes=1, images=10_000, classes=10) for path in cifar10_files(self.split)]
        images, labels = zip(*parts, strict=True)
        samples = Samples(
            inputs=np.concatenate(images),
            labels=np.concatenate(labels),
            classes=_CLASSES,
            preprocessing=Preprocessing(
                channels=3, size=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
            ),
        )
        return held_out(samples, self.split, self.holdout, where="cifar10")

"""CIFAR-100: 60,000 colour photographs of 32 × 32 pixels in a hundred classes.

Krizhevsky, 2009, "Learning multiple layers of features from tiny images". Read from ``cifar-100-binary`` in the data
folder.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mapsto.kinds import Dataset, Preprocessing, Samples

__all__ = ["Cifar100"]


class Cifar100(Dataset):
    """Photographs: uint8, shape (N, 3, 32, 32), with fine labels.

    Mean and standard deviation are those of the training images, by channel.
    """

    split: Literal["train", "validation", "test"] = "train"
    """50,000 training images less what is held out, the held-out ones, or the 10,000 test images."""
    holdout: int = Field(default=0, ge=0, lt=50_000)
    """How many training images, the same share of each class, are the validation split; 5,000 is usual."""

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of, folder_digest
        from mapsto.data.io.sources import cifar100_files

        return fingerprint_of(self, [folder_digest(cifar100_files(self.split))])

    def open(self) -> Samples:
        from mapsto.data.io.cifar import held_out, read_names, read_records
        from mapsto.data.io.sources import cifar100_files

        records, names = cifar100_files(self.split)
        count = 10_000 if self.split == "test" else 50_000
        images, labels = read_records(records, label_bytes=2, images=count, classes=100)
        samples = Samples(
            inputs=images,
            labels=labels,
            classes=read_names(names),
            preprocessing=Preprocessing(
                channels=3, size=(32, 32), mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)
            ),
        )
        return held_out(samples, self.split, self.holdout, where="cifar100")

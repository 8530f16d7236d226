"""CIFAR-FS: few-shot classification on CIFAR-100, its hundred classes split into 64, 16 and 20.

Bertinetto et al., 2019, "Meta-learning with differentiable closed-form solvers". Each class has all of its 600 images,
from both of CIFAR-100's own splits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mapsto.kinds import Dataset, Preprocessing, Samples

__all__ = ["CifarFs"]


class CifarFs(Dataset):
    """Photographs: uint8, shape (N, 3, 32, 32), 600 of each class; no class is in two splits."""

    split: Literal["train", "validation", "test"] = "train"
    """64, 16 or 20 classes."""

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of, folder_digest
        from mapsto.data.io.sources import cifar100_files, cifar_fs_list

        files = [*cifar100_files("train"), *cifar100_files("test"), cifar_fs_list(self.split)]
        return fingerprint_of(self, [folder_digest(files)])

    def open(self) -> Samples:
        import numpy as np

        from mapsto.data.io.cifar import read_names, read_records
        from mapsto.data.io.sources import cifar100_files, cifar_fs_list

        (train, names), (test, _) = cifar100_files("train"), cifar100_files("test")
        known = read_names(names)
        chosen = _class_names(cifar_fs_list(self.split), known)
        number = np.full(len(known), -1)
        number[[known.index(name) for name in chosen]] = np.arange(len(chosen))
        images, labels = [], []
        for path, count in ((train, 50_000), (test, 10_000)):
            pictures, fine = read_records(path, label_bytes=2, images=count, classes=100)
            there = np.flatnonzero(number[fine] >= 0)
            images.append(pictures[there])
            labels.append(number[fine[there]])
        return Samples(
            inputs=np.concatenate(images),
            labels=np.concatenate(labels),
            classes=chosen,
            preprocessing=Preprocessing(
                channels=3, size=(32, 32), mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)
            ),
        )


def _class_names(path: Path, known: tuple[str, ...]) -> tuple[str, ...]:
    """The fine class of each (coarse, fine) pair in a list."""
    import json

    from mapsto.errors import DataError

    try:
        names = tuple(str(fine) for _, fine in json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"not a list of pairs of class names: {error}", where=str(path)) from error
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise DataError(f"CIFAR-100 has no class '{unknown[0]}'", where=str(path))
    return names

"""NumPy arrays: inputs and labels in one ``.npz`` file, or in two ``.npy`` files.

Nothing is unpickled. Bytes of shape (N, H, W), (N, 1 or 3, H, W) or (N, H, W, 1 or 3) are images; anything else is
used as it is.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from mapsto.kinds import Dataset, Preprocessing, Samples

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Arrays"]

_MOST_CLASSES = 10_000
"""Labels may leave gaps up to this many classes; beyond, there must be as many samples."""


class Arrays(Dataset):
    """Inputs (N, ...) and labels.

    Labels are whole numbers or strings (N,) for classes, floats (N,) or (N, K) for other targets.
    """

    file: str
    """The ``.npz`` file, or the ``.npy`` file of the inputs: a path, or a path inside the data folder."""
    labels_file: str | None = None
    """The ``.npy`` file of the labels, where they are not in `file`."""
    inputs: str = "inputs"
    """The inputs' name in the ``.npz`` file."""
    labels: str = "labels"
    """The labels' name in the ``.npz`` file."""
    classes: tuple[str, ...] | None = None
    """Names of the classes or targets in the order of their labels; numbers by default."""
    mean: tuple[float, ...] = (0.5,)
    """Of images, by channel, after division by 255."""
    std: tuple[float, ...] = (0.25,)
    """Of images, by channel, after division by 255."""
    ink: Literal["as_is", "light"] | None = None
    """``light`` inverts an image with a bright border, as a package does for a network of light ink. By default as the network that
    reads has it, without one ``as_is``."""

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of, folder_digest

        return fingerprint_of(self, [folder_digest(self._files())], without=("file", "labels_file"))

    def read_for(self, preprocessing: Preprocessing) -> Arrays:
        light = self.ink is None and preprocessing.kind == "image" and preprocessing.ink == "light"
        return dataclasses.replace(self, ink="light") if light else self

    def open(self) -> Samples:
        import numpy as np

        from mapsto.data.checks import require_finite, require_some
        from mapsto.errors import DataError
        from mapsto_runtime.preprocessing.images import lightened

        files = self._files()
        inputs = _read(files[0], self.inputs)
        raw = _read(files[-1], self.labels)
        if inputs.ndim < 2 or len(inputs) != len(raw):
            raise DataError(
                f"inputs of shape {inputs.shape} and labels of shape {raw.shape} do not fit",
                where=str(files[0]),
                hint="give inputs of shape (N, ...) and N labels",
            )
        if inputs.dtype.kind not in "buif":
            raise DataError(
                f"inputs of type {inputs.dtype} are no numbers", where=str(files[0]), hint="give real numbers"
            )
        require_finite(inputs, where=str(files[0]))
        inputs, is_image = _as_images(inputs)
        if is_image and self.ink == "light":
            inputs = np.stack([lightened(image) for image in inputs])
        labels, classes = self._labels(raw, str(files[-1]))
        samples = Samples(
            inputs=inputs if is_image else _as_numbers(inputs),
            labels=labels,
            classes=classes,
            preprocessing=self._preprocessing(inputs) if is_image else Preprocessing(kind="none"),
        )
        return require_some(samples, where=str(files[0]))

    def _files(self) -> list[Path]:
        from mapsto.data.io.download import locate

        names = [self.file] if self.labels_file is None else [self.file, self.labels_file]
        return [locate(name, what="the file of arrays") for name in names]

    def _preprocessing(self, images: NDArray[Any]) -> Preprocessing:
        channels, height, width = images.shape[1:]
        mean, std = (m * channels if len(m) == 1 else m for m in (self.mean, self.std))
        return Preprocessing(channels=channels, size=(height, width), mean=mean, std=std, ink=self.ink or "as_is")

    def _labels(self, raw: NDArray[Any], where: str) -> tuple[NDArray[Any], tuple[str, ...]]:
        import numpy as np

        from mapsto.data.checks import require_finite, require_in_range
        from mapsto.errors import DataError

        if raw.ndim == 1 and raw.dtype.kind in "US":
            names, numbers = np.unique(raw.astype(str), return_inverse=True)
            return numbers.astype(np.int64), tuple(names.tolist())
        if raw.ndim == 1 and raw.dtype.kind in "iub":
            labels = raw.astype(np.int64)
            count = len(self.classes) if self.classes else max(int(labels.max(initial=0)) + 1, 1)
            if not self.classes and count > max(_MOST_CLASSES, len(labels)):
                raise DataError(
                    f"label {count - 1} is far beyond {len(labels)} samples",
                    where=where,
                    hint="number the classes from 0 without gaps, or give floats for other targets",
                )
            require_in_range(labels, count, where=where)
            return labels, self.classes or tuple(map(str, range(count)))
        if raw.ndim in (1, 2) and raw.dtype.kind in "fiub":
            targets = raw.astype(np.float32).reshape(len(raw), -1)
            require_finite(targets, where=where)
            return targets, self.classes or tuple(map(str, range(targets.shape[1])))
        raise DataError(
            f"labels of shape {raw.shape} and type {raw.dtype} are neither classes nor targets",
            where=where,
            hint="give whole numbers (N,), strings (N,) or floats (N, K)",
        )


def _read(path: Path, key: str) -> NDArray[Any]:
    """A ``.npy`` file, or one array of a ``.npz`` file."""
    import zipfile
    import zlib

    import numpy as np

    from mapsto.errors import DataError, nearest

    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            if key not in loaded:
                raise DataError(f"there is no array '{key}'", where=str(path), hint=nearest(key, loaded.files))
            return loaded[key]
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(
            f"not a whole file of plain arrays: {error}",
            where=str(path),
            hint="write it with numpy.savez, without objects",
        ) from error


def _as_numbers(inputs: NDArray[Any]) -> NDArray[Any]:
    """Integers, which may be token ids, as they are, or as int64 where PyTorch has no such type; else float32."""
    import numpy as np

    if inputs.dtype.kind not in "iu":
        return inputs.astype(np.float32, copy=False)
    return inputs if inputs.dtype.kind == "i" or inputs.dtype == np.uint8 else inputs.astype(np.int64)


def _as_images(inputs: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Bytes as (N, C, H, W) where their shape is one of images."""
    import numpy as np

    if inputs.dtype != np.uint8 or inputs.ndim not in (3, 4):
        return inputs, False
    if inputs.ndim == 3:
        return inputs[:, None], True
    if inputs.shape[1] in (1, 3):
        return inputs, True
    if inputs.shape[3] in (1, 3):
        return np.ascontiguousarray(np.moveaxis(inputs, 3, 1)), True
    return inputs, False

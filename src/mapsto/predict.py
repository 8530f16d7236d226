"""Run a package: this file needs NumPy, Pillow and the package's runtime, and neither torch nor the training half of mapsto.

    predictor = Predictor("runs/demo/package")
    predictor.predict(["seven.png"])[0].label

Preprocessing follows the signature, as in training: channels, ink, size, mean and standard deviation.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from mapsto.errors import DataError, DomainError, MissingExtra, StoreError, TrustError
from mapsto.kinds import Preprocessing, Signature
from mapsto.nn import runtime
from mapsto.nn.runtime import Run
from mapsto.nn.runtimes.onnxruntime import session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["FORMAT", "Adapted", "Prediction", "Predictor", "prepare", "read_input"]

FORMAT = 2
"""The latest version of the package's format that this file reads; 2 knows other runtimes than ONNX Runtime."""

Input: TypeAlias = "str | Path | bytes | NDArray[Any]"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a network says of one sample."""

    source: str
    """The file's name, ``standard input`` or ``<array>``; with ``[i]`` where it holds several samples."""
    label: str
    """The class of the highest score; of labels that stand by themselves those from 0.5 up; the values of a regression."""
    probability: float | None
    """Of the class by softmax, or of the likeliest label by the logistic function, 0 to 1; None for values."""
    scores: dict[str, float]
    """Class → probability, the highest first; for values name → value."""


class Predictor:
    """A package, verified and opened.

    Parameters
    ----------
    package_folder
        Holds ``manifest.json`` and the files it names.
    threads
        Threads of the runtime's pool.

    Raises
    ------
    StoreError
        The manifest or a file is missing or unreadable, or the package is of a later format.
    TrustError
        A file's content is not what the manifest says.
    MissingExtra
        The package's runtime is not installed.
    """

    def __init__(self, package_folder: Path | str, *, threads: int = 1) -> None:
        self.folder = Path(package_folder)
        self.manifest = _verified(self.folder)
        try:
            self.signature = Signature.from_plain(self.manifest["signature"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise StoreError(
                f"its manifest holds no whole signature ({type(error).__name__}: {error})",
                where=str(self.folder / "manifest.json"),
                hint="export the package again",
            ) from error
        self._run = self._opened(threads)

    def _opened(self, threads: int) -> Run:
        name = str(self.manifest.get("runtime", "onnxruntime"))
        if name not in runtime.names():
            raise StoreError(
                f"the package is for the runtime '{name}', which this mapsto does not know",
                where=str(self.folder),
                hint="upgrade with: pip install --upgrade mapsto",
            )
        files = {str(file): self.folder / file for file in self.manifest["files"]}
        engine = runtime.find(name)
        try:
            return engine.load(files, threads=threads, names=[spec.name for spec in self.signature.inputs])
        except MissingExtra:
            raise
        except Exception as error:  # runtimes' errors have no common base class
            raise StoreError(
                f"{engine.TITLE} cannot open it ({error})",
                where=str(self.folder / self.manifest["model"]),
                hint=f"upgrade {name}",
            ) from error

    def predict(self, inputs: Sequence[Input], *, batch_size: int = 64) -> list[Prediction]:
        """The class of each sample. Raises `DataError` naming the input that cannot be read.

        An input is the path of an image, ``.npy``, ``.npz``, CSV or Parquet file, the bytes of one (standard input), or an array.
        """
        classes = self.signature.classes
        if classes is None:
            raise DomainError(
                "this package gives embeddings, not classes",
                where=str(self.folder),
                hint="give it examples first: `mapsto adapt`, or Predictor.adapt(); or call outputs()",
            )
        return self._predictions(inputs, classes, lambda prepared: self.outputs(prepared, batch_size=batch_size))

    def adapt(self, inputs: Sequence[Input], labels: Sequence[str]) -> Adapted:
        """A classifier from a few labelled examples, by the package's own map from examples to a head; no torch is needed.

        Parameters
        ----------
        inputs
            As for `predict`; one that holds several samples gives each its label.
        labels
            The class of each input.

        Raises
        ------
        DataError
            Fewer than two classes, or not one label an input.
        DomainError
            The package holds no such map.
        """
        import numpy as np

        described = self.manifest.get("adaptation") or {}
        if "model" not in described:
            raise DomainError(
                "this package holds no map from examples to a head",
                where=str(self.folder),
                hint="export a learner whose result is a linear layer, or use `mapsto adapt` where mapsto is installed",
            )
        if len(inputs) != len(labels):
            raise DataError(f"{len(inputs)} inputs but {len(labels)} labels", hint="give one label an input")
        classes = tuple(dict.fromkeys(map(str, labels)))
        if len(classes) < 2:
            raise DataError("the examples are of fewer than two classes", hint="give examples of two classes or more")
        parts = [read_input(given, self.signature) for given in inputs]
        numbers = np.repeat([classes.index(str(label)) for label in labels], [len(part) for part in parts])
        features = self.outputs(np.concatenate(parts))
        members = np.eye(len(classes), dtype=np.float32)[numbers]
        weight, bias = session(self.folder / described["model"]).run(
            ["weight", "bias"], {"features": features, "members": members}
        )
        return Adapted(package=self, classes=classes, weight=weight, bias=bias)

    def _predictions(
        self,
        inputs: Sequence[Input],
        classes: tuple[str, ...],
        score: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    ) -> list[Prediction]:
        import numpy as np

        names: list[str] = []
        parts: list[NDArray[np.float32]] = []
        for given in inputs:
            samples = read_input(given, self.signature)
            name = _name(given)
            names += [name] if len(samples) == 1 else [f"{name}[{i}]" for i in range(len(samples))]
            parts.append(samples)
        if not parts:
            return []
        scores = score(np.concatenate(parts))
        if scores.ndim != 2 or scores.shape[1] != len(classes):
            raise StoreError(
                f"its model gives scores of shape {scores.shape[1:]} for {len(classes)} classes",
                where=str(self.folder),
                hint="export the package again",
            )
        if not np.isfinite(scores).all():
            raise DomainError(
                "its model gives NaN or infinity for this input",
                where=str(self.folder),
                hint="look for extreme values in the input, or export the package again",
            )
        says = _SAYS[self.signature.answers]
        return [says(name, row, classes) for name, row in zip(names, scores, strict=True)]

    def outputs(self, inputs: NDArray[np.float32], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Raw outputs (N, ...) for prepared inputs (N, ...)."""
        import numpy as np

        starts = range(0, len(inputs), batch_size)
        try:
            return np.concatenate([self._run(inputs[i : i + batch_size]) for i in starts])
        except Exception as error:  # runtimes' errors have no common base class
            raise StoreError(
                f"its model does not take what its signature says ({str(error).splitlines()[0]})",
                where=str(self.folder),
                hint="export the package again",
            ) from error


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapted:
    """A package's embedding with a head made of examples."""

    package: Predictor
    classes: tuple[str, ...]
    weight: NDArray[np.float32]
    """Shape (classes, D)."""
    bias: NDArray[np.float32]
    """Shape (classes,)."""

    def predict(self, inputs: Sequence[Input], *, batch_size: int = 64) -> list[Prediction]:
        """The class of each sample, as `Predictor.predict` gives it."""

        def score(prepared: NDArray[np.float32]) -> NDArray[np.float32]:
            return self.package.outputs(prepared, batch_size=batch_size) @ self.weight.T + self.bias

        return self.package._predictions(inputs, self.classes, score)


def _prediction(name: str, row: NDArray[np.float32], classes: tuple[str, ...]) -> Prediction:
    import numpy as np

    powers = np.exp(row.astype(np.float64) - row.max())
    probabilities = powers / powers.sum()
    order = np.argsort(-probabilities, kind="stable")
    scores = {classes[i]: float(probabilities[i]) for i in order}
    best = classes[order[0]]
    return Prediction(source=name, label=best, probability=scores[best], scores=scores)


def _labels(name: str, row: NDArray[np.float32], classes: tuple[str, ...]) -> Prediction:
    import numpy as np

    probabilities = 1 / (1 + np.exp(-row.astype(np.float64).clip(-700, 700)))
    scores = {classes[i]: float(probabilities[i]) for i in np.argsort(-probabilities, kind="stable")}
    there = [label for label, score in scores.items() if score >= 0.5]
    return Prediction(source=name, label=", ".join(there) or "none", probability=max(scores.values()), scores=scores)


def _values(name: str, row: NDArray[np.float32], classes: tuple[str, ...]) -> Prediction:
    values = dict(zip(classes, map(float, row), strict=True))
    shown = "  ".join(f"{label} {value:.4g}" for label, value in values.items())
    return Prediction(source=name, label=shown, probability=None, scores=values)


_SAYS = {"classes": _prediction, "labels": _labels, "values": _values}


# ---------------------------------------------------------------------------------------------------------------- package


def _verified(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = int(manifest["format"])
        hashes = {str(name): str(entry["sha256"]) for name, entry in dict(manifest["files"]).items()}
    except FileNotFoundError:
        raise StoreError(
            "there is no manifest.json",
            where=str(folder),
            hint="give the folder that export.onnx wrote, such as runs/demo/package",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"not a package's manifest ({type(error).__name__}: {error})",
            where=str(path),
            hint="export the package again",
        ) from error
    if version > FORMAT:
        raise StoreError(
            f"the package has format {version}, this mapsto reads up to {FORMAT}",
            where=str(folder),
            hint="upgrade with: pip install --upgrade mapsto",
        )
    for name, expected in hashes.items():
        _verify(folder, name, expected)
    if str(manifest.get("model")) not in hashes:
        raise StoreError("the manifest names no model", where=str(path), hint="export the package again")
    return manifest


def _verify(folder: Path, name: str, expected: str) -> None:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or re.search(r"[\\:]", name):
        raise TrustError(
            f"the manifest names '{name}', outside the package", where=str(folder), hint="do not use this package"
        )
    path = folder / relative
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise StoreError(
            f"'{name}' cannot be read ({error.strerror})", where=str(folder), hint="copy or export the package again"
        ) from error
    if digest != expected:
        raise TrustError(
            f"'{name}' is not the file that was exported: its SHA-256 is {digest[:12]}…, the manifest says {expected[:12]}…",
            where=str(folder),
            hint="copy or export the package again",
        )


# ------------------------------------------------------------------------------------------------------------------ inputs


def read_input(source: Input, signature: Signature) -> NDArray[np.float32]:
    """Prepared samples, shape (N, ...), from a path, from the bytes of a file, or from an array.

    Raises `DataError` that names the source and says what is wrong with it.
    """
    import numpy as np

    name = _name(source)
    shape = signature.inputs[0].shape[1:]
    if isinstance(source, np.ndarray):
        samples = source
    else:
        content = source if isinstance(source, bytes) else _content(Path(source))
        if not content:
            raise DataError(
                "it is empty", where=name, hint="give an image, an .npy or .npz array, or a CSV or Parquet table"
            )
        samples = _decoded(content, name, signature.preprocessing)
    if signature.preprocessing.kind == "image":
        images = _images(samples, name)
        return np.stack([prepare(image, signature.preprocessing) for image in images])
    return _rows(samples, shape, name)


def _name(source: Input) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    return "standard input" if isinstance(source, bytes) else "<array>"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError as error:
        raise DataError("is a folder", where=str(path), hint=f"give the files in it, as in {path}/*") from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path), hint="check the path") from error


def _decoded(content: bytes, name: str, preprocessing: Preprocessing) -> NDArray[Any]:
    if content.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        return _array(content, name)
    if preprocessing.kind == "image":
        return _picture(content, name)
    return _parquet(content, name) if content.startswith(b"PAR1") else _table(content, name)


def _array(content: bytes, name: str) -> NDArray[Any]:
    import zipfile
    import zlib

    import numpy as np

    try:
        loaded: Any = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return cast("NDArray[Any]", loaded)
        keys: list[str] = list(loaded.files)
        wanted = [key for key in ("inputs", "images", "x") if key in keys] or keys
        if len(wanted) != 1 and wanted == keys:
            raise DataError(f"holds the arrays {', '.join(keys)}", where=name, hint="name the one to use 'inputs'")
        return loaded[wanted[0]]
    except (ValueError, OSError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"not a plain NumPy array ({error})", where=name, hint="save it with numpy.save") from error


def _picture(content: bytes, name: str) -> NDArray[np.uint8]:
    """An image file as (H, W, C) uint8, upright, transparency on white."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
            image = _plain(ImageOps.exif_transpose(opened))
    except Image.UnidentifiedImageError as error:
        raise DataError(
            "neither an image nor an array that is known",
            where=name,
            hint="give PNG, JPEG, BMP, GIF, TIFF, WebP or .npy",
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"a broken or truncated image ({error})", where=name, hint="save it again") from error
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _plain(image: Image) -> Image:
    """In mode L or RGB."""
    import numpy as np
    from PIL import Image as images

    if image.mode.startswith("I") or image.mode == "F":
        wide = np.asarray(image, dtype=np.float64)
        return images.fromarray((wide / (257.0 if wide.max(initial=0) > 255 else 1.0)).clip(0, 255).astype(np.uint8))
    if image.mode == "1":
        return image.convert("L")
    if "A" in image.mode or "transparency" in image.info:
        clear = image.convert("RGBA")
        ground = images.new("RGBA", clear.size, (255, 255, 255, 255))
        return images.alpha_composite(ground, clear).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _table(content: bytes, name: str) -> NDArray[np.float64]:
    import numpy as np

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("not a text file in UTF-8", where=name, hint="give a CSV table or an .npy array") from error
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    lines = [line for line in csv.reader(io.StringIO(text), delimiter=separator) if any(cell.strip() for cell in line)]
    if lines and not all(_is_number(cell) for cell in lines[0]):
        lines = lines[1:]
    for number, line in enumerate(lines, start=1):
        wrong = [cell for cell in line if not _is_number(cell)]
        if wrong or len(line) != len(lines[0]):
            what = (
                f"'{wrong[0]}' is no number" if wrong else f"{len(line)} cells where the first row has {len(lines[0])}"
            )
            raise DataError(f"row {number}: {what}", where=name, hint="give one sample a row, numbers only")
    if not lines:
        raise DataError("holds no rows of numbers", where=name, hint="give one sample a row")
    return np.array(lines, dtype=np.float64)


def _parquet(content: bytes, name: str) -> NDArray[np.float64]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
        return np.stack([column.cast(pa.float64()).to_numpy() for column in table.columns], 1)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"not a Parquet table of numbers ({error})", where=name, hint="give one sample a row, numbers only"
        ) from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _rows(samples: NDArray[Any], shape: tuple[int | str, ...], name: str) -> NDArray[np.float32]:
    """Samples of the signature's shape; a single one, or rows that hold as many numbers, are reshaped."""
    import numpy as np

    rows = _finite(samples, name)
    fixed = tuple(size for size in shape if isinstance(size, int))
    if len(fixed) == len(shape):
        count = int(np.prod(fixed))
        single = rows.shape in (fixed, (count,))
        if single or (rows.ndim > 1 and int(np.prod(rows.shape[1:])) == count):
            return rows.reshape(-1, *fixed)
    elif rows.ndim == len(shape) + 1:
        return rows
    raise DataError(
        f"has shape {tuple(samples.shape)}, but the network takes samples of shape {shape}",
        where=name,
        hint="give one sample a row with the columns of the training data, without the label",
    )


def _finite(samples: NDArray[Any], name: str) -> NDArray[np.float32]:
    import numpy as np

    if samples.dtype.kind not in "buif":
        raise DataError(f"holds values of type {samples.dtype}", where=name, hint="give numbers")
    values = samples.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError("holds NaN or infinity", where=name, hint="fill in or drop the missing values")
    return values


def _images(samples: NDArray[Any], name: str) -> list[NDArray[np.float32]]:
    """One or more images of shape (C, H, W), values 0 to 1."""
    import numpy as np

    values: NDArray[np.float32] = _finite(samples, name)
    if samples.dtype.kind != "f" or values.max(initial=0) > 1:
        values = np.divide(values, 255, dtype=np.float32)
    if values.size == 0 or values.min() < 0 or values.max() > 1:
        raise DataError(
            "is no image: values must be 0 to 255, or 0 to 1", where=name, hint="scale it, or save it as a PNG"
        )
    if values.ndim == 2:
        return [values[None]]
    if values.ndim == 3:
        if values.shape[2] in (1, 3):
            return [values.transpose(2, 0, 1)]
        return [values] if values.shape[0] in (1, 3) else [image[None] for image in values]
    if values.ndim == 4 and values.shape[1] in (1, 3):
        return list(values)
    if values.ndim == 4 and values.shape[3] in (1, 3):
        return list(values.transpose(0, 3, 1, 2))
    raise DataError(
        f"has shape {samples.shape}",
        where=name,
        hint="an image is (H, W), (H, W, C) or (C, H, W); several are stacked in front",
    )


def prepare(image: NDArray[Any], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """An image (C, H, W), C 1 or 3, values 0 to 1, as the network's input (channels, height, width).

    >>> import numpy as np
    >>> ink = Preprocessing(channels=1, size=(2, 2), ink="light")
    >>> float(prepare(np.ones((3, 8, 8), np.float32), ink).max())  # bright ground becomes dark
    0.0
    """
    import numpy as np

    pixels = image.astype(np.float32)
    if preprocessing.ink == "light" and _has_bright_border(pixels):
        pixels = 1 - pixels
    if pixels.shape[0] != preprocessing.channels:
        grey = (
            np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), pixels, 1)[None] if len(pixels) == 3 else pixels
        )
        pixels = np.repeat(grey, preprocessing.channels, axis=0)
    if pixels.shape[1:] != tuple(preprocessing.size):
        pixels = np.stack([_resized(plane, preprocessing.size) for plane in pixels])
    mean = np.array(preprocessing.mean, np.float32).reshape(-1, 1, 1)
    std = np.array(preprocessing.std, np.float32).reshape(-1, 1, 1)
    return ((pixels - mean) / std).astype(np.float32)


def _has_bright_border(pixels: NDArray[np.float32]) -> bool:
    _, height, width = pixels.shape
    total = pixels[:, [0, -1], :].sum() + pixels[:, 1:-1, [0, -1]].sum()
    return bool(total > 0.5 * len(pixels) * (2 * width + 2 * max(height - 2, 0)))


def _resized(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    import numpy as np
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(plane), mode="F")
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR), dtype=np.float32)

"""From raw samples to a network's input, as its signature says: the same code in training and on a device."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mapsto_runtime.errors import DataError
from mapsto_runtime.preprocessing.arrays import array_of
from mapsto_runtime.preprocessing.image_files import huge_allowed, read_picture
from mapsto_runtime.preprocessing.images import images_of, normalised, prepare
from mapsto_runtime.preprocessing.tables import parquet_of, rows_of, table_of
from mapsto_runtime.shown import shown
from mapsto_runtime.signature import Preprocessing, Signature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Input", "name_of", "prepare", "read_input"]

Input: TypeAlias = "str | Path | bytes | NDArray[Any]"
"""A path, the bytes of a file, or an array."""


_ARRAYS = (b"\x93NUMPY", b"PK\x03\x04")
"""How files of arrays begin."""


def read_input(source: Input, signature: Signature) -> NDArray[np.float32]:
    """Prepared samples, shape (N, ...), from a path, from the bytes of a file, or from an array.

    Raises `DataError` that names the source and says what is wrong with it.
    """
    import numpy as np

    name = name_of(source)
    shape = signature.inputs[0].shape[1:]
    if isinstance(source, np.ndarray):
        samples = source
    else:
        content = source if isinstance(source, bytes) else _content(Path(source))
        if not content:
            raise DataError(
                "it is empty", where=name, hint="give an image, an .npy or .npz array, or a CSV or Parquet table"
            )
        if signature.preprocessing.kind == "image" and not content.startswith(_ARRAYS):
            return _picture(content, name, signature.preprocessing)
        samples = _decoded(content, name)
    if signature.preprocessing.kind == "image":
        images = images_of(samples, name)
        return np.stack([prepare(image, signature.preprocessing) for image in images])
    return rows_of(samples, shape, name)


def name_of(source: Input) -> str:
    """What messages call a source."""
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


def _decoded(content: bytes, name: str) -> NDArray[Any]:
    if content.startswith(_ARRAYS):
        return array_of(content, name)
    return parquet_of(content, name) if content.startswith(b"PAR1") else table_of(content, name)


def _picture(content: bytes, name: str, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """One image file as a batch of one."""
    import numpy as np

    with huge_allowed():
        picture = read_picture(
            content,
            name,
            size=preprocessing.size,
            channels=3 if preprocessing.channels == 3 else 1,
            ink=preprocessing.ink,
        )
    log = logging.getLogger("mapsto_runtime")
    if picture.constant:
        log.warning("%s: every pixel has the same value, so that there is nothing to be seen in it", shown(name))
    if picture.stretched:
        log.warning("%s: its values fit no known range and were stretched to that of 8 bits", shown(name))
    pixels = np.repeat(picture.pixels, preprocessing.channels // len(picture.pixels), axis=0)
    return normalised(pixels.astype(np.float32) / np.float32(255), preprocessing)[None]

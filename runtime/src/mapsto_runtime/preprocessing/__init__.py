"""From raw samples to a network's input, as its signature says: the same code in training and on a device."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mapsto_runtime.errors import DataError
from mapsto_runtime.preprocessing.arrays import array_of, require_ids
from mapsto_runtime.preprocessing.image_files import huge_allowed, read_picture
from mapsto_runtime.preprocessing.images import images_of, middle, normalised, prepare, said_of
from mapsto_runtime.preprocessing.raw_tables import read_raw
from mapsto_runtime.preprocessing.tables import encoded as encoded_rows
from mapsto_runtime.preprocessing.tables import plain_rows, raw_of_array, reshaped
from mapsto_runtime.preprocessing.text_files import texts_in
from mapsto_runtime.preprocessing.texts import Text, encoded
from mapsto_runtime.regular_files import read_file
from mapsto_runtime.shown import short, shown
from mapsto_runtime.signature import Preprocessing, Signature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Input", "Read", "name_of", "prepare", "read", "read_input", "read_inputs"]

Input: TypeAlias = "str | Path | bytes | NDArray[Any]"
"""A path, the bytes of a file, or an array; where a network takes texts a string is one, and a `Path` alone a file."""

_ARRAYS = (b"\x93NUMPY", b"PK\x03\x04")
"""How files of arrays begin."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Read:
    """The samples of one input, prepared, and what is wrong with those that could not be."""

    samples: NDArray[Any]
    """Shape (N, ...), float32; int64 where the network takes integers."""
    numbers: tuple[int, ...]
    """Of each sample, its place in the input, counted from 0."""
    errors: tuple[DataError, ...] = ()
    """Of rows of a table that cannot be used."""
    notes: tuple[str, ...] = ()
    """What was done that the user should know, as where missing values were filled."""
    texts: tuple[Text, ...] = ()
    """Of texts: each sample as it was given; of token ids none."""


def read(source: Input, signature: Signature) -> Read:
    """The samples of a path, of the bytes of a file, or of an array.

    Raises `DataError` that names the source and says what is wrong with the whole of it; a row of a table that cannot be used is
    among the errors of what is returned.
    """
    import numpy as np

    if not isinstance(source, (str, Path, bytes, np.ndarray)):
        raise DataError(
            f"an input is of type {type(source).__name__}",
            where="inputs",
            hint="give strings, paths, the bytes of files, or arrays of NumPy",
        )
    name = name_of(source)
    before = signature.preprocessing
    content: Any = source
    if before.kind == "text":
        return _texts(source, before, name)
    if isinstance(source, (str, Path)):
        content = _content(Path(source))
    if isinstance(content, bytes):
        if not content:
            raise DataError(
                "it is empty", where=name, hint="give an image, an .npy or .npz array, or a CSV or Parquet table"
            )
        if content.startswith(_ARRAYS):
            content = array_of(content, name)
    if before.kind == "image":
        if isinstance(content, bytes):
            samples = _pictures([content], name, before)
        else:
            samples = np.stack([prepare(image, before) for image in images_of(content, name)])
            return Read(samples=samples, numbers=tuple(range(len(samples))), notes=said_of(content, before, name))
    elif before.columns:
        known = before.header or [column.name for column in before.columns]
        raw = (
            read_raw(content, name, known=known)
            if isinstance(content, bytes)
            else raw_of_array(content, len(before.columns), name)
        )
        rows = encoded_rows(raw, before, name)
        if not len(raw):
            raise DataError("holds no rows", where=name, hint="give one sample a row")
        return Read(
            samples=rows.rows,
            numbers=tuple(rows.numbers.tolist()),
            errors=tuple(rows.errors[row] for row in sorted(rows.errors)),
            notes=tuple(f"{name}: {note}" for note in rows.notes) if isinstance(source, (str, Path, bytes)) else (),
        )
    else:
        plain = plain_rows(content, name) if isinstance(content, bytes) else content
        samples = reshaped(plain, signature.inputs[0].shape[1:], name, integers=before.integers)
        require_ids(samples, before.ids, name)
        if not len(samples):
            raise DataError("holds no samples", where=name, hint="give one sample or more")
    return Read(samples=samples, numbers=tuple(range(len(samples))))


def _texts(source: Input, before: Preprocessing, name: str) -> Read:
    """Of a string, which is a text, of a file's texts, or of token ids."""
    import numpy as np

    notes: tuple[str, ...] = ()
    if isinstance(source, str):
        texts: Sequence[Text] = (source if before.texts == 1 else tuple(source.split("\t")),)
    elif isinstance(source, (Path, bytes)):
        content = _content(source) if isinstance(source, Path) else source
        if not content.strip():
            raise DataError(
                "it is empty", where=name, hint="give one text a line, or a .csv, .tsv, .jsonl or .parquet table"
            )
        found = texts_in(content, name, columns=before.header, parts=before.texts)
        texts, notes = found.texts, found.notes
    elif np.issubdtype(source.dtype, np.integer):
        ids = reshaped(source, ("L",) if before.texts == 1 else (before.texts, "L"), name, integers=True)
        require_ids(ids, before.ids, name)
        return Read(samples=ids, numbers=tuple(range(len(ids))))
    else:
        texts = _of_array(source, before, name)
    done = encoded(texts, before, short(name))
    return Read(
        samples=done.ids,
        numbers=done.numbers,
        errors=tuple(done.errors[number] for number in sorted(done.errors)),
        notes=tuple(f"{short(name)}: {note}" for note in (*notes, *done.notes)),
        texts=tuple(texts[number] for number in done.numbers),
    )


def _of_array(source: NDArray[Any], before: Preprocessing, name: str) -> Sequence[Text]:
    if before.texts == 1 and source.ndim <= 1:
        return source.reshape(-1).tolist()
    if before.texts > 1 and source.ndim in (1, 2):
        return [tuple(row) for row in source.reshape(-1, source.shape[-1]).tolist()]
    what = "a text" if before.texts == 1 else f"{before.texts} texts"
    raise DataError(f"has shape {source.shape}, and a sample is {what}", where=name, hint=f"give {what} a row")


def read_input(source: Input, signature: Signature) -> NDArray[Any]:
    """Prepared samples, shape (N, ...), from a path, from the bytes of a file, or from an array.

    Raises `DataError` that names the source and says what is wrong with it, or with the first bad row.
    """
    found = read(source, signature)
    if found.errors:
        raise found.errors[0]
    return found.samples


def read_inputs(contents: Sequence[bytes], signature: Signature) -> NDArray[Any]:
    """As `read_input` of several files one after another; images in less time than one by one."""
    import numpy as np

    before = signature.preprocessing
    if before.kind == "image" and all(content and not content.startswith(_ARRAYS) for content in contents):
        return _pictures(contents, name_of(contents[0]), before)
    return np.concatenate([read_input(content, signature) for content in contents])


def name_of(source: Input) -> str:
    """What messages call a source; of a text itself, its beginning."""
    if isinstance(source, (str, Path)):
        return str(source)
    return "standard input" if isinstance(source, bytes) else "<array>"


def _content(path: Path) -> bytes:
    try:
        return read_file(path, hint="give a file, or - for standard input")
    except IsADirectoryError as error:
        raise DataError("is a folder", where=str(path), hint=f"give the files in it, as in {path}/*") from error
    except (OSError, ValueError) as error:  # the latter for a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot be read ({reason})", where=str(path), hint="check the path") from error


def _pictures(contents: Sequence[bytes], name: str, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Image files as a batch."""
    import numpy as np

    before, channels = preprocessing, 3 if preprocessing.channels == 3 else 1
    with huge_allowed():
        pictures = [
            read_picture(content, name, size=before.scaled_size, channels=channels, ink=before.ink, fit=before.fit)
            for content in contents
        ]
    log = logging.getLogger("mapsto_runtime")
    if any(picture.constant for picture in pictures):
        log.warning("%s: every pixel has the same value, so that there is nothing to be seen in it", shown(name))
    if any(picture.stretched for picture in pictures):
        log.warning("%s: its values fit no known range and were stretched to that of 8 bits", shown(name))
    pixels = np.stack([picture.pixels for picture in pictures])
    pixels = pixels[..., *middle(pixels.shape[2:], before.size)]
    if channels != preprocessing.channels:
        pixels = np.repeat(pixels, preprocessing.channels // channels, axis=1)
    return normalised(pixels.astype(np.float32) / np.float32(255), preprocessing)

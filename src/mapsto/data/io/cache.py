"""Arrays that take long to make, kept in the cache folder with their digest, and memory-mapped."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapsto.atomic import new_file
from mapsto.data.io.download import cache_folder

__all__ = ["cached_array", "mapped"]

_DIGEST = 32


def cached_array(name: str, key: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """The array of that key, made where it is not in the cache yet.

    Parameters
    ----------
    name
        Of the data set: the cache's subfolder.
    key
        A digest of everything that decides the content.
    make
        Makes it.

    Returns
    -------
    ndarray
        Memory-mapped; writing to it changes neither the file nor anyone else's copy.
    """
    path = cache_folder() / name / f"{key}.npy"
    try:
        return mapped(path)
    except (OSError, ValueError, EOFError):
        array = make()
    try:
        _write(array, path)
        return mapped(path)
    except (OSError, ValueError) as error:
        logging.getLogger("mapsto").info("%s is not cached: %s", name, error)
        return array


def mapped(path: Path) -> NDArray[Any]:
    """The array in a file of the cache, memory-mapped copy-on-write (torch warns of arrays it cannot write to).

    Raises `ValueError` where its digest says that it is damaged, or another user wrote it; `OSError` where there is none.
    """
    known = os.stat(path)
    if hasattr(os, "getuid") and known.st_uid != os.getuid():
        raise ValueError("another user's file")
    _check(path, known.st_ino, known.st_size, known.st_mtime_ns)
    return np.load(path, mmap_mode="c", allow_pickle=False).view(np.ndarray)


@lru_cache(maxsize=1024)
def _check(path: Path, *version: int) -> None:
    """Raise `ValueError` where the last bytes are not the digest of those before; a file is read once a process."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - _DIGEST
        while left > 0 and (chunk := file.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
        if digest.digest() != file.read():
            raise ValueError("damaged")


def _write(array: NDArray[Any], path: Path) -> None:
    """The array as ``.npy``, and after it the digest of that: NumPy does not mind what follows."""
    with new_file(path) as temporary, temporary.open("wb+") as file:
        np.save(file, array, allow_pickle=False)
        file.seek(0)
        file.write(hashlib.file_digest(file, "sha256").digest())

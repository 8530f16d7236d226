"""Arrays that take long to make, kept in the cache folder and memory-mapped."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapsto.data.folder import cache_folder

__all__ = ["cached_array", "mapped"]


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
    """The array in a ``.npy`` file, memory-mapped copy-on-write (torch warns of arrays it cannot write to)."""
    return np.load(path, mmap_mode="c", allow_pickle=False).view(np.ndarray)


def _write(array: NDArray[Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, array, allow_pickle=False)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)

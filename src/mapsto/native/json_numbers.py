"""Numbers of a flat JSON array as an array of floats, without an object for each of them."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.native.tabular import plain_library

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["floats", "prepare"]

_Parse = Callable[[bytes, int, int, int], int]


def floats(text: bytes, count: int, dtype: str) -> NDArray[Any] | None:
    """The `count` numbers of a JSON array, ``float32`` or ``float64``; None where it is no such array, or they are not all finite.

    None too where the library cannot be compiled here: the caller has another way.

    >>> floats(b"[1, -2.5e-1]", 2, "float32").tolist()
    [1.0, -0.25]
    >>> floats(b"[1, [2]]", 2, "float32") is None
    True
    """
    if (
        dtype not in ("float32", "float64") or not 0 < count <= len(text) // 2
    ):  # a number and what parts it from the next
        return None
    parse = _parsers().get(dtype)
    if parse is None:
        return None
    made = np.empty(count, dtype)
    return None if parse(text, len(text), made.ctypes.data, count) else made


def prepare() -> None:
    """Compile the library now where it is not yet, and not at the first use."""
    _parsers()


@cache
def _parsers() -> dict[str, _Parse]:
    """By type; empty where there is no library."""
    try:
        # PyDLL keeps the interpreter's lock: a request's numbers take microseconds, and letting it go as long
        opened = ctypes.PyDLL(str(plain_library("json_numbers")))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"mapsto: numbers in JSON are read more slowly: {error}\n")
        return {}
    found: dict[str, _Parse] = {}
    for dtype, name in (("float32", "mapsto_json_floats"), ("float64", "mapsto_json_doubles")):
        call = getattr(opened, name)
        call.argtypes = [ctypes.c_char_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64]
        call.restype = ctypes.c_int
        found[dtype] = call
    return found

"""Arrays and files of arrays, as they are before a network's preprocessing."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

from mapsto_runtime.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["array_of", "finite", "require_ids", "whole"]


def array_of(content: bytes, name: str) -> NDArray[Any]:
    """The array in the bytes of an ``.npy`` or ``.npz`` file."""
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


def finite(samples: NDArray[Any], name: str) -> NDArray[np.float32]:
    """The values as float32. Raises `DataError` for NaN, infinity and what is no number."""
    import numpy as np

    if samples.dtype.kind not in "buif":
        raise DataError(f"holds values of type {samples.dtype}", where=name, hint="give numbers")
    with np.errstate(over="ignore"):
        values = samples.astype(np.float32)
    wrong = samples[~np.isfinite(values)]
    if np.isfinite(wrong).any():
        huge = wrong[np.isfinite(wrong)].flat[0]
        raise DataError(f"holds {huge:.4g}, beyond what float32 can hold", where=name, hint="give it in another unit")
    if wrong.size:
        raise DataError("holds NaN or infinity", where=name, hint="fill in or drop the missing values")
    return values


def whole(samples: NDArray[Any], name: str) -> NDArray[np.int64]:
    """The values as int64, such as token ids. Raises `DataError` for fractions, NaN, infinity and what is no number."""
    import numpy as np

    if samples.dtype.kind not in "buif":
        raise DataError(f"holds values of type {samples.dtype}", where=name, hint="give whole numbers")
    if samples.dtype.kind == "f":
        wrong = samples[~(np.isfinite(samples) & (samples == np.floor(samples)) & (np.abs(samples) < 2**53))]
        if wrong.size:
            raise DataError(
                f"holds {wrong.flat[0]}, but the network takes whole numbers, such as token ids",
                where=name,
                hint="give the ids themselves",
            )
    return samples.astype(np.int64)


def require_ids(samples: NDArray[Any], ids: tuple[int, ...], name: str) -> None:
    """Raises `DataError` that names the first sample (N, ...) with an id that the network does not have; `ids` as in `TensorSpec.ids`.

    A runtime may take -1 for the last row of a table, and answer without a word.

    >>> import numpy as np
    >>> require_ids(np.array([[0, 4], [3, -1]]), (5,), "some.npy")
    Traceback (most recent call last):
    mapsto_runtime.errors.DataError: some.npy: sample 1 holds the id -1, and the network has 5, 0 to 4; give the ids ...
    """
    import numpy as np

    if not ids or not samples.size:
        return
    count = np.array(ids).reshape(-1, *(1,) * (samples.ndim - 2))
    wrong = (count > 0) & ((samples <= -1) | (samples >= count))  # fractions are cut off before they are looked up
    if not wrong.any():
        return
    place = tuple(np.argwhere(wrong)[0].tolist())
    there = int(np.broadcast_to(count, samples.shape[1:])[place[1:]])
    raise DataError(
        f"sample {place[0]} holds the id {samples[place]}, and the network has {there:,}, 0 to {there - 1}",
        where=name,
        hint="give the ids of the tokenizer, or the numbers of the categories, that it was trained with",
    )

"""Arrays in ``.npy`` files: for networks that take numbers as they are, such as embeddings or token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read"]

# ---- below this line: part of the runner


def read(path: Path, signature: dict[str, Any]) -> Any:
    """The samples of an ``.npy`` file, one or several stacked in front, as the network's input."""
    if path.suffix != ".npy":
        raise ValueError("an .npy array is wanted: numpy.save(FILE, samples)")
    spec = signature["inputs"][0]
    x, wanted = np.load(path, allow_pickle=False), spec["shape"][1:]
    x = x[None] if x.ndim == len(wanted) else x
    fits = x.ndim == len(wanted) + 1 and all(
        isinstance(size, str) or size == given for size, given in zip(wanted, x.shape[1:], strict=True)
    )
    whole = "int" not in spec["dtype"] or bool(np.all(x == np.round(x)))
    if not fits or not whole or not np.isfinite(x).all():
        raise ValueError(f"shape {x.shape}: finite {spec['dtype']} samples of shape {wanted} are wanted")
    return x.astype(spec["dtype"])

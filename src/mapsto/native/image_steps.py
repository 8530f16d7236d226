"""The compiled steps of augmentation (``csrc/image_steps.cpp``), for whoever has bytes of images and a table of steps."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mapsto.native.tabular import plain_library

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ImageSteps", "ImageTable"]

_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "change": (_P, _P, _L, _I, _I, _I, _P, _I, _P),
    "blend": (_P, _P, _L, _I, _I, _I, _P, _I, _I, _P, _P),
}


class ImageTable(Protocol):
    """As `mapsto.data.augment._steps.Steps`: whole numbers of 32 bits."""

    @property
    def table(self) -> NDArray[np.int32]: ...

    @property
    def pool(self) -> NDArray[np.int32] | None: ...

    @property
    def shares(self) -> NDArray[np.int32] | None: ...


class ImageSteps:
    """The library, which is looked for once a process, and compiled where no prebuilt one fits."""

    _kept: ImageSteps | None = None

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self.missing: str | None = None
        """Why it cannot be had; None where it is there. The same steps by PyTorch take longer and give the same bytes."""
        try:
            library = ctypes.CDLL(str(plain_library("image_steps", say)))
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            self.missing = str(error)
            return
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, f"mapsto_images_{name}")
            function.restype, function.argtypes = _I, arguments
        self._change, self._blend = library.mapsto_images_change, library.mapsto_images_blend

    def follow(self, images: int, to: int, shape: tuple[int, ...], steps: ImageTable) -> bool:
        """Change images (N, C, H, W) of bytes, one after the other in memory, from one address to another; False where memory is short."""
        table, pool, shares = (
            None if each is None else np.ascontiguousarray(each) for each in (steps.table, steps.pool, steps.shares)
        )
        at_table, at_pool, at_shares = (None if each is None else each.ctypes.data for each in (table, pool, shares))
        if shares is None:
            return bool(self._change(images, to, *shape, at_table, steps.table.shape[1], at_pool))
        return bool(self._blend(images, to, *shape, at_table, *steps.table.shape[1:3], at_pool, at_shares))

    @classmethod
    def kept(cls, say: Callable[[str], None] | None = None) -> ImageSteps:
        """The one of this process; `say` is told where it is compiled."""
        if ImageSteps._kept is None:
            ImageSteps._kept = cls(say)
        return ImageSteps._kept

"""The compiled steps of augmentation (``csrc/image_steps.cpp``), for whoever has bytes of images and a table of steps."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from typing import Any

from mapsto.native.tabular import plain_library

__all__ = ["ImageSteps"]

_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "change": (_P, _P, _L, _I, _I, _I, _P, _I, _P),
    "blend": (_P, _P, _L, _I, _I, _I, _P, _I, _I, _P, _P),
}


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
        self.change, self.blend = library.mapsto_images_change, library.mapsto_images_blend

    @classmethod
    def kept(cls, say: Callable[[str], None] | None = None) -> ImageSteps:
        """The one of this process; `say` is told where it is compiled."""
        if ImageSteps._kept is None:
            ImageSteps._kept = cls(say)
        return ImageSteps._kept

"""Where the libraries of plain C++ lie: prebuilt in a wheel for this processor, or compiled on this machine.

All variants give the same bits on one family of processors: they differ in how much is worked out at once, and never in its order.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

from mapsto.errors import DomainError
from mapsto.native.compilation import library
from mapsto.native.plain import SOURCES, VARIANTS

__all__ = ["PREBUILT", "learner_library", "plain_library", "tabular_library"]

PREBUILT = Path(__file__).parent / "prebuilt"


def plain_library(name: str, say: Callable[[str], None] | None = None) -> Path:
    """The library of this name in `SOURCES`; it is compiled where no prebuilt one fits this processor.

    Raises
    ------
    OSError
        There is no place to keep it.
    RuntimeError, subprocess.SubprocessError
        There is none for this processor, and no compiler, or it fails.
    """
    flags = _flags()
    for march, needed in VARIANTS.get(platform.machine(), ()):
        place = PREBUILT / f"{name}-{march}.so"
        if needed <= flags and place.is_file():
            return place
    return library(SOURCES[name], say, plain=True)


def learner_library(name: str, say: Callable[[str], None] | None = None) -> Path:
    """`plain_library` of an online learner, which cannot do without. Raises `DomainError` where there is none."""
    try:
        return plain_library(name, say)
    except OSError as error:
        raise DomainError(
            f"online.{name.removesuffix('_learner')} is C++, and its compiled form cannot be kept in the cache folder: {error}",
            hint="set MAPSTO_CACHE to a folder that can be written, or install a wheel of mapsto for this platform",
        ) from error
    except (RuntimeError, subprocess.SubprocessError) as error:
        raise DomainError(
            f"online.{name.removesuffix('_learner')} is C++, and no compiled form of it fits this machine "
            f"({platform.machine()}): {error}",
            hint="install a wheel of mapsto for this platform, or a C++ compiler (on Debian: apt install g++)",
        ) from error


def tabular_library(say: Callable[[str], None] | None = None) -> Path:
    """`learner_library` of ``online.tabular``."""
    return learner_library("tabular_learner", say)


def _flags() -> frozenset[str]:
    """Of this processor; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "").split())

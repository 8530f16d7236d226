"""Drift detectors, by name: each takes the numbers of a stream one by one and says where they are no longer as before."""

from __future__ import annotations

from collections.abc import Mapping

from mapsto.errors import SpecError, nearest
from mapsto.nn.online.drift.adwin import Adwin
from mapsto.nn.online.drift.ddm import Ddm
from mapsto.nn.online.drift.detector import Detector
from mapsto.nn.online.drift.kswin import Kswin
from mapsto.nn.online.drift.page_hinkley import PageHinkley

__all__ = ["DETECTORS", "Adwin", "Ddm", "Detector", "Kswin", "PageHinkley", "detector_of"]

DETECTORS: Mapping[str, type[Detector]] = {cls.name: cls for cls in (Adwin, Ddm, Kswin, PageHinkley)}
"""The detectors."""


def detector_of(name: str) -> type[Detector]:
    """The detector of a name. Raises `SpecError` with the nearest known one.

    >>> detector_of("adwin").__name__
    'Adwin'
    """
    if name not in DETECTORS:
        raise SpecError(f"unknown drift detector '{name}'", hint=nearest(name, DETECTORS))
    return DETECTORS[name]

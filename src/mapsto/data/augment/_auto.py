"""``augment: auto``: operations that are yet to be chosen for the user's own examples, by a mapping that can."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mapsto import discovery
from mapsto.data.augment._base import Augmentation, SampleKind
from mapsto.kinds import Frozen
from mapsto.kinds.canonical import dumps, source_digest

__all__ = ["AUTO", "Auto", "candidates"]


class Auto(Frozen):
    """Written ``auto``. Its key holds what there is to choose from: a new operation may be the better choice."""

    def fingerprint(self) -> str:
        """A digest of every operation that can be chosen, with its version and the settings that are tried."""
        known = [(cls, [dict(fields) for fields in cls.candidates]) for cls in _classes()]
        parts = [(discovery.name_of(cls), cls.version, _source(cls), settings) for cls, settings in known]
        return hashlib.sha256(dumps(parts).encode()).hexdigest()


AUTO = Auto()
"""The one value."""


def candidates(kind: SampleKind, *, by_class: bool = True) -> list[Augmentation]:
    """Each operation on such samples, with each of the settings that it wants to be tried with.

    >>> names = [each.name for each in candidates("rows")]
    >>> sorted(set(names))
    ['feature_dropout', 'noise', 'smote', 'swap']
    """
    return [
        cls(**fields)
        for cls in _classes()
        if kind in cls.on and not cls.mixes and (by_class or not cls.by_class)
        for fields in cls.candidates
    ]


def _classes() -> list[type[Augmentation]]:
    found: Sequence[type[Augmentation]] = [discovery.find("augment", name) for name in discovery.entries("augment")]
    return [cls for cls in found if cls.candidates]


def _source(cls: type[Augmentation]) -> str:
    return "" if cls.__module__.startswith("mapsto.") else source_digest(cls)

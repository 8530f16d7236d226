"""Samples that were asked about and whose labels are yet to come: kept by id, at most so many, the oldest given up first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mapsto.nn.online.trained.samples import packed, unpacked

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Asked", "LateSamples"]


class Asked(NamedTuple):
    """A sample that was asked about."""

    sample: NDArray[Any]
    concept: str
    scores: NDArray[np.float64]
    """(classes that were known then,)."""


class LateSamples:
    """At most `most` of them.

    >>> late = LateSamples(1)
    >>> for name in "ab":
    ...     late.keep(name, Asked(np.zeros(2, np.float32), "", np.ones(1)))
    >>> late.take("a") is None, late.take("b").scores.tolist(), late.given_up
    (True, [1.0], 1)
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[str, Asked] = {}
        self.given_up = 0
        """Samples that made room for later ones."""

    def keep(self, name: str, asked: Asked) -> None:
        """Keep a sample; a later one of the same id takes its place."""
        self._kept.pop(name, None)
        self._kept[name] = asked
        self._give_up()

    def take(self, name: str) -> Asked | None:
        """What was kept under an id, which is then no longer kept."""
        return self._kept.pop(name, None)

    def arrays(self, classes: int) -> dict[str, NDArray[Any]]:
        """All samples and scores, in the order in which they came."""
        content, shapes = packed([each.sample for each in self._kept.values()])
        scores = np.zeros((len(self._kept), classes))
        for place, each in enumerate(self._kept.values()):
            scores[place, : len(each.scores)] = each.scores
        return {"late_samples": content, "late_shapes": shapes, "late_scores": scores}

    def values(self) -> dict[str, Any]:
        """What of the state is no array."""
        kept = self._kept
        return {"ids": [*kept], "concepts": [each.concept for each in kept.values()], "given_up": self.given_up}

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        """Go on from another's state. Raises `ValueError` or `LookupError` where its parts do not fit together."""
        samples = unpacked(arrays["late_samples"], arrays["late_shapes"])
        asked = [
            Asked(sample, str(concept), np.array(scores))
            for sample, concept, scores in zip(samples, values["concepts"], arrays["late_scores"], strict=True)
        ]
        self._kept = dict(zip(map(str, values["ids"]), asked, strict=True))
        self.given_up = int(values["given_up"])
        self._give_up()

    def _give_up(self) -> None:
        while len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
            self.given_up += 1

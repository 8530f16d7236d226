"""Among how many items those that users liked were ranked, and what places they would have had by chance.

Among n items one stands at each place with probability 1 / n, so that hit rate@10 by chance is ``min(10, n) / n``, and NDCG@10
``1/n Σ 1 / log₂(1 + r)`` over the places r up to ``min(10, n)``: where a catalogue is small, both are high whoever answers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.recommend.record import CUT, ranked

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Places"]

_GAINS = [0.0, *itertools.accumulate(1.0 / math.log2(1.0 + place) for place in range(1, CUT + 1))]
"""By n, the sum over places up to n."""


class Places:
    """Of all items that were ranked.

    >>> places = Places()
    >>> places.count(1.0, 20)
    >>> places.count(15.0, 20)
    >>> [(who, hits, round(gain, 3)) for who, hits, gain in places.tables()[0]["rows"]]
    [('the answer', 50.0, 0.5), ('by chance', 50.0, 0.227)]
    """

    def __init__(self) -> None:
        self._sums = [0.0] * 6
        """Items, among how many, hits and what they count for NDCG, and both by chance."""

    def count(self, rank: float, among: int) -> None:
        """Take in the place of an item among so many, itself included."""
        hit, gain, _ = ranked(rank)
        first = min(CUT, among)
        more = (1.0, float(among), hit, gain, first / among, _GAINS[first] / among)
        self._sums = [have + each for have, each in zip(self._sums, more, strict=True)]

    def tables(self) -> list[dict[str, Any]]:
        """One of the report, or none where nothing was ranked."""
        items, among, *sums = self._sums
        if not items:
            return []
        hits, gains, hits_by_chance, gains_by_chance = (each / items for each in sums)
        rows = [["the answer", 100.0 * hits, gains], ["by chance", 100.0 * hits_by_chance, gains_by_chance]]
        title = f"Places of liked items: {int(items):,} of them, each among {among / items:.3g} items on average"
        if among <= CUT * items:
            title += ", so that nearly all are hits"
        hit_rate = f"hit rate@{CUT}"
        return [
            {"title": title, "columns": ["who", hit_rate, f"NDCG@{CUT}"], "rows": rows, "units": {hit_rate: "%"}},
        ]

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"places": np.array(self._sums)}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raises `ValueError` where the sums are not six numbers from 0 on."""
        sums = arrays["places"]
        if sums.shape != (len(self._sums),) or not (np.isfinite(sums) & (sums >= 0)).all():
            raise ValueError(f"sums over places are {sums.tolist()}")
        self._sums = sums.tolist()

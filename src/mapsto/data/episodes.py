"""Few-shot episodes drawn from labelled samples: N ways, K shots, Q queries.

Vinyals et al., 2016, "Matching networks for one shot learning".
"""

from __future__ import annotations

import numpy as np

from mapsto.data.checks import require_labelled, require_some
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Episode, Episodes, Samples

__all__ = ["DrawnEpisodes"]


class DrawnEpisodes(Episodes):
    """Episodes whose classes and samples are drawn without replacement, deterministic in (seed, index).

    Parameters
    ----------
    samples
        Labelled samples; classes without one are passed over.
    ways, shots, queries
        Classes of an episode; support samples and query samples of each.
    seed
        0 to 2**63 - 1.

    Raises
    ------
    DataError
        There are fewer classes than ways, or a class has fewer samples than shots + queries.
    """

    def __init__(
        self, samples: Samples, *, ways: int, shots: int, queries: int, seed: int, where: str = "episodes"
    ) -> None:
        labels = require_labelled(require_some(samples, where=where), where=where)
        self.samples = samples
        self.ways, self.shots, self.queries = ways, shots, queries
        self._seed = seed
        self._labels, counts = np.unique(labels, return_counts=True)
        self._pools = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
        if len(self._labels) < ways:
            raise DataError(
                f"{ways}-way episodes need {ways} classes, but the data has {len(self._labels)}",
                where=where,
                hint="lower ways, or give it data with more classes",
            )
        short = np.flatnonzero(counts < shots + queries)
        if len(short):
            more = f" (and {len(short) - 1} more classes)" if len(short) > 1 else ""
            raise DataError(
                f"{shots} shots and {queries} queries need {shots + queries} samples of each class, "
                f"but '{samples.classes[self._labels[short[0]]]}' has {counts[short[0]]}{more}",
                where=where,
                hint="lower shots or queries, or leave that class out",
            )

    def __getitem__(self, index: int) -> Episode:
        if index < 0:
            raise DomainError(f"episodes are numbered from 0, got {index}", where="episodes")
        random = np.random.Generator(np.random.Philox(key=np.array([self._seed, index], np.uint64)))
        chosen = random.choice(len(self._pools), self.ways, replace=False).tolist()
        picked = np.empty((self.ways, self.shots + self.queries), np.int64)
        for way, label in enumerate(chosen):
            pool = self._pools[label]
            picked[way] = pool[random.choice(len(pool), picked.shape[1], replace=False)]
        numbers = np.arange(self.ways)
        return Episode(
            samples=self.samples,
            support_indices=picked[:, : self.shots].ravel(),
            support_labels=np.repeat(numbers, self.shots),
            query_indices=picked[:, self.shots :].ravel(),
            query_labels=np.repeat(numbers, self.queries),
            classes=tuple(self._labels[chosen].tolist()),
        )

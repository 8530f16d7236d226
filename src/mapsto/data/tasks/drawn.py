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
    unlabelled, distractors
        Samples without labels of each class of an episode, and how many other classes give as many.
    seed
        0 to 2**63 - 1.

    Raises
    ------
    DataError
        There are fewer classes than ways and distractors, or a class has fewer samples than an episode takes.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        ways: int,
        shots: int,
        queries: int,
        seed: int,
        unlabelled: int = 0,
        distractors: int = 0,
        where: str = "episodes",
    ) -> None:
        labels = require_labelled(require_some(samples, where=where), where=where)
        self.samples = samples
        self.ways, self.shots, self.queries = ways, shots, queries
        self._seed, self._unlabelled, self._distractors = seed, unlabelled, distractors
        self._labels, counts = np.unique(labels, return_counts=True)
        self._pools = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
        if len(self._labels) < ways + distractors:
            others = f" with {distractors} distractors" if distractors else ""
            raise DataError(
                f"{ways}-way episodes{others} need {ways + distractors} classes, but the data has {len(self._labels)}",
                where=where,
                hint="lower ways, or give it data with more classes",
            )
        each = shots + queries + unlabelled
        short = np.flatnonzero(counts < each)
        if len(short):
            more = f" (and {len(short) - 1} more classes)" if len(short) > 1 else ""
            rest = f" and {unlabelled} unlabelled samples" if unlabelled else ""
            raise DataError(
                f"{shots} shots and {queries} queries{rest} need {each} samples of each class, "
                f"but '{samples.classes[self._labels[short[0]]]}' has {counts[short[0]]}{more}",
                where=where,
                hint="lower shots or queries, or leave that class out",
            )

    def __getitem__(self, index: int) -> Episode:
        if index < 0:
            raise DomainError(f"episodes are numbered from 0, got {index}", where="episodes")
        random = np.random.Generator(np.random.Philox(key=np.array([self._seed, index], np.uint64)))
        drawn = random.choice(len(self._pools), self.ways + self._distractors, replace=False).tolist()
        chosen, others = drawn[: self.ways], drawn[self.ways :]
        labelled = self.shots + self.queries
        picked = np.empty((self.ways, labelled + self._unlabelled), np.int64)
        for way, label in enumerate(chosen):
            pool = self._pools[label]
            picked[way] = pool[random.choice(len(pool), picked.shape[1], replace=False)]
        foreign = [random.choice(self._pools[label], self._unlabelled, replace=False) for label in others]
        numbers = np.arange(self.ways)
        return Episode(
            samples=self.samples,
            support_indices=picked[:, : self.shots].ravel(),
            support_labels=np.repeat(numbers, self.shots),
            query_indices=picked[:, self.shots : labelled].ravel(),
            query_labels=np.repeat(numbers, self.queries),
            classes=tuple(self._labels[chosen].tolist()),
            unlabelled_indices=np.concatenate([picked[:, labelled:].ravel(), *foreign]) if self._unlabelled else None,
        )

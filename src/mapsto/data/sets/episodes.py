"""Few-shot tasks over any labelled data set: each episode has N classes, K support and Q query samples of each.

Classes and samples are drawn uniformly and without replacement, deterministic in (seed, index). Vinyals et al., 2016,
"Matching networks for one shot learning".
"""

from __future__ import annotations

from pydantic import Field

from mapsto.kinds import Episodes, Tasks
from mapsto.mapping import DataSource

__all__ = ["EpisodesOf"]


class EpisodesOf(Tasks):
    """N-way K-shot episodes over a data set.

    >>> from mapsto.data.sets.digits import Digits
    >>> episode = EpisodesOf(data=Digits(), ways=3, shots=1, queries=2).open()[7]
    >>> episode.support.shape, episode.query_labels.tolist()
    ((3, 1, 28, 28), [0, 0, 1, 1, 2, 2])
    """

    data: DataSource
    """What to draw from: one class for each sample."""
    ways: int = Field(default=5, ge=2)
    """Classes of an episode; 5 is usual."""
    shots: int = Field(default=1, ge=1)
    """Support samples of each class."""
    queries: int = Field(default=15, ge=1)
    """Query samples of each class; 15 is usual."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides every episode."""
    unlabelled: int = Field(default=0, ge=0)
    """Samples of each class that are given without labels, for learners that use them (`meta.semi`)."""
    distractors: int = Field(default=0, ge=0)
    """Other classes that give as many unlabelled samples, which belong to none of the episode's."""

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def open(self) -> Episodes:
        from mapsto.data.io.fingerprint import dataset_of
        from mapsto.data.tasks.drawn import DrawnEpisodes

        samples = dataset_of(self.data, where="episodes.data").open()
        return DrawnEpisodes(
            samples,
            ways=self.ways,
            shots=self.shots,
            queries=self.queries,
            seed=self.seed,
            unlabelled=self.unlabelled,
            distractors=self.distractors,
        )

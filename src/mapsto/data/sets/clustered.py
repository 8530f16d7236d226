"""Tasks from samples without labels: clusters of an embedding stand for classes.

Several k-means partitions of a randomly stretched embedding, a task's classes being clusters of one of them (Hsu, Levine and Finn,
"Unsupervised Learning via Meta-Learning", 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.kinds import Episodes, Samples, Tasks
from mapsto.mapping import DataSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Clustered"]


class Clustered(Tasks):
    """Tasks over a data set whose labels are never read.

    `meta.cactus` clusters by the embedding of a network instead.

    >>> from mapsto.data.sets.digits import Digits
    >>> tasks = Clustered(data=Digits(), clusters=10, partitions=2, dimensions=16, ways=3, shots=1, queries=5).open()
    >>> tasks[0].query.shape
    (15, 1, 28, 28)
    """

    data: DataSource
    """What to draw from; any labels will do."""
    ways: int = Field(default=5, ge=2)
    """Clusters of a task."""
    shots: int = Field(default=1, ge=1)
    """Support samples of each."""
    queries: int = Field(default=5, ge=1)
    """Query samples of each; 5 in the paper's training."""
    clusters: int = Field(default=500, ge=2)
    """k of each partition; 500 in the paper. More than there are classes is better than fewer."""
    partitions: int = Field(default=20, ge=1)
    """Clusterings, each of an embedding stretched at random; 50 in the paper, at two and a half times the time."""
    embedding: Literal["pca", "raw"] = "pca"
    """What is clustered: whitened principal components of the samples, or the samples as they are (embeddings)."""
    dimensions: int = Field(default=64, ge=1)
    """How many principal components."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides every partition and every task."""

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def open(self) -> Episodes:
        """Raises `DataError` where there are fewer samples than clusters, or too few clusters are large enough."""
        from mapsto.data.io.fingerprint import dataset_of
        from mapsto.data.tasks.clusters import ClusteredEpisodes, partitions

        samples = dataset_of(self.data, where="clustered.data").open()

        def assign() -> NDArray[np.int32]:
            return partitions(self._embedded(samples), clusters=self.clusters, count=self.partitions, seed=self.seed)

        return ClusteredEpisodes(
            samples, ways=self.ways, shots=self.shots, queries=self.queries, seed=self.seed, assign=assign
        )

    def _embedded(self, samples: Samples) -> NDArray[np.float32]:
        import numpy as np

        from mapsto.data.tasks.clusters import principal_components

        if self.embedding == "pca":
            return principal_components(samples.inputs, self.dimensions)
        return samples.inputs.reshape(len(samples), -1).astype(np.float32)

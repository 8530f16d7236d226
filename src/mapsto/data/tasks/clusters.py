"""Pseudo-classes by clustering embeddings several times, each time stretched differently, and tasks over them.

A partition is a k-means clustering of ``z · s`` with a random scale s of each dimension (Hsu, Levine and Finn, "Unsupervised Learning via
Meta-Learning", 2019, section 2.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.data.io.cache import cached_array
from mapsto.data.tasks.generated import task_generator
from mapsto.errors import DataError
from mapsto.kinds import Episode, Episodes, Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ClusteredEpisodes", "partitions", "principal_components"]


def principal_components(rows: NDArray[Any], dimensions: int) -> NDArray[np.float32]:
    """The first principal components (N, D) of rows (N, ...), each of variance 1 (whitened), at most `dimensions`."""
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    centred = flat - flat.mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(flat))
    kept = np.argsort(-variances, kind="stable")[:dimensions]
    kept = kept[variances[kept] > 1e-9 * max(float(variances.max()), 1e-30)]
    return (centred @ directions[:, kept] / np.sqrt(variances[kept])).astype(np.float32)


def partitions(
    embeddings: NDArray[np.float32], *, clusters: int, count: int, seed: int, scaling: bool = True
) -> NDArray[np.int32]:
    """The cluster of each sample in each partition, shape (count, N), from embeddings (N, D); kept in the cache folder.

    With `scaling` every partition but the first sees dimensions stretched by factors from 0 to 1.

    Raises
    ------
    DataError
        There are fewer samples than clusters.
    """
    if len(embeddings) < clusters:
        raise DataError(
            f"{clusters} clusters need as many samples, there are {len(embeddings)}",
            where="clusters",
            hint="lower clusters, or give it more data",
        )
    whole = np.ascontiguousarray(embeddings, np.float32)
    key = hashlib.sha256(f"{whole.shape} {clusters} {count} {seed} {scaling} ".encode() + whole.tobytes()).hexdigest()

    def make() -> NDArray[np.int32]:
        return np.stack([_partition(whole, clusters, number, seed, scaling) for number in range(count)])

    return cached_array("clusters", key, make)


def _partition(
    embeddings: NDArray[np.float32], clusters: int, number: int, seed: int, scaling: bool
) -> NDArray[np.int32]:
    from sklearn.cluster import MiniBatchKMeans

    make: Any = MiniBatchKMeans
    random = np.random.default_rng([seed, number])
    scales = random.uniform(0, 1, embeddings.shape[1]) if scaling and number else np.ones(embeddings.shape[1])
    fitting = make(
        n_clusters=clusters,
        batch_size=max(1024, 2 * clusters),
        n_init=1,
        max_iter=20,
        random_state=int(random.integers(2**31)),
    )
    found: NDArray[Any] = fitting.fit_predict((embeddings * scales).astype(np.float32))
    return found.astype(np.int32)


class ClusteredEpisodes(Episodes):
    """Tasks whose classes are clusters of a partition drawn at random, deterministic in (seed, index).

    Parameters
    ----------
    samples
        What to draw from; their labels are not read.
    ways, shots, queries
        Of each task. A cluster of fewer than shots + queries samples is passed over.
    seed
        0 to 2**63 - 1.
    assign
        Gives the cluster of each sample in each partition, shape (P, N); called once, when the first task is drawn.

    Raises
    ------
    DataError
        From the first task: no partition has as many clusters of that size as ways.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        ways: int,
        shots: int,
        queries: int,
        seed: int,
        assign: Callable[[], NDArray[np.int32]],
    ) -> None:
        self.samples = samples
        self.ways, self.shots, self.queries = ways, shots, queries
        self._seed, self._assign = seed, assign

    @cached_property
    def _partitions(self) -> list[list[NDArray[np.int64]]]:
        """The samples of each cluster that is large enough, partition by partition."""
        found: list[list[NDArray[np.int64]]] = []
        most = 0
        for assigned in self._assign():
            order = np.argsort(assigned, kind="stable")
            members = np.split(order, np.cumsum(np.bincount(assigned))[:-1])
            large = [part for part in members if len(part) >= self.shots + self.queries]
            most = max(most, len(large))
            if len(large) >= self.ways:
                found.append(large)
        if not found:
            raise DataError(
                f"{self.ways} ways with {self.shots} shots and {self.queries} queries need {self.ways} clusters of "
                f"{self.shots + self.queries} samples, the best partition has {most}",
                where="clusters",
                hint="lower clusters, ways, shots or queries",
            )
        return found

    def __getitem__(self, index: int) -> Episode:
        random = task_generator(self._seed, index)
        partition = self._partitions[int(random.integers(len(self._partitions)))]
        each = self.shots + self.queries
        chosen = random.choice(len(partition), self.ways, replace=False)
        picked = np.stack([random.choice(partition[cluster], each, replace=False) for cluster in chosen.tolist()])
        numbers = np.arange(self.ways)
        return Episode(
            samples=self.samples,
            support_indices=picked[:, : self.shots].ravel(),
            support_labels=np.repeat(numbers, self.shots),
            query_indices=picked[:, self.shots :].ravel(),
            query_labels=np.repeat(numbers, self.queries),
            classes=tuple(chosen.tolist()),
        )

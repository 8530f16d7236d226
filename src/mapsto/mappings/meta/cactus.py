"""Learn to learn from samples without labels: clusters of an embedding stand for classes.

Several k-means partitions of an embedding, ``c_i = argmin_k ‖A_p z_i − μ_k‖²`` with a random diagonal A_p in each; a task's classes are
clusters of one of them; then as MAML or prototypical networks do (Hsu, Levine and Finn, "Unsupervised Learning via Meta-Learning", 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Episodes, Samples
from mapsto.mapping import NetworkSource, TasksSource
from mapsto.mappings.meta._unlabelled import Form, Unlabelled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Cactus"]


class Cactus(Unlabelled):
    """A learner from data whose labels are never read; the tasks alone, without a network, are the data set `clustered`.

    >>> from mapsto import datasets, evaluate, networks
    >>> digits = datasets.digits(size=16)
    >>> network = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> tasks = datasets.episodes(data=digits, ways=5, shots=1, queries=5)
    >>> learner = Cactus(tasks=tasks, by="protonet", clusters=30, partitions=2, steps=60, learning_rate=0.005)(network)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, seed=1), episodes=50, baseline=network)
    >>> bool(new(learner).metrics["drop"].value < 0)
    True
    """

    contract: ClassVar[dict[str, Any]] = {"engine": "loop", "inner_steps": 2, "clusters": 8, "partitions": 2}

    tasks: TasksSource
    """The data and the form of the tasks, as in `episodes`: its labels are not read. Tasks of the kinds `umtra` and `clustered`
    are taken as they are."""
    embedding: NetworkSource | None = None
    """A network whose embedding is clustered: pretrained, or made by learning without labels; None for whitened principal
    components of the samples."""
    dimensions: int = Field(default=64, ge=1)
    """Principal components of the samples, or of the network's embedding where that has more."""
    clusters: int = Field(default=500, ge=2)
    """k of each partition; 500 in the paper. More than there are classes is better than fewer."""
    partitions: int = Field(default=20, ge=1)
    """Clusterings, each of the embedding stretched at random; 50 in the paper, at two and a half times the time."""

    def own_tasks(self, form: Form, ctx: Context) -> Episodes:
        from mapsto.data.tasks.clusters import ClusteredEpisodes, partitions

        def assign() -> NDArray[np.int32]:
            embedded = self._embedded(form.samples, ctx)
            return partitions(embedded, clusters=self.clusters, count=self.partitions, seed=form.seed)

        return ClusteredEpisodes(
            form.samples, ways=form.ways, shots=form.shots, queries=form.queries, seed=form.seed, assign=assign
        )

    def _embedded(self, samples: Samples, ctx: Context) -> NDArray[np.float32]:
        from mapsto.data.tasks.clusters import principal_components
        from mapsto.nn.network.inference import embeddings

        if self.embedding is None:
            return principal_components(samples.inputs, self.dimensions)
        network = ctx.network(self.embedding)
        found = embeddings(network.module(), samples.inputs, network.signature.preprocessing, device=ctx.device).numpy()
        return found if found.shape[1] <= self.dimensions else principal_components(found, self.dimensions)

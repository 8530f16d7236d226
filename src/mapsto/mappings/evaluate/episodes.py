"""How well a network learns new classes from a few examples: mean accuracy over many drawn tasks.

``mean ± 1.96 · s / √n`` over n episodes. Against a baseline the difference is paired, episode by episode, which removes what they
have in common: ``mean(a_i − b_i) ± 1.96 · s(a_i − b_i) / √n`` (Vinyals et al., "Matching Networks for One Shot Learning", 2016).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.kinds import Adaptation, Episode, Metric, Network, Report, Table
from mapsto.mapping import Context, Mapping, NetworkSource, TasksSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.nn.episodes import EpisodeResults

__all__ = ["Episodes"]


class Episodes(Mapping[Network, Report]):
    """Accuracy (%, ± CI95) of a learner over episodes; another network learns by nearest class mean of its embedding."""

    tasks: TasksSource
    """Where the episodes come from; they are numbers 0 to `episodes` - 1 of it."""
    episodes: int = Field(default=600, ge=2)
    """How many; 600 is the field's standard."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """How a network that is no learner compares embeddings; a learner has its own way. ImageNet's do better with `cosine`."""
    baseline: NetworkSource | None = None
    """A network to compare with over the same episodes; ``drop`` is by how much this one is worse."""

    def apply(self, value: Network, ctx: Context) -> Report:
        """Raises `DataError` where the data cannot give such episodes, or holds NaN."""
        from mapsto.data.checks import require_finite

        source = ctx.tasks(self.tasks)
        require_finite(source.samples.inputs, where="evaluate.episodes: tasks")
        episodes = [source[number] for number in range(self.episodes)]
        own = self._results(value, episodes, ctx)
        metrics = {
            "accuracy": _mean(100 * own.accuracies, "%"),
            "loss": _mean(own.losses, ""),
        }
        if self.baseline is not None:
            other = self._results(ctx.network(self.baseline), episodes, ctx)
            metrics["baseline"] = _mean(100 * other.accuracies, "%")
            metrics["drop"] = _mean(100 * (other.accuracies - own.accuracies), "points")
        form = (source.ways, source.shots, source.queries, len(episodes))
        return Report(
            metrics=metrics, tables={"episodes": Table(columns=("ways", "shots", "queries", "n"), rows=(form,))}
        )

    def _results(self, network: Network, episodes: list[Episode], ctx: Context) -> EpisodeResults:
        from mapsto.nn.episodes import episode_results

        adaptation = network.adaptation or Adaptation(method="centroid", settings={"distance": self.distance})
        return episode_results(
            network.module(), network.signature.preprocessing, adaptation, episodes, device=ctx.device
        )


def _mean(values: NDArray[np.float64], unit: str) -> Metric:
    n = len(values)
    return Metric(value=float(values.mean()), unit=unit, ci95=1.959964 * float(values.std(ddof=1)) / math.sqrt(n), n=n)

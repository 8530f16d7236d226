"""How well a network learns new classes from a few examples: mean accuracy over many drawn tasks.

``mean ± 1.96 · s / √n`` over n episodes. Against a baseline the difference is paired, episode by episode, which removes what they
have in common: ``mean(a_i − b_i) ± 1.96 · s(a_i − b_i) / √n`` (Vinyals et al., "Matching Networks for One Shot Learning", 2016).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Adaptation, Episode, Metric, Network, Report, Series, Table, Tasks
from mapsto.mapping import Mapping, NetworkSource, TasksSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.kinds import Episodes as OpenedEpisodes
    from mapsto.nn.meta.evaluation import EpisodeResults

__all__ = ["Episodes"]


class Episodes(Mapping[Network, Report]):
    """Accuracy (%, ± CI95) of a learner over episodes; another network learns by nearest class mean of its embedding.

    For regression tasks the mean squared error, as ``error``, stands in its place.

    Several numbers of ways and shots are evaluated in one run: metrics without a suffix are of the first, the others end in
    ``_20w5s`` and the like, and a series shows accuracy against shots.
    """

    tasks: TasksSource
    """Where the episodes come from; they are numbers 0 to `episodes` - 1 of it."""
    episodes: int = Field(default=600, ge=2)
    """How many; 600 is the field's standard."""
    ways: tuple[Annotated[int, Field(ge=2)], ...] = ()
    """Classes of an episode, each in turn; by default those of `tasks`."""
    shots: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Support samples of a class, each in turn; by default those of `tasks`."""
    batch_norm: Literal["own", "both"] = "own"
    """Which statistics batch norms take: the learner's own way, or once more `transductive` (a query sees the other
    queries) and `inductive` (it does not), as metrics of these names."""
    curve: int = Field(default=0, ge=0)
    """Inner steps up to which a series of accuracies is made, for learners that adapt step by step; 0 for none."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """How a network that is no learner compares embeddings; a learner has its own way. ImageNet's do better with `cosine`."""
    baseline: NetworkSource | None = None
    """A network to compare with over the same episodes; ``drop`` is by how much this one is worse."""

    def apply(self, value: Network, ctx: Context) -> Report:
        """Raises `DataError` where the data cannot give such episodes, or holds NaN; `DomainError` for ways that do not fit."""
        metrics: dict[str, Metric] = {}
        rows: list[tuple[Any, ...]] = []
        curves: dict[int, list[float]] = {}
        series: dict[str, Series] = {}
        for number, source in enumerate(self._sources(ctx)):
            episodes = [source[index] for index in range(self.episodes)]
            of_tasks = self._metrics(value, episodes, ctx)
            suffix = f"_{source.ways}w{source.shots}s" if number else ""
            metrics |= {f"{name}{suffix}": metric for name, metric in of_tasks.items()}
            judged = of_tasks.get("accuracy") or of_tasks["error"]
            rows.append((source.ways, source.shots, source.queries, len(episodes), judged.value, judged.ci95))
            curves.setdefault(source.ways, []).append(judged.value)
            if self.curve and not number:
                series |= self._curve(value, source, episodes, ctx)
        if len(self.shots) > 1:
            ys = {f"{ways}-way": tuple(values) for ways, values in curves.items()}
            series["accuracy by shots"] = Series(x=self.shots, ys=ys, x_name="shots", y_name="accuracy, %")
        columns = ("ways", "shots", "queries", "n", "accuracy" if rows[0][0] else "error", "ci95")
        return Report(metrics=metrics, series=series, tables={"episodes": Table(columns=columns, rows=tuple(rows))})

    def _sources(self, ctx: Context) -> Iterator[OpenedEpisodes]:
        """The tasks with each number of ways and shots that is asked for."""
        from mapsto.data.checks import require_finite

        tasks = ctx.resolve(self.tasks, Tasks)
        for wanted, name in ((self.ways, "ways"), (self.shots, "shots")):
            if wanted and not hasattr(tasks, name):
                raise DomainError(
                    f"these tasks have no field '{name}'", where="evaluate.episodes", hint=f"leave {name} out"
                )
        for ways in self.ways or (None,):
            for shots in self.shots or (None,):
                changes = {"ways": ways} if ways else {}
                changes |= {"shots": shots} if shots else {}
                source = ctx.tasks(dataclasses.replace(cast("Any", tasks), **changes) if changes else tasks)
                require_finite(source.samples.inputs, where="evaluate.episodes: tasks")
                yield source

    def _metrics(self, value: Network, episodes: list[Episode], ctx: Context) -> dict[str, Metric]:
        from mapsto.nn.meta.evaluation import own_statistics

        results = self._results(value, episodes, ctx)
        regression = results.errors is not None
        name, unit = ("error", "MSE") if regression else ("accuracy", "%")
        metrics = {name: _mean(_judged(results), unit)}
        if not regression:
            metrics["loss"] = _mean(results.losses, "")
        if self.batch_norm == "both":
            for statistics in ("transductive", "inductive"):
                same = statistics == own_statistics(self._adaptation(value))
                metrics[statistics] = _mean(
                    _judged(results if same else self._results(value, episodes, ctx, statistics)), unit
                )
        if self.baseline is not None:
            other = _judged(self._results(ctx.network(self.baseline), episodes, ctx))
            worse = _judged(results) - other if regression else other - _judged(results)
            metrics["baseline"] = _mean(other, unit)
            metrics["drop"] = _mean(worse, unit if regression else "points")
        return metrics

    def _results(
        self,
        network: Network,
        episodes: list[Episode],
        ctx: Context,
        statistics: Literal["own", "transductive", "inductive"] = "own",
    ) -> EpisodeResults:
        from mapsto.nn.meta.evaluation import episode_results

        return episode_results(
            network.module(),
            network.signature.preprocessing,
            self._adaptation(network),
            episodes,
            device=ctx.device,
            statistics=statistics,
        )

    def _adaptation(self, network: Network) -> Adaptation:
        return network.adaptation or Adaptation(method="centroid", settings={"distance": self.distance})

    def _curve(
        self, value: Network, source: OpenedEpisodes, episodes: list[Episode], ctx: Context
    ) -> dict[str, Series]:
        """Accuracy (of regression the error) before the first inner step and after each; nothing for a learner without inner steps."""
        from mapsto.nn.meta.evaluation import accuracies_by_step

        adaptation = self._adaptation(value)
        longer = dataclasses.replace(adaptation, settings={**adaptation.settings, "steps": self.curve})
        curve = accuracies_by_step(value.module(), value.signature.preprocessing, longer, episodes, device=ctx.device)
        if curve is None:
            return {}
        name, unit, scale = ("error", "mean squared error", 1) if not source.ways else ("accuracy", "accuracy, %", 100)
        ys = {name: tuple(float(mean) for mean in scale * curve.mean(1))}
        steps = tuple(float(step) for step in range(len(curve)))
        return {f"{name} by inner steps": Series(x=steps, ys=ys, x_name="inner steps", y_name=unit)}


def _judged(results: EpisodeResults) -> NDArray[np.float64]:
    """Accuracies in %, or mean squared errors of regression tasks, shape (episodes,)."""
    return 100 * results.accuracies if results.errors is None else results.errors


def _mean(values: NDArray[np.float64], unit: str) -> Metric:
    n = len(values)
    return Metric(value=float(values.mean()), unit=unit, ci95=1.959964 * float(values.std(ddof=1)) / math.sqrt(n), n=n)

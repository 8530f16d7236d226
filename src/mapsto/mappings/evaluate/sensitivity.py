"""How much accuracy is lost when one layer alone is pruned: which layers can give channels, and which cannot.

``drop(l, r) = accuracy(f) − accuracy(f without the share r of layer l's least important channels)``, with intervals paired over
samples (Li et al., "Pruning Filters for Efficient ConvNets", 2017). `prune.sensitivity` spreads a budget over layers by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as AbcMapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Metric, Network, Report, Samples, Series, Table
from mapsto.mapping import DataSource, Mapping, MappingField, TasksSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.nn.prune.layer_sensitivity import Trial
    from mapsto.nn.prune.structured import Importance

__all__ = ["Sensitivity"]


class Sensitivity(Mapping[Network, Report]):
    """Drop of accuracy (points) of each layer at each ratio: a table of all layers, a plot of the most sensitive ones.

    Raises `SpecError` unless one of `data` and `tasks` is given, `DataError` for data without a class for each sample or with
    NaN, and `DomainError` for a network that cannot be pruned or that the data does not fit.

    >>> from mapsto import datasets, networks, train
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=2, classes="data")(seed=0)
    >>> report = Sensitivity(data=digits, samples=200)(train.supervised(data=digits, epochs=3)(net))
    >>> [(layer, few < many) for layer, _, few, _, many, *_ in report.tables["sensitivity"].rows]
    [('features.0.0', True), ('features.1.0', True)]
    """

    data: DataSource | None = None
    """Labelled samples of a classifier's classes, best those that nothing was trained on; give these or `tasks`."""
    tasks: TasksSource | None = None
    """Episodes, for a learner."""
    criterion: MappingField | None = None
    """The ``prune.*`` criterion that says which channels of a layer go first; its budget does not matter here. By default
    their L2 norm, as `prune.magnitude` has it."""
    ratios: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(0.25, 0.5, 0.75), min_length=1)
    """Shares of a layer's channels that go, each tried on every layer."""
    samples: int = Field(default=1000, ge=2)
    """At most so many of `data`, drawn at random: a drop of less than about 100 / samples points is not seen."""
    episodes: int = Field(default=100, ge=2)
    """How many of `tasks`."""
    curves: int = Field(default=6, ge=1)
    """Layers in the plot, those that lose most."""

    contract: ClassVar[dict[str, Any]] = {"data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 8}}}

    def __post_init__(self) -> None:
        from mapsto.nn.prune.criterion import criterion_of

        if (self.data is None) == (self.tasks is None):
            raise SpecError(
                "give either data or tasks",
                where="evaluate.sensitivity",
                hint="tasks for a learner, data for a classifier",
            )
        if self.criterion is not None:
            criterion_of(self.criterion, where="evaluate.sensitivity")

    def apply(self, value: Network, ctx: Context) -> Report:
        from mapsto.nn.prune.layer_sensitivity import trials
        from mapsto.nn.prune.structured import ranked

        judge = self._judge(value, ctx)
        importance, embedding, padded = self._ranking(value, ctx)
        found = ranked(value, importance, embedding=embedding, padded=padded, where="evaluate.sensitivity", log=ctx.log)
        ratios = sorted(set(self.ratios))
        total = len(found.scores) * len(ratios)
        done = trials(found, ratios, judge, lambda work: ctx.track(work, total=total, what="layers"))
        rows = [done[start : start + len(ratios)] for start in range(0, total, len(ratios))]
        whole = judge(value)
        half = 1.959964 * float(whole.std(ddof=1)) / len(whole) ** 0.5
        worst = max(done, key=lambda trial: trial.drop)
        return Report(
            metrics={
                "accuracy": Metric(value=float(whole.mean()), unit="%", ci95=half, n=len(whole)),
                "worst_drop": Metric(value=worst.drop, unit="points", ci95=worst.ci95, n=len(whole)),
            },
            tables=dict(_tables(rows, {name: len(scores) for name, scores in found.scores.items()})),
            series={"drop by share pruned": _series(rows, self.curves)},
        )

    def _ranking(self, value: Network, ctx: Context) -> tuple[Importance, bool, bool]:
        """How important channels are, and whether the embedding and padded shortcuts may become narrower."""
        from mapsto.nn.prune.criterion import criterion_of
        from mapsto.nn.prune.importance import weight_norms

        if self.criterion is None:
            return lambda module, groups: weight_norms(module, groups, 2), False, False
        criterion = criterion_of(self.criterion, where="evaluate.sensitivity")
        return criterion.importance(value, ctx), criterion.settings.prune_embedding, criterion.settings.padded

    def _judge(self, value: Network, ctx: Context) -> Callable[[Network], NDArray[np.float64]]:
        """A network's accuracy (%) on each sample or episode, shape (N,)."""
        if self.tasks is not None:
            return self._on_tasks(ctx)
        samples = self._samples(value, ctx)

        def right(network: Network) -> NDArray[np.float64]:
            from mapsto.nn.network.inference import forward

            before = network.signature.preprocessing
            outputs = forward(network.module(), samples.inputs, before, device=ctx.device)
            return 100.0 * (outputs.argmax(1).numpy() == samples.labels)

        return right

    def _on_tasks(self, ctx: Context) -> Callable[[Network], NDArray[np.float64]]:
        from mapsto.data.checks import require_finite
        from mapsto.nn.meta.adaptation_methods import CENTROID
        from mapsto.nn.meta.evaluation import episode_results

        source = ctx.tasks(self.tasks)
        require_finite(source.samples.inputs, where="evaluate.sensitivity: tasks")
        chosen = [source[number] for number in range(self.episodes)]

        def accuracies(network: Network) -> NDArray[np.float64]:
            before, adaptation = network.signature.preprocessing, network.adaptation or CENTROID
            results = episode_results(network.module(), before, adaptation, chosen, device=ctx.device)
            if results.errors is not None:
                raise DomainError(
                    "the tasks ask for numbers, which have no accuracy",
                    where="evaluate.sensitivity: tasks",
                    hint="give tasks with classes",
                )
            return 100 * results.accuracies

        return accuracies

    def _samples(self, value: Network, ctx: Context) -> Samples:
        """The samples to judge by. Raises `DataError` or `DomainError` where they do not fit."""
        import numpy as np

        from mapsto.data.checks import require_alike, require_finite, require_labelled, require_some
        from mapsto.nn.network.dense_outputs import refuse_dense

        refuse_dense(value.signature, where="evaluate.sensitivity")
        where = "evaluate.sensitivity: data"
        samples = require_some(ctx.dataset(self.data), where=where)
        if len(samples) < 2:
            raise DataError("there is one sample, at least 2 are needed", where=where, hint="give some hundreds")
        require_labelled(samples, where=where)
        require_finite(samples.inputs, where=where)
        outputs = value.signature.outputs[0].shape[-1]
        if value.adaptation is not None or outputs != len(samples.classes):
            given = "a learner" if value.adaptation is not None else f"a network of {outputs} outputs"
            raise DomainError(
                f"it is {given}, the data has {len(samples.classes)} classes",
                where=where,
                hint="give data of a classifier's classes, or tasks for a learner",
            )
        require_alike(value.signature.classes, samples.classes, where=where)
        return samples.take(np.sort(ctx.random("samples").permutation(len(samples))[: self.samples]))


def _tables(rows: Sequence[Sequence[Trial]], channels: AbcMapping[str, int]) -> Iterator[tuple[str, Table]]:
    """A row a layer, a column a ratio: drops, and the half-widths of their intervals."""
    from mapsto.nn.prune.layer_sensitivity import TABLE

    shares = tuple(f"{100 * trial.ratio:g} %" for trial in rows[0])
    intervals = tuple(f"± at {share}" for share in shares)
    cells = [
        (row[0].layer, channels[row[0].layer], *(round(t.drop, 3) for t in row), *(round(t.ci95, 3) for t in row))
        for row in rows
    ]
    units = dict.fromkeys((*shares, *intervals), "points")
    yield TABLE, Table(columns=("layer", "channels", *shares, *intervals), rows=tuple(cells), units=units)


def _series(rows: Sequence[Sequence[Trial]], most: int) -> Series:
    """The drops of the layers that lose most, in the network's order."""
    kept = sorted(sorted(range(len(rows)), key=lambda i: -max(trial.drop for trial in rows[i]))[:most])
    return Series(
        x=(0.0, *(100 * trial.ratio for trial in rows[0])),
        ys={rows[i][0].layer: (0.0, *(trial.drop for trial in rows[i])) for i in kept},
        x_name="share of the layer's channels that goes, %",
        y_name="drop of accuracy, points",
    )

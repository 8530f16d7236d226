"""How well groups that were found without labels match classes: a network's answers beside labels that it never saw.

Each group stands for one class at most, so that most samples fit (the Hungarian method: Kuhn, 1955), and ``accuracy`` is the share that
do; ``nmi`` is the mutual information of groups and classes by the mean of their entropies (Strehl and Ghosh, "Cluster Ensembles", 2002).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Metric, Network, Report, Table
from mapsto.mapping import DataSource, Mapping

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Clusters"]


class Clusters(Mapping[Network, Report]):
    """Accuracy (%, ± CI95) and NMI of groups as classes, how many there are of both, and which group stands for which class."""

    data: DataSource
    """Labelled samples whose classes the network was never told."""
    batch_size: int = Field(default=256, ge=1)
    """Samples of a forward pass."""

    def apply(self, value: Network, ctx: Context) -> Report:
        """Raises `DomainError` where the network is a learner, `DataError` for NaN, no sample or no classes."""
        from mapsto.data.checks import require_finite, require_labelled, require_some
        from mapsto.mappings.evaluate.accuracy import share
        from mapsto.nn.network.dense_outputs import refuse_dense
        from mapsto.nn.network.inference import forward
        from mapsto.nn.semi.clusters import matched

        where = "evaluate.clusters"
        refuse_dense(value.signature, where=where)
        if value.adaptation is not None:
            raise DomainError("a learner has no groups", where=where, hint="apply semi.discover first")
        samples = require_some(ctx.dataset(self.data), where=where)
        labels = require_labelled(samples, where=where)
        require_finite(samples.inputs, where=f"{where}: data")
        module, how = value.module(), value.signature.preprocessing
        outputs = forward(module, samples.inputs, how, batch_size=self.batch_size, device=ctx.device)
        group = outputs.argmax(1).numpy()
        match = matched(group, labels)
        right = round(match.accuracy * len(samples))
        names = value.signature.classes or tuple(map(str, range(outputs.shape[1])))
        return Report(
            metrics={
                "accuracy": share(right, len(samples)),
                "nmi": Metric(value=match.nmi, n=len(samples)),
                "groups": Metric(value=float(outputs.shape[1])),
                "classes": Metric(value=float(len(set(labels.tolist())))),
            },
            tables={"groups": _table(group, labels, match.classes, names, samples.classes)},
        )


def _table(
    group: NDArray[np.int64],
    labels: NDArray[np.int64],
    stands: tuple[int, ...],
    names: tuple[str, ...],
    classes: tuple[str, ...],
) -> Table:
    """A row for each group that was answered: how many samples, the class that it stands for, and how many of them are of it."""
    rows: list[tuple[str, int, str, int]] = []
    for number, label in enumerate(stands):
        inside = labels[group == number]
        if len(inside):
            rows.append(
                (names[number], len(inside), classes[label] if label >= 0 else "", int((inside == label).sum()))
            )
    return Table(columns=("group", "samples", "stands for", "of that class"), rows=tuple(rows))

"""How well one network does on several domains, such as photographs of day and of night: where what it learnt carries over.

``accuracy_d = right_d / N_d`` on each domain d with Wilson's interval, judged on the classes that network and domain share (Ben-David et
al., "A Theory of Learning from Different Domains", 2010, on why a domain's own figure is needed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Metric, Network, Report, Samples, Table
from mapsto.mapping import DataSource, Mapping, NetworkSource
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Transfer"]

_OWN = "this network"
"""The row of what is evaluated."""


class Transfer(Mapping[Network, Report]):
    """Accuracy (%, both ends of its interval) on each domain as ``accuracy_NAME``, ``worst`` and ``mean`` over domains, and a table.

    Classes are matched by name: samples of a class that the network does not know are counted and not judged. With `networks` there is a
    matrix of networks and domains too, with its picture: which network is good where, before it was adapted and after.
    """

    data: dict[str, DataSource] = Field(min_length=1)
    """Name of the domain → its labelled samples, one class each."""
    networks: dict[str, NetworkSource] = Field(default_factory=dict)
    """Name → another network for the same domains, such as the one before it was adapted, or one for each way or source."""
    batch_size: int = Field(default=256, ge=1)
    """Samples of a forward pass."""

    contract: ClassVar[dict[str, Any]] = {"data": {"same": {"digits": {"size": 16}}}}

    def __post_init__(self) -> None:
        if _OWN in self.networks:
            raise SpecError(
                f"'{_OWN}' is the network itself", where="evaluate.transfer.networks", hint="name it otherwise"
            )

    def apply(self, value: Network, ctx: Context) -> Report:
        """Raises `DomainError` for a network without named classes, `DataError` for a domain without a class that it knows."""
        metrics: dict[str, Metric] = {}
        rows: list[tuple[Any, ...]] = []
        for name, (found, judged, others) in self._figures(value, ctx).items():
            metrics[f"accuracy_{name}"] = found
            rows.append((name, found.value, found.low, found.high, len(judged), len(set(judged)), others))
        values = [metric.value for metric in metrics.values()]
        metrics["worst"] = Metric(value=min(values), unit="%")
        metrics["mean"] = Metric(value=sum(values) / len(values), unit="%")
        columns = ("domain", "accuracy", "low", "high", "samples", "classes", "samples of other classes")
        units: dict[str, str] = dict.fromkeys(columns[1:4], "%")
        tables = {"transfer": Table(columns=columns, rows=tuple(rows), units=units)}
        if self.networks:
            tables |= self._matrix(tuple(values), ctx)
        return Report(metrics=metrics, tables=tables)

    def _matrix(self, own: tuple[float, ...], ctx: Context) -> dict[str, Table]:
        """Accuracies in % of all networks, this one last, and the same as shares, which a page draws as shades."""
        rows: dict[str, tuple[float, ...]] = {}
        for name, source in self.networks.items():
            network = ctx.network(source)
            with ctx.giving(network):
                rows[name] = tuple(found.value for found, _, _ in self._figures(network, ctx, f" {name}").values())
        rows[_OWN] = own
        domains = tuple(self.data)
        return {
            "matrix": Table(
                columns=("network", *domains),
                rows=tuple((name, *row) for name, row in rows.items()),
                units=dict.fromkeys(domains, "%"),
            ),
            "matrix_as_shades": Table(
                columns=("network \\ domain", *domains),
                rows=tuple((name, *(value / 100 for value in row)) for name, row in rows.items()),
            ),
        }

    def _figures(self, value: Network, ctx: Context, which: str = "") -> dict[str, tuple[Metric, list[int], int]]:
        """Of each domain the accuracy, the classes of the samples that were judged, and how many were not."""
        from mapsto.nn.evaluate.classification import share

        classes = value.signature.classes
        if classes is None or value.signature.answers != "classes" or value.adaptation is not None:
            raise DomainError(
                f"the network{which} has no classes by name",
                where=self.name,
                hint="adapt it first (adapt.centroid, adapt.linear)",
            )
        found: dict[str, tuple[Metric, list[int], int]] = {}
        for name, source in self.data.items():
            labels, answers, others = self._answers(name, source, value, classes, ctx)
            found[name] = share(int((answers == labels).sum()), len(labels)), labels.tolist(), others
        return found

    def _answers(
        self, name: str, source: DataSource, value: Network, classes: tuple[str, ...], ctx: Context
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """The numbers of the right class and of the answer of each sample that is judged, and how many are not."""
        import numpy as np

        from mapsto.data.checks import require_finite, require_labelled, require_some
        from mapsto.nn.network.inference import forward

        where = f"{self.name}.data.{name}"
        samples: Samples = require_some(ctx.dataset(source), where=where)
        require_finite(samples.inputs, where=where)
        places = np.array([classes.index(each) if each in classes else -1 for each in samples.classes])
        labels = places[require_labelled(samples, where=where)]
        known = np.flatnonzero(labels >= 0)
        if not len(known):
            named, own = (few([f"'{short(each)}'" for each in given]) for given in (samples.classes, classes))
            raise DataError(f"the network knows none of its classes ({named})", where=where, hint=f"it knows {own}")
        judged = samples.take(known)
        before = value.signature.preprocessing
        outputs = forward(value.module(), judged.inputs, before, batch_size=self.batch_size, device=ctx.device)
        return labels[known], outputs.argmax(1).numpy(), len(samples) - len(known)

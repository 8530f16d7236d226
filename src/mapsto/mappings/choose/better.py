"""Go on with a network only where its embedding is surely better than the original's on labelled examples: pretraining that backs off.

The network is taken where ``Δ > k · se(Δ)`` and no fewer examples are right, else the original; Δ is by how much its log-loss is lower,
each example answered by a ridge regression that was fitted without it (Breiman, Friedman, Olshen and Stone, "Classification and Regression
Trees", 1984, on the rule of one standard error).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network, Table
from mapsto.mapping import DataSource, Mapping, NetworkSource

if TYPE_CHECKING:
    from mapsto.nn.adapt.choice_of_embedding import JudgedEmbedding

__all__ = ["Better"]

_COLUMNS = ("network", "accuracy", "log-loss", "more right", "± of that", "log-loss lower by", "± of it")


class Better(Mapping[Network, Network]):
    """The network, or the original. Heads decide nothing: only what they are given is judged.

    >>> from mapsto import datasets, networks
    >>> few = datasets.subset(data=datasets.digits(size=16), per_class=4)
    >>> blind = networks.conv4(data=few, width=2)(seed=0)
    >>> Better(data=few, original=networks.conv4(data=few, width=2))(blind).signature == blind.signature
    True
    """

    version: ClassVar[int] = 1

    original: NetworkSource
    """What is kept in doubt, as the network before its further pretraining."""
    data: DataSource
    """Labelled examples, one class each, of which some class has two; else the original is kept."""
    errors: float = Field(default=1.0, ge=0)
    """k: by how many standard errors the network has to be better."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` where a network has no embedding, `DataError` where the data have no two classes."""
        from mapsto.data.checks import require_classes
        from mapsto.nn.adapt.choice_of_embedding import choose_embedding
        from mapsto.nn.adapt.features import features

        original = ctx.network(self.original)
        samples = require_classes(ctx.dataset(self.data), where=self.name)
        rows = {"original": features(original, samples.inputs, ctx), "network": features(value, samples.inputs, ctx)}
        best, judged = choose_embedding(rows, samples.labels, len(samples.classes), errors=self.errors)
        if not judged:
            ctx.note("the original is kept: with one example of each class nothing is judged; label one more of each")
            return original
        ctx.attach("original_or_not", _table(judged))
        before, after = judged
        said = (
            f"right on {100 * after.accuracy:.1f} % of left-out examples instead of {100 * before.accuracy:.1f} % "
            f"({100 * after.more_right:+.1f} ± {100 * after.more_right_error:.1f} points), its log-loss changed by "
            f"{-after.gain:+.3f} ± {after.gain_error:.3f}"
        )
        if best == "network":
            ctx.note(f"the network is taken in place of the original: {said}")
            return value
        ctx.note(f"the original is kept, for the network is not surely better: {said}")
        return original


def _table(judged: tuple[JudgedEmbedding, ...]) -> Table:
    rows = tuple(
        (
            each.name,
            round(100 * each.accuracy, 2),
            round(each.log_loss, 4),
            round(100 * each.more_right, 2),
            round(100 * each.more_right_error, 2),
            round(each.gain, 4),
            round(each.gain_error, 4),
        )
        for each in judged
    )
    units = {"accuracy": "%", "log-loss": "nats", "more right": "points", "± of that": "points"}
    return Table(columns=_COLUMNS, rows=rows, units=units)

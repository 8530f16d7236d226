"""Drop the channels that the loss would miss least, by its first-order change if what reads a channel were given zeros.

``I_c = mean over samples (Σ_r Σ_positions a_c · ∂L/∂a_c)²`` over the layers r that read channel c, with a what they are given
(Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019, its gates). The loss is the cross-entropy of a classifier
on `data`, or of a learner's queries on `tasks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as AbcMapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.nn.prune.budget import RANKING, Ranking
from mapsto.nn.prune.criterion import Criterion
from mapsto.nn.prune.data_driven import DataDriven, Loss

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from mapsto.nn.prune.dependency_groups import Group
    from mapsto.nn.prune.structured import Importance

__all__ = ["Taylor"]


class Taylor(DataDriven, Criterion):
    """The network with the channels that matter least to the loss dropped until the budget is met.

    Raises `SpecError` unless exactly one budget and one of `data` and `tasks` are given, `DataError` for data without
    classes or with NaN, and `DomainError` for a network that the data does not fit, that is quantized, or that cannot be made
    as small.

    >>> from mapsto import datasets, evaluate, networks, prune, train
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=2, classes="data")(seed=0)
    >>> big = train.supervised(data=digits, epochs=3)(net)
    >>> accuracy = lambda net: evaluate.accuracy(data=digits)(net).metrics["accuracy"].value
    >>> settings = {"macs": 0.6, "ranking": "per_layer"}
    >>> accuracy(Taylor(data=digits, **settings)(big)) > accuracy(prune.random(**settings)(big)) + 10
    True
    """

    version: ClassVar[int] = 2

    ranking: Ranking = Field(default="measured", description=RANKING)
    normalise: bool = True
    """Importance in units of its layer's mean, as DepGraph does. Without, changes of the loss are compared as they are;
    whole layers were then emptied in our measurements."""

    def importance(self, value: Network, ctx: Context) -> Importance:
        from mapsto.nn.network.inference import compact
        from mapsto.nn.prune.importance import normalised

        def importance(module: nn.Module, groups: Sequence[Group]) -> AbcMapping[str, NDArray[np.float64]]:
            module = compact(module.to(ctx.device))
            losses = ctx.track(self.losses(value, module, ctx), what="gradients")
            return normalised(_changes(module, groups, losses), wanted=self.normalise)

        return importance


def _changes(module: nn.Module, groups: Sequence[Group], losses: Iterable[Loss]) -> dict[str, NDArray[np.float64]]:
    """Group → mean over samples of the squared first-order change of each channel, shape (channels,)."""
    import numpy as np

    from mapsto.nn.prune.channel_gates import Gates, has_readers
    from mapsto.nn.prune.data_driven import gradients
    from mapsto.nn.prune.importance import group_means

    module.requires_grad_(True)
    gates = Gates(module, groups)
    unread = [group for group in groups if not has_readers(module, group)]
    weights = dict(module.named_parameters())
    totals = {group.name: np.zeros(group.channels) for group in groups}
    count = 0
    pending = iter(losses)
    while True:
        with gates.watched():
            loss = next(pending, None)
        if loss is None:
            return {name: total / max(count, 1) for name, total in totals.items()}
        for name, changes in gates.changes(loss.value * loss.samples).items():
            totals[name] += np.square(changes).sum(0)
        if unread:
            products = {name: weights[name] * found for name, found in gradients(loss.value, weights).items()}
            for group in unread:
                totals[group.name] += np.square(group_means(products, group)) * loss.samples
        count += loss.samples

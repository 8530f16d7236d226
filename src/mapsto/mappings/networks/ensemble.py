"""Several classifiers as one network: it answers with the mean of their probabilities, which is righter than most of them alone.

``p(y | x) = 1/K Σ_k softmax(f_k(x))_y`` (Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation
Using Deep Ensembles", 2017; of compressed networks: Diffenderfer et al., "A Winning Hand: Compressing Deep Networks Can Improve
Out-of-Distribution Robustness", 2021).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping, NetworkSource

__all__ = ["Ensemble"]


class Ensemble(Mapping[None, Network]):
    """The members side by side: pruned, quantized or whole, each with its own structure and normalisation.

    It is a network as any other, so that it can be evaluated, distilled from (as one teacher) and exported; it costs what all members cost.
    Raises `DomainError` where members have other classes or inputs.

    >>> from mapsto import datasets, evaluate, networks, quantize, train
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> learn = train.supervised(data=digits, epochs=2, batch_size=50)
    >>> members = [learn(networks.conv4(data=digits, width=4, blocks=1, classes="data")(seed=seed)) for seed in (0, 1, 2)]
    >>> small = [quantize.static(data=digits, samples=64)(member) for member in members]
    >>> losses = [evaluate.accuracy(data=digits, pictures=0)(each).metrics["loss"].value for each in (Ensemble(members=small)(), *small)]
    >>> losses[0] < sum(losses[1:]) / 3
    True
    """

    members: tuple[NetworkSource, ...] = Field(min_length=1)
    """The networks: classifiers of the same classes that take inputs of the same size. A recipe's steps by ``$label``."""

    contract: ClassVar[dict[str, Any]] = {
        "members": [
            {"networks.conv4": {"channels": 1, "size": 16, "width": 4, "classes": 10}},
            {"networks.conv4": {"channels": 1, "size": 16, "width": 2, "blocks": 2, "classes": 10}},
        ]
    }

    def apply(self, value: None, ctx: Context) -> Network:
        from mapsto.nn.network.ensemble import ensemble_of

        return ensemble_of([ctx.network(member) for member in self.members], where=f"{self.name}: members")

"""Go on with all branches of a fork as one network, which answers with the mean of their probabilities.

``p(y | x) = 1/K Σ_k softmax(f_k(x))_y`` over the branches (Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive
Uncertainty Estimation Using Deep Ensembles", 2017).
"""

from __future__ import annotations

from typing import Any

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Forked, Network
from mapsto.mapping import Branches, Mapping, accepts, kind_name

__all__ = ["Ensemble"]


class Ensemble(Mapping[Forked, Network]):
    """The branches' networks as one, those of inner forks too; what `networks.ensemble` gives of steps by their labels.

    Raises `DomainError` where a branch gives no network, or one of other classes or inputs.
    """

    def misfit(self, given: Any) -> str | None:
        if not isinstance(given, Branches):
            return super().misfit(given)
        others = {label: kind for label, kind in given.flat().items() if not accepts(Network, kind)}
        return next(
            (f"takes networks: branch '{label}' gives {kind_name(kind)}" for label, kind in others.items()), None
        )

    def apply(self, value: Forked, ctx: Context) -> Network:
        from mapsto.nn.network.ensemble import ensemble_of

        members = value.flat()
        for label, member in members.items():
            if not isinstance(member, Network):
                raise DomainError(
                    f"branch '{label}' gives a {type(member).__name__}, not a Network",
                    where=self.name,
                    hint="let every branch end in a network",
                )
        return ensemble_of(list(members.values()), where=f"{self.name}: branches")

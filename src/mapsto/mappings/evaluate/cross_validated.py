"""How often a recipe's networks are right on examples that they were not made with: its accuracy by k-fold cross-validation.

``accuracy = Σ_i right(f_i, fold i) / N`` with f_i made without fold i and each of N examples judged once; the network that is reported
on is made with all of them (Stone, "Cross-Validatory Choice and Assessment of Statistical Predictions", 1974). With five examples of a
class none can be spared for a validation set, yet nothing may be judged by what it was made with.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError, SpecError, nearest
from mapsto.kinds import Metric, Network, Report, Table
from mapsto.mapping import DataSource, Mapping, NetworkSource

__all__ = ["CrossValidated"]

_SMALL: dict[str, Any] = {"networks.conv4": {"channels": 1, "size": 16, "width": 4, "classes": 10}}


class CrossValidated(Mapping[Network, Report]):
    """Accuracy (%, both ends of its interval) of the candidate that the network is, over all examples; a table of all candidates.

    What the candidates' first network had learnt before is not made anew: if it was trained on these examples, the figure is too good.
    Raises `SpecError` unless there is a network for each fold of each candidate, `DomainError` for a network that is no candidate.
    """

    data: DataSource
    """The examples, one class each, which ``fold`` deals out."""
    folds: int = Field(default=5, ge=2)
    """Into how many folds."""
    candidates: dict[str, NetworkSource] = Field(min_length=1)
    """Name → a network made with all examples."""
    without: tuple[NetworkSource, ...] = Field(min_length=2)
    """Of the first candidate the networks made without fold 0, without fold 1, …, then those of the second, …"""

    of: str | None = None
    """Which candidate the network is; by default the one that holds the same."""

    contract: ClassVar[dict[str, Any]] = {
        "folds": 2,
        "candidates": {"a": _SMALL},
        "without": [_SMALL, _SMALL],
        "of": "a",
    }

    def __post_init__(self) -> None:
        wanted = self.folds * len(self.candidates)
        if len(self.without) != wanted:
            raise SpecError(
                f"{len(self.without)} networks for {self.folds} folds of {len(self.candidates)} candidates",
                where="evaluate.cross_validated",
                hint=f"give {wanted}",
            )
        if self.of is not None and self.of not in self.candidates:
            raise SpecError(
                f"there is no candidate '{self.of}'",
                where="evaluate.cross_validated.of",
                hint=nearest(self.of, self.candidates),
            )

    def apply(self, value: Network, ctx: Context) -> Report:
        networks = {name: self._made(source, ctx) for name, source in self.candidates.items()}
        holding = (name for name, network in networks.items() if isinstance(network, Network) and _same(network, value))
        own = self.of or next(holding, None)
        if own is None:
            raise DomainError(
                "the network is none of the candidates",
                where=self.name,
                hint=f"give one of {', '.join(self.candidates)}",
            )
        found: dict[str, Metric] = {}
        for place, name in enumerate(self.candidates):
            made = self._folds(place, ctx)
            if isinstance(made, DomainError):
                if name == own:
                    raise made
                continue  # whoever chooses asks for it too, and hears why
            found[name] = self._accuracy(made, ctx)
        columns = ("candidate", "accuracy", "low", "high")
        rows = tuple((name, each.value, each.low or 0.0, each.high or 0.0) for name, each in found.items())
        return Report(
            metrics={"accuracy": found[own], "folds": Metric(value=self.folds)},
            tables={"candidates": Table(columns=columns, rows=rows, units=dict.fromkeys(columns[1:], "%"))},
        )

    def _made(self, source: Any, ctx: Context) -> Network | DomainError:
        """A network, or why its branch was left out."""
        try:
            return ctx.network(source)
        except DomainError as error:
            return error

    def _folds(self, place: int, ctx: Context) -> list[Network] | DomainError:
        """The networks of a candidate, one made without each fold; or why one of them could not be made."""
        found: list[Network] = []
        for source in self.without[place * self.folds :][: self.folds]:
            network = self._made(source, ctx)
            if isinstance(network, DomainError):
                return network
            found.append(network)
        return found

    def _accuracy(self, networks: list[Network], ctx: Context) -> Metric:
        """Of one candidate, all folds together."""
        from mapsto import discovery
        from mapsto.kinds import Dataset
        from mapsto.mappings.evaluate.accuracy import Accuracy
        from mapsto.nn.evaluate.classification import counted, share

        fold: Any = discovery.find("data", "fold")
        data = ctx.resolve(self.data, Dataset)
        shares: list[Metric] = []
        for number, network in enumerate(networks):
            judge = Accuracy(data=fold(data=data, folds=self.folds, number=number, part="judge"), pictures=0)
            shares.append(ctx.report(judge, network).metrics["accuracy"])
        return share(*counted(shares))


def _same(one: Network, other: Network) -> bool:
    """Whether two networks hold the same."""
    import torch

    if one is other:
        return True
    shapes = (one.arch, one.edits, one.tensors.keys()) == (other.arch, other.edits, other.tensors.keys())
    return shapes and all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())

"""Prune in rounds, and train after each: the network recovers before more goes.

After round k of n the share ``s_k = 1 − (1 − s)(1 − (1 − k/n)³)`` of the cost is left: much goes at first, little at the end (`cubic`;
Zhu and Gupta, "To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model Compression", 2017, there of single weights).
`linear` takes the same amount each time, ``s_k = 1 − (1 − s) k/n``, `geometric` the same share of what is left, ``s_k = s^(k/n)`` (Han
et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015, prune so by hand).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import MappingField
from mapsto.nn.prune.criterion import criterion_of, training_of
from mapsto.process import Items, Process, State

if TYPE_CHECKING:
    from mapsto.nn.prune.iterative import Gradual as Rounds

__all__ = ["Gradual"]


class Gradual(Process[Network, Network]):
    """The network pruned to `criterion`'s budget in rounds, and trained by `train` after each.

    Raises `SpecError` for a `criterion` that ranks no channels or has a budget in milliseconds, or a `train` that is no process
    from Network to Network; `DomainError`, before anything is trained, for a budget out of reach.

    >>> from mapsto import datasets, evaluate, networks, prune, train
    >>> digits = datasets.digits(size=16)
    >>> big = networks.conv4(data=digits, width=8, blocks=2, classes="data")(seed=0)
    >>> criterion, training = prune.magnitude(macs=0.4, ranking="global"), train.supervised(data=digits, epochs=2)
    >>> small = Gradual(criterion=criterion, train=training, rounds=3)(big)
    >>> len(small.edits), evaluate.size(baseline=big)(small).metrics["macs_ratio"].value > 2.5
    (3, True)
    >>> evaluate.accuracy(data=digits)(small).metrics["accuracy"].value > 80
    True
    """

    criterion: MappingField
    """A ``prune.*`` criterion: what goes, and the budget after the last round, a share of the network that is given."""
    train: MappingField
    """What follows each pruning, such as ``train.supervised`` or ``distill.logits``, its rate beginning anew in every round."""
    rounds: int = Field(default=5, ge=1)
    """n, prunings; 1 is pruning at once, and training after it, which with as many epochs in all was as good or better for a small
    network in our measurements: give each round time to recover, or a longer training after the last."""
    pace: Literal["cubic", "linear", "geometric"] = "cubic"
    """How the cost falls from round to round."""

    contract: ClassVar[dict[str, Any]] = {
        "criterion": {"prune.magnitude": {"macs": 0.4}},
        "train": {
            "train.supervised": {
                "data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 4}},
                "epochs": 1,
                "batch_size": 8,
            }
        },
        "rounds": 2,
    }

    def __post_init__(self) -> None:
        where = "prune.gradual"
        criterion_of(self.criterion, where=where, resumable=True)
        training_of(self.train, where=where)

    def items(self, value: Network, ctx: Context) -> Items:
        """Their numbers: what `train` advances over depends on the round, so that the live process looks it up itself."""
        return _Numbers()

    def open(self, value: Network, state: State | None, ctx: Context) -> Rounds:
        from mapsto.nn.prune.iterative import Gradual as Rounds

        return Rounds(
            value,
            criterion_of(self.criterion, where=self.name),
            training_of(self.train, where=self.name),
            rounds=self.rounds,
            pace=self.pace,
            state=state,
            ctx=ctx,
            where=self.name,
        )


class _Numbers:
    """Items that are their own numbers."""

    def __getitem__(self, step: int) -> int:
        return step

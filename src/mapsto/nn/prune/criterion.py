"""A pruning criterion: a mapping that ranks the channels of a network and drops the lowest of them to a budget.

One file in ``mapsto/mappings/prune/`` each says only how important channels are; schedules, sensitivities and sparse learning
take any of them as a field, as they take any training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from mapsto.context import Context
from mapsto.errors import SpecError
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.nn.prune.budget import Budgeted
from mapsto.process import Process

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.prune.channel_verdicts import Choice, Verdict
    from mapsto.nn.prune.structured import Importance, Judge, Ranked

__all__ = ["Criterion", "criterion_of", "training_of"]


class Criterion(Mapping[Network, Network]):
    """The network with the least important channels dropped until the budget is met.

    Most criteria are `Budgeted` themselves; one that wraps another has that one's settings.
    """

    @property
    def settings(self) -> Budgeted:
        """The budget, the ranking, and what every layer keeps."""
        raise NotImplementedError(f"{type(self).__name__} has no settings")

    def importance(self, value: Network, ctx: Context) -> Importance:
        """How important channels of `value` are; called with a module of it in evaluation mode, and its groups."""
        raise NotImplementedError(f"{type(self).__name__} does not say how important channels are")

    def judge(self, value: Network, ctx: Context) -> Judge | None:
        """What the rankings are compared by; None where the ranking is given."""
        from mapsto.nn.prune.measured_ranking import distance_from

        return distance_from(value, self.compared_on(value, ctx), ctx) if self.settings.ranking == "measured" else None

    def compared_on(self, value: Network, ctx: Context) -> Iterable[Tensor]:
        """Batches that the rankings are compared on."""
        from mapsto.nn.prune.measured_ranking import made_up_inputs

        return made_up_inputs(value)

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.prune.budget_check import told_reached
        from mapsto.nn.prune.pruned_channels import tables_of
        from mapsto.nn.prune.structured import thinned_padding

        found, taken = self._chosen(value, ctx, log=ctx.log)
        thinned = thinned_padding(found, taken.kept)
        if thinned:
            ctx.warn(thinned)
        verdicts = taken.verdicts(found.groups, found.scores)
        ctx.log(f"{sum(each.stays for each in verdicts)} of {len(verdicts)} channels stay in {len(taken.kept)} groups")
        for name, table in tables_of(taken, verdicts, criterion=self.name).items():
            ctx.attach(name, table)
        small = found.shrunk(taken.kept)
        told_reached(value, small, self.settings.budget, ctx, runtime=self.settings.runtime)
        return small

    def verdicts(self, value: Network, ctx: Context) -> list[Verdict]:
        """For each channel of `value` that could go why it goes or stays, as `apply` decides with a context of the same seed."""
        found, taken = self._chosen(value, ctx)
        return taken.verdicts(found.groups, found.scores)

    def _chosen(
        self, value: Network, ctx: Context, *, log: Callable[[str], None] = lambda _: None
    ) -> tuple[Ranked, Choice]:
        from mapsto.nn.prune.structured import choice, ranked

        settings = self.settings
        found = ranked(
            value,
            self.importance(value, ctx),
            embedding=settings.prune_embedding,
            padded=settings.padded,
            where=self.name,
            log=log,
        )
        return found, choice(found, settings, judge=self.judge(value, ctx), where=self.name, log=log)


def criterion_of(field: Any, *, where: str, resumable: bool = False) -> Criterion:
    """The criterion that a field of any mapping holds; with `resumable` one whose choice is the same whenever it is made.

    Raises `SpecError` for another mapping, or a budget that is measured where it must be resumable.
    """
    if not isinstance(field, Criterion):
        given = cast("Mapping[Any, Any]", field).name if isinstance(field, Mapping) else repr(field)
        raise SpecError(
            f"criterion is {given}, which ranks no channels",
            where=where,
            hint="give a pruning criterion, as in criterion: {prune.magnitude: {macs: 0.5}}",
        )
    if resumable and field.settings.latency_ms is not None:
        raise SpecError(
            f"criterion has a budget of {field.settings.latency_ms} ms, which a resumed run would measure differently",
            where=where,
            hint="give it macs, parameters or bytes",
        )
    return field


def training_of(field: Any, *, where: str) -> Process[Network, Network]:
    """The training that a field of any mapping holds. Raises `SpecError` for what is no process from Network to Network."""
    if isinstance(field, Process) and field.takes is Network and field.gives is Network:
        return cast("Process[Network, Network]", field)
    given = cast("Mapping[Any, Any]", field).name if isinstance(field, Mapping) else repr(field)
    raise SpecError(
        f"train is {given}, which is no process from Network to Network",
        where=where,
        hint="give one that trains, as in train: {train.supervised: {data: $train, epochs: 1}}",
    )

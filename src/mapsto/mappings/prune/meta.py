"""Drop the channels that a learner would miss least once it has adapted: importance is measured behind the adaptation, over tasks.

``I_c = mean_t (Σ_{w ∈ readers of c} w · ∂L_query(A(θ, support_t)) / ∂w)²``: the squared effect, to first order, of silencing channel c in
support and query alike on the queries' loss after the adaptation A, through which the gradient flows (all inner steps of a learner that
adapts by descent, whose readers are taken to stay where they were). Squares of gradients stand for the curvature, as in Theis et al.,
"Faster gaze prediction with dense networks and Fisher pruning", 2018; that the loss is the adapted learner's is ours. What is left is
judged anew in each of `rounds`: a VGG trained on printed characters, pruned to half and to a quarter of its multiply-accumulates, kept 77
and 55 % of held-out 5-way 1-shot episodes right so, 74 and 45 in one round, 64 and 42 by `prune.taylor`, 64 and 45 by magnitude.

Put `prune.reconstruct` behind it and rank per cost: a Conv4 on Omniglot at an eighth of its multiply-accumulates kept 96.4 % of validation
episodes right so before any training, 92.2 with channels ranked globally, 94.4 and 92.7 by magnitude; without refitting 76.4 or less.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import SpecError
from mapsto.kinds import Network
from mapsto.mapping import TasksSource
from mapsto.nn.prune.budget import Budgeted
from mapsto.nn.prune.criterion import Criterion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from mapsto.nn.prune.dependency_groups import Group
    from mapsto.nn.prune.structured import Importance

__all__ = ["Meta"]


class Meta(Budgeted, Criterion):
    """The learner with the channels dropped that matter least to it after it has adapted; a classifier adapts by its embeddings.

    Raises `SpecError` unless exactly one budget is given, and for several rounds towards a budget that is no share; `DomainError` for a
    quantized network, or one that cannot be made as small.
    """

    tasks: TasksSource
    """What it adapts to; tasks of the kind it is used on."""
    episodes: int = Field(default=40, ge=1)
    """Tasks of each round; on glyphs the ranking hardly moved beyond 40."""
    rounds: int = Field(default=5, ge=1, le=50)
    """Times that importance is measured, on what the rounds before have left; the budget is approached by equal factors."""

    version: ClassVar[int] = 2

    contract: ClassVar[dict[str, Any]] = {"macs": 0.5, "episodes": 2, "rounds": 2}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds > 1 and self.budget.unit != "share":
            raise SpecError(
                f"{self.rounds} rounds need a budget that is a share of the original",
                where="prune.meta",
                hint="give macs or parameters, or set rounds to 1",
            )

    def importance(self, value: Network, ctx: Context) -> Importance:
        return lambda module, groups: _squared_effects(
            module, groups, ctx.track(self._losses(value, module.to(ctx.device), ctx), what="tasks")
        )

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.prune.budget_check import told_reached
        from mapsto.nn.prune.round_tables import RoundTables
        from mapsto.nn.prune.structured import choice, ranked

        budget, given = self.budget, value
        share = {} if budget.unit != "share" else {budget.kind: budget.limit ** (1 / self.rounds)}
        step = dataclasses.replace(self, **share)
        whole: dict[str, int] = {}
        tables = RoundTables(self.name)
        for _ in range(self.rounds):
            importance = step.importance(value, ctx)
            found = ranked(
                value, importance, embedding=self.prune_embedding, padded=self.padded, where=self.name, log=ctx.log
            )
            whole = whole or {name: len(scores) for name, scores in found.scores.items()}
            taken = choice(found, step, judge=step.judge(value, ctx), whole=whole, where=self.name)
            tables.add(taken, taken.verdicts(found.groups, found.scores))
            value = found.shrunk(taken.kept)
        for name, table in tables.made().items():
            ctx.attach(name, table)
        told_reached(given, value, budget, ctx, runtime=self.runtime)
        return value

    def _losses(self, value: Network, module: nn.Module, ctx: Context) -> Iterator[Tensor]:
        """The queries' loss of each task after adaptation."""
        from mapsto.nn.meta.adaptation_methods import CENTROID, feature_method
        from mapsto.nn.meta.query_loss import adapted_loss
        from mapsto.nn.network.head import Embedding, head
        from mapsto.nn.network.inference import compact
        from mapsto.nn.train.batches import task_of

        adaptation = value.adaptation or CENTROID
        episodes, called = ctx.tasks(self.tasks), compact(module)
        if feature_method(adaptation.method) is not None and head(module) is not None:
            called = Embedding(called)
        for number in range(self.episodes):
            task = task_of([episodes[number]])
            yield adapted_loss(called, adaptation, task, value.signature.preprocessing, device=ctx.device)


def _squared_effects(
    module: nn.Module, groups: Sequence[Group], losses: Iterable[Tensor]
) -> dict[str, NDArray[np.float64]]:
    """Group → mean over tasks of each channel's squared effect on the loss, shape (channels,), in units of the group's mean."""
    import numpy as np

    from mapsto.nn.prune.data_driven import gradients
    from mapsto.nn.prune.importance import channel_sums, mean_normalised

    weights = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    totals = {group.name: np.zeros(group.channels) for group in groups}
    for loss in losses:
        products = {name: weights[name] * gradient for name, gradient in gradients(loss, weights).items()}
        for group in groups:
            known = [member for member in group.members if member.name in products]
            readers = [member for member in known if member.role == "in"]
            scales = [member for member in known if member.role == "along"]
            members = readers or scales or known
            sums = sum((channel_sums(products[m.name], m, group.channels) for m in members), np.zeros(group.channels))
            totals[group.name] += sums**2
    return {name: mean_normalised(total) for name, total in totals.items()}

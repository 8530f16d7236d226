"""Drop the channels that the loss would miss least, by its first-order change if a channel's weights were zero.

``I_c = mean over batches |Σ_m Σ_{w ∈ m[c]} ∂L/∂w · w| / M`` with m over the M tensors that make, scale and read channel c
(Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019). The loss is the cross-entropy of a classifier
on `data`, or of a learner's queries on `tasks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as AbcMapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Network
from mapsto.mapping import Context, DataSource, Mapping, TasksSource
from mapsto.nn.budget import Budgeted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from mapsto.nn.groups import Group

__all__ = ["Taylor"]


class Taylor(Budgeted, Mapping[Network, Network]):
    """The network with the channels that matter least to the loss dropped until the budget is met.

    Raises `SpecError` unless exactly one budget and one of `data` and `tasks` are given, `DataError` for data without
    classes, and `DomainError` for a network that the data does not fit, that is quantized, or that cannot be made as small.
    """

    data: DataSource | None = None
    """Labelled samples of the network's classes; give these or `tasks`."""
    tasks: TasksSource | None = None
    """Episodes, for a learner."""
    batches: int = Field(default=20, ge=1)
    """Batches (or episodes) that gradients are taken over; 10 to 50 do."""
    batch_size: int = Field(default=64, ge=1)
    """Samples of a batch, with `data`."""
    normalise: bool = True
    """Importance in units of its layer's mean, as DepGraph does. Without, changes of the loss are compared as they are;
    whole layers were then emptied in our measurements."""

    contract: ClassVar[dict[str, Any]] = {
        "macs": 0.5,
        "batches": 2,
        "data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 4}},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.data is None) == (self.tasks is None):
            raise SpecError(
                "give either data or tasks", where="prune.taylor", hint="tasks for a learner, data for a classifier"
            )

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.inference import compact
        from mapsto.nn.prune import pruned

        def importance(module: nn.Module, groups: Sequence[Group]) -> AbcMapping[str, NDArray[np.float64]]:
            module = compact(module.to(ctx.device))
            losses = (self._losses if self.tasks is None else self._episode_losses)(value, module, ctx)
            return _changes(module, groups, ctx.track(losses, what="gradients"), normalise=self.normalise)

        return pruned(value, self, importance, where=self.name, log=ctx.log)

    def _losses(self, value: Network, module: nn.Module, ctx: Context) -> Iterator[Tensor]:
        """Cross-entropies of batches drawn without replacement."""
        import torch

        from mapsto.nn.preprocess import prepare

        samples, outputs = ctx.dataset(self.data), value.signature.outputs[0].shape[-1]
        if len(samples) == 0 or samples.labels.ndim != 1 or samples.labels.dtype.kind not in "iu":
            raise DataError(
                "the data holds no samples labelled with classes", where="prune.taylor: data", hint="give some"
            )
        if value.signature.classes is None and value.adaptation is not None:
            raise DomainError(
                "the network is a learner without classes", where="prune.taylor", hint="give tasks, not data"
            )
        if outputs != len(samples.classes):
            raise DomainError(
                f"the network has {outputs} outputs, the data {len(samples.classes)} classes",
                where="prune.taylor: data",
                hint="prune on data of the classes that the network was trained on",
            )
        order = ctx.random("batches").permutation(len(samples))[: self.batches * self.batch_size]
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            inputs = prepare(samples.inputs[chosen], value.signature.preprocessing, device=ctx.device)
            labels = torch.as_tensor(samples.labels[chosen], device=ctx.device)
            yield torch.nn.functional.cross_entropy(module(inputs), labels)

    def _episode_losses(self, value: Network, module: nn.Module, ctx: Context) -> Iterator[Tensor]:
        """Cross-entropies of episodes' queries after adaptation."""
        import torch

        from mapsto.nn.batches import episode_scores, task_of
        from mapsto.nn.heads import head
        from mapsto.nn.learners import CENTROID
        from mapsto.nn.preprocess import prepare

        if head(module) is not None:
            raise DomainError("the network is a classifier", where="prune.taylor", hint="give data, not tasks")
        episodes = ctx.tasks(self.tasks)
        for number in range(self.batches):
            task = task_of([episodes[number]])
            raw = task.inputs.reshape(-1, *task.inputs.shape[2:])
            inputs = prepare(raw, value.signature.preprocessing, device=ctx.device)
            scores = episode_scores(module, inputs, task, value.adaptation or CENTROID).flatten(0, 1)
            labels = torch.as_tensor(task.query_labels.ravel(), device=ctx.device)
            yield torch.nn.functional.cross_entropy(scores, labels)


def _changes(
    module: nn.Module, groups: Sequence[Group], losses: Iterable[Tensor], *, normalise: bool
) -> dict[str, NDArray[np.float64]]:
    """Group → mean over losses of the absolute first-order change of each channel, shape (channels,)."""
    import numpy as np
    import torch

    from mapsto.nn.prune import channel_sums, mean_normalised

    module.requires_grad_(True)
    weights = dict(module.named_parameters())
    totals = {group.name: np.zeros(group.channels) for group in groups}
    count = 0
    for loss in losses:
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        products = {
            name: weight * gradient
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
            if gradient is not None  # pyright: ignore[reportUnnecessaryComparison]
        }
        for group in groups:
            members = [member for member in group.members if member.name in products]
            sums = sum((channel_sums(products[m.name], m, group.channels) for m in members), np.zeros(group.channels))
            totals[group.name] += np.abs(sums) / max(len(members), 1)
        count += 1
    changes = {name: total / max(count, 1) for name, total in totals.items()}
    return {name: mean_normalised(values) for name, values in changes.items()} if normalise else changes

"""Data-driven pruning criteria: the fields that they share, their calibration batches, and losses on these.

The loss is the cross-entropy of a classifier on `data`, or of a learner's queries on `tasks` after adapting to the support.
This file imports torch only when there is work to do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import Field

from mapsto.context import Context
from mapsto.discovery import name_of
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Network, Samples
from mapsto.mapping import DataSource, TasksSource
from mapsto.nn.prune.budget import Budgeted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

__all__ = ["Loss", "DataDriven", "gradients"]


COMPARED_ON = 8
"""Batches that rankings are compared on; 512 samples by default."""


class Loss(NamedTuple):
    """A mean loss, differentiable, and of how many samples it is the mean."""

    value: Tensor
    samples: int


class DataDriven(Budgeted):
    """The fields of every criterion that is computed from samples; exactly one of `data` and `tasks` is given."""

    data: DataSource | None = Field(
        default=None, description="Labelled samples of the network's classes; give these or `tasks`."
    )
    tasks: TasksSource | None = Field(default=None, description="Episodes, for a learner.")
    batches: int = Field(default=20, ge=1, description="Calibration batches (or episodes); 10 to 50 do.")
    batch_size: int = Field(default=64, ge=1, description="Samples of a batch, with `data`.")

    contract: ClassVar[dict[str, Any]] = {
        "macs": 0.5,
        "batches": 2,
        "data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 4}},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.data is None) == (self.tasks is None):
            raise SpecError(
                "give either data or tasks",
                where=name_of(type(self)),
                hint="tasks for a learner, data for a classifier",
            )

    def inputs(self, value: Network, ctx: Context) -> Iterator[Tensor]:
        """Prepared batches (N, ...): of `data` drawn without replacement, or each all samples of an episode."""
        from mapsto.data.checks import require_finite, require_some
        from mapsto.nn.train.batches import task_of
        from mapsto.nn.train.calibration_batches import as_inputs

        where = name_of(type(self))
        if self.tasks is None:
            samples = require_some(ctx.dataset(self.data), where=f"{where}: data")
            require_finite(samples.inputs, where=f"{where}: data")
            for places in self._drawn(samples, ctx):
                yield as_inputs(value, samples.inputs[places], where=f"{where}: data", device=ctx.device)
            return
        episodes = ctx.tasks(self.tasks)
        require_finite(episodes.samples.inputs, where=f"{where}: tasks")
        for number in range(self.batches):
            raw = task_of([episodes[number]]).inputs
            yield as_inputs(value, raw.reshape(-1, *raw.shape[2:]), where=f"{where}: tasks", device=ctx.device)

    def compared_on(self, value: Network, ctx: Context) -> Iterator[Tensor]:
        """The first of the batches: the rankings are compared on them, where `ranking` is ``measured``."""
        return itertools.islice(self.inputs(value, ctx), COMPARED_ON)

    def losses(self, value: Network, module: nn.Module, ctx: Context) -> Iterator[Loss]:
        """Losses of `module`, of `value`, on one batch or episode after another.

        Raises `DataError` for data without classes or with NaN, `DomainError` for a network that they do not fit.
        """
        return (self._losses if self.tasks is None else self._episode_losses)(value, module, ctx)

    def _drawn(self, samples: Samples, ctx: Context) -> Iterator[NDArray[np.int64]]:
        """The samples of each batch."""
        from mapsto.nn.train.calibration_batches import chosen

        order = chosen(samples, self.batches * self.batch_size, ctx, stream="batches")
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def _losses(self, value: Network, module: nn.Module, ctx: Context) -> Iterator[Loss]:
        import torch

        from mapsto.data.checks import require_finite
        from mapsto.nn.train.calibration_batches import as_inputs, require_own_classes

        where = name_of(type(self))
        samples = ctx.dataset(self.data)
        require_own_classes(value, samples, where=where)
        require_finite(samples.inputs, where=f"{where}: data")
        for places in self._drawn(samples, ctx):
            inputs = as_inputs(value, samples.inputs[places], where=f"{where}: data", device=ctx.device)
            labels = torch.as_tensor(samples.labels[places], device=ctx.device)
            yield Loss(torch.nn.functional.cross_entropy(module(inputs), labels), len(places))

    def _episode_losses(self, value: Network, module: nn.Module, ctx: Context) -> Iterator[Loss]:
        from mapsto.nn.meta.adaptation_methods import CENTROID
        from mapsto.nn.meta.query_loss import adapted_loss
        from mapsto.nn.network.head import head
        from mapsto.nn.train.batches import task_of

        if head(module) is not None:
            raise DomainError("the network is a classifier", where=name_of(type(self)), hint="give data, not tasks")
        episodes = ctx.tasks(self.tasks)
        for number in range(self.batches):
            task = task_of([episodes[number]])
            adaptation, before = value.adaptation or CENTROID, value.signature.preprocessing
            loss = adapted_loss(module, adaptation, task, before, device=ctx.device)
            yield Loss(loss, task.query_labels.size)


def gradients(
    loss: Tensor, weights: Mapping[str, Tensor], *, differentiable: bool = False, keep_graph: bool = False
) -> dict[str, Tensor]:
    """Name → gradient of the loss, of the weights that it depends on."""
    import torch

    found = torch.autograd.grad(
        loss,
        list(weights.values()),
        allow_unused=True,
        create_graph=differentiable,
        retain_graph=differentiable or keep_graph,
    )
    return {
        name: gradient
        for name, gradient in zip(weights, found, strict=True)
        if gradient is not None  # pyright: ignore[reportUnnecessaryComparison]
    }

"""Items to train on: mini-batches in a new order each epoch, and batches of tasks, both addressable by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Adaptation, Episode, Episodes, Samples
from mapsto.nn.meta.adaptation import centroid
from mapsto.nn.meta.adaptation_methods import task_scores

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from numpy.typing import NDArray

__all__ = [
    "Batch",
    "Batches",
    "EpochOrder",
    "RepeatedTasks",
    "Task",
    "TaskBatches",
    "episode_scores",
    "indices_of",
    "scores_and_labels",
    "task_of",
]


class Batch(NamedTuple):
    """Raw samples and labels, and the step that they are for."""

    inputs: NDArray[Any]
    labels: NDArray[Any]
    step: int


class EpochOrder:
    """Which samples each step takes, in an order that is drawn anew for every epoch.

    Parameters
    ----------
    per_epoch
        Steps of an epoch.
    draw
        Epoch → its samples, shape (per_epoch, batch size).
    fabric
        Where there are several ranks, each gets its share of every batch.
    """

    def __init__(self, per_epoch: int, draw: Callable[[int], NDArray[np.int64]], fabric: Fabric) -> None:
        self._per_epoch, self._draw = per_epoch, draw
        self._rank, self._world = fabric.global_rank, fabric.world_size
        self._drawn: tuple[int, NDArray[np.int64]] = (-1, np.empty((0, 0), np.int64))

    def __getitem__(self, step: int) -> NDArray[np.int64]:
        epoch, place = divmod(step, self._per_epoch)
        known, order = self._drawn  # read once: threads that work ahead may be an epoch apart
        if known != epoch:
            order = self._draw(epoch)
            self._drawn = epoch, order
        return order[place][self._rank :: self._world]


class Batches:
    """Mini-batches; each epoch goes once through a permutation, the incomplete batch at its end is left out.

    Parameters
    ----------
    samples
        What to draw from.
    batch_size
        Samples of a step over all ranks; no more than there are.
    generator
        Epoch → a NumPy generator for its order.
    fabric
        Where there are several ranks, each gets its share of every batch.
    """

    workers = 1

    def __init__(
        self, samples: Samples, batch_size: int, generator: Callable[[int], np.random.Generator], fabric: Fabric
    ) -> None:
        size = min(batch_size, len(samples))
        self._samples = samples
        self.per_epoch = len(samples) // size
        """Steps of an epoch."""

        def draw(epoch: int) -> NDArray[np.int64]:
            return generator(epoch).permutation(len(samples))[: self.per_epoch * size].reshape(-1, size)

        self._order = EpochOrder(self.per_epoch, draw, fabric)

    def __getitem__(self, step: int) -> Batch:
        chosen = self._order[step]
        return Batch(self._samples.inputs[chosen], self._samples.labels[chosen], step)


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A batch of B tasks of one form."""

    inputs: NDArray[Any]
    """Support, query, then unlabelled samples of each task, shape (B, S + Q + U, ...); U is 0 unless they are asked for."""
    support_labels: NDArray[Any]
    """Classes (B, S) int64, or targets (B, S, K) float32."""
    query_labels: NDArray[Any]
    """(B, Q), or (B, Q, K)."""
    ways: int
    """Outputs: classes of a task, or K."""
    step: int = 0
    """The step that these tasks were drawn for: their random changes are drawn for it too."""
    again: bool = False
    """Whether several steps have the same tasks."""

    def first(self, count: int) -> Task:
        """The first tasks alone."""
        labels = self.support_labels[:count], self.query_labels[:count]
        return dataclasses.replace(self, inputs=self.inputs[:count], support_labels=labels[0], query_labels=labels[1])


def task_of(episodes: list[Episode], *, unlabelled: bool = False) -> Task:
    """Episodes of one form side by side, with their unlabelled samples where these are asked for."""
    first = episodes[0]
    chosen = np.stack([indices_of(episode, unlabelled=unlabelled) for episode in episodes])
    if all(episode.samples is first.samples for episode in episodes):
        inputs = first.samples.inputs[chosen.ravel()].reshape(*chosen.shape, *first.samples.inputs.shape[1:])
    else:
        inputs = np.stack([episode.samples.inputs[part] for episode, part in zip(episodes, chosen, strict=True)])
    return Task(
        inputs=inputs,
        support_labels=np.stack([episode.support_labels for episode in episodes]),
        query_labels=np.stack([episode.query_labels for episode in episodes]),
        ways=first.outputs,
    )


def indices_of(episode: Episode, *, unlabelled: bool = False) -> NDArray[np.int64]:
    """Its support, query and, where they are asked for, unlabelled samples."""
    rest = episode.unlabelled_indices if unlabelled else None
    return np.concatenate([episode.support_indices, episode.query_indices, *([] if rest is None else [rest])])


class TaskBatches:
    """`per_step` tasks a step, never one twice."""

    workers = 1

    def __init__(self, episodes: Episodes, per_step: int, fabric: Fabric, *, unlabelled: bool = False) -> None:
        self._episodes, self._per_step, self._unlabelled = episodes, per_step, unlabelled
        self._rank, self._world = fabric.global_rank, fabric.world_size

    def __getitem__(self, step: int) -> Task:
        first = (step * self._world + self._rank) * self._per_step
        chosen = [self._episodes[first + number] for number in range(self._per_step)]
        return dataclasses.replace(task_of(chosen, unlabelled=self._unlabelled), step=step)


class RepeatedTasks:
    """The tasks of the first `count` steps again and again: first in their order, then each time in a new one.

    Parameters
    ----------
    tasks
        Gives those of a step.
    count
        Steps that have tasks of their own.
    generator
        Pass, from 1 → a NumPy generator for its order.
    """

    workers = 1

    def __init__(self, tasks: TaskBatches, count: int, generator: Callable[[int], np.random.Generator]) -> None:
        self._tasks, self._count, self._generator = tasks, count, generator
        self._order: tuple[int, NDArray[np.int64]] = (0, np.arange(count))

    def __getitem__(self, step: int) -> Task:
        number, place = divmod(step, self._count)
        known, order = self._order  # read once: threads that work ahead may be a pass apart
        if known != number:
            order = self._generator(number).permutation(self._count) if number else np.arange(self._count)
            self._order = number, order
        return dataclasses.replace(self._tasks[int(order[place])], again=True)


def episode_scores(call: nn.Module, inputs: Tensor, task: Task, adaptation: Adaptation) -> Tensor:
    """Scores (B, Q, ways) of a batch of tasks whose inputs (B · (S + Q + U), ...) are prepared; `call` is the learner."""
    labels = torch.as_tensor(task.support_labels, device=inputs.device)
    together = inputs.unflatten(0, task.inputs.shape[:2])
    tensors = {name: tensor.to(inputs.device) for name, tensor in adaptation.tensors.items()}
    learner = dataclasses.replace(adaptation, tensors=tensors)
    return task_scores(call, together, labels, task.query_labels.shape[1], task.ways, learner)


def scores_and_labels(
    call: nn.Module, inputs: Tensor, task: Task, adaptation: Adaptation, *, leave_one_out: bool = False
) -> tuple[Tensor, Tensor]:
    """Scores (M, ways) and labels (M,) of every query; with `leave_one_out` of every image, against its class's others.

    Raises `DomainError` for leave-one-out with another method than ``centroid``.
    """
    query = torch.as_tensor(task.query_labels, device=inputs.device)
    if not leave_one_out:
        return episode_scores(call, inputs, task, adaptation).flatten(0, 1), query.flatten()
    if adaptation.method != "centroid":
        raise DomainError(
            f"leave_one_out goes with the method centroid, not {adaptation.method}", hint="set leave_one_out to false"
        )
    labels = torch.cat([torch.as_tensor(task.support_labels, device=inputs.device), query], 1)
    features: Tensor = call(inputs).unflatten(0, labels.shape)
    scores = centroid.leave_one_out_scores(
        features,
        labels,
        task.ways,
        scale=centroid.scale_of(adaptation.settings),
        cosine=centroid.is_cosine(adaptation.settings),
    )
    return scores.flatten(0, 1), labels.flatten()

"""A learner in training: a network, how it adapts, and the tensors that its adaptation holds, as one module.

Being one module, it is wrapped, moved, averaged and checkpointed like any other; its forward pass is the loss of a batch of tasks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mapsto.kinds import Adaptation
from mapsto.nn.kernels.cuda_graphs import Recordings
from mapsto.nn.meta.adaptation_methods import task_scores
from mapsto.nn.meta.batch_norm import statistics_names

if TYPE_CHECKING:
    from mapsto.nn.kernels.task_threads import ThreadCopies
    from mapsto.nn.train.batches import Task

__all__ = ["Learner"]


class Learner(nn.Module):
    """A network and its adaptation's tensors; those that are floating point are trained too.

    >>> learner = Learner(nn.Linear(2, 2), Adaptation(method="gradient", tensors={"~rate": torch.tensor(0.1)}))
    >>> [name for name, _ in learner.named_parameters()]
    ['network.weight', 'network.bias', 'own.~rate']
    >>> learner.adaptation.tensors["~rate"]
    Parameter containing: tensor(0.1000, requires_grad=True)
    """

    def __init__(self, network: nn.Module, adaptation: Adaptation) -> None:
        super().__init__()
        self.network = network
        self.own = nn.ParameterDict()
        self.kept = nn.Module()
        self._adaptation = adaptation
        for name, tensor in adaptation.tensors.items():
            if ".running_" in name or name.startswith("running_"):
                self.kept.register_buffer(_hidden(name), tensor.clone())
            else:
                self.own[_hidden(name)] = nn.Parameter(tensor.clone())
        self._copies: ThreadCopies | None = None
        self.threads: tuple[str, ThreadCopies] | None = None
        self.recordings = Recordings()
        self.chosen: Mapping[str, Any] = {}
        self.objective: Callable[[Learner, Tensor, Task, int], Tensor] | None = None

    @property
    def module(self) -> nn.Module:
        """The network for a forward pass with other parameters in its place: within `engaged` this thread's own."""
        return self._copies() if self._copies is not None else self.network

    @contextmanager
    def engaged(self, copies: ThreadCopies | None) -> Generator[None]:
        """Within the block `module` is one of these copies."""
        self._copies = copies
        try:
            yield
        finally:
            self._copies = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The adaptation's tensors as they stand, by their names."""
        return {
            name: self.own[hidden] if (hidden := _hidden(name)) in self.own else self.kept.get_buffer(hidden)
            for name in self._adaptation.tensors
        }

    @property
    def adaptation(self) -> Adaptation:
        """How it adapts, with the tensors as they stand."""
        return dataclasses.replace(self._adaptation, tensors=self.tensors)

    def detached(self) -> dict[str, Tensor]:
        """Copies of the tensors, on the CPU, without gradients."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.tensors.items()}

    def split(self, parameters: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """This module's parameters by name as the network's, by its own names, and the adaptation's tensors."""
        point = {
            name.removeprefix("network."): tensor for name, tensor in parameters.items() if name.startswith("network.")
        }
        own = {name: parameters.get(f"own.{_hidden(name)}", tensor) for name, tensor in self.tensors.items()}
        return point, own

    def keep(self, statistics: Mapping[int, Mapping[str, tuple[Tensor, Tensor]]], momentum: float = 0.1) -> None:
        """Move the running statistics of each inner step towards those that were met."""
        running = dict(self.kept.named_buffers())
        for step, found in statistics.items():
            for place, met in found.items():
                for name, tensor in zip(statistics_names(place), met, strict=True):
                    hidden = _hidden(f"{name}@{step}")
                    if hidden in running:
                        running[hidden].lerp_(tensor, momentum)

    def scores(self, inputs: Tensor, task: Task) -> Tensor:
        """Scores (B, Q, ways) of the queries of tasks whose samples (B, S + Q + U, ...) are prepared."""
        labels = torch.as_tensor(task.support_labels, device=inputs.device)
        return task_scores(self.network, inputs, labels, task.query_labels.shape[1], task.ways, self.adaptation)

    def forward(self, inputs: Tensor, task: Task, step: int) -> Tensor:
        """The loss of a batch of tasks."""
        if self.objective is None:
            raise RuntimeError("a learner in training needs an objective")
        return self.objective(self, inputs, task, step)


def _hidden(name: str) -> str:
    """A name without dots, as parameters have to be called."""
    return name.replace(".", "/")

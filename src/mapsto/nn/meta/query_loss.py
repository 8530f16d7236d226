"""A learner's answers while it adapts, differentiable through the adaptation: of the kind that pruning and distillation judge by."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from mapsto.kinds import Adaptation, Preprocessing
from mapsto.nn.meta import batch_norm, inner_loop
from mapsto.nn.meta.adaptation_methods import task_scores
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.train.batches import Task

__all__ = ["adapted_loss", "adapted_path"]


def adapted_path(module: nn.Module, adaptation: Adaptation, inputs: Tensor, task: Task) -> Tensor:
    """Scores (K, B, Q, ways) of the queries of B tasks: of a learner that descends before the first inner step and after each, else K = 1.

    Parameters
    ----------
    module
        Whose parameters gradients flow into, where they want them.
    inputs
        The tasks' samples (B, S + Q, ...), prepared.
    """
    tensors = {name: tensor.to(inputs.device) for name, tensor in adaptation.tensors.items()}
    adaptation = dataclasses.replace(adaptation, tensors=tensors)
    support_labels = torch.as_tensor(task.support_labels, device=inputs.device)
    shots, queries = support_labels.shape[1], task.query_labels.shape[1]
    if adaptation.method != "gradient":
        return task_scores(module, inputs, support_labels, queries, task.ways, adaptation).unsqueeze(0)
    inner = inner_loop.Inner.of(adaptation.settings)
    call = inner_loop.FunctionalModule(module, inner, adaptation.tensors)
    start: dict[str, Tensor] = dict(module.named_parameters())
    if not torch.is_grad_enabled():
        start = inner_loop.as_leaves(start, functional=False)
    found: list[Tensor] = []
    with batch_norm.task_norms(module):
        for sample, labels in zip(inputs, support_labels, strict=True):
            support, query = sample[:shots], sample[shots : shots + queries]
            with torch.enable_grad():
                points = inner_loop.inner_path(
                    call, start, support, labels, task.ways, steps=inner.steps, second_order=True
                )
                scores = [inner_loop.query_scores(call, point, support, query, at) for at, point in enumerate(points)]
            found.append(torch.stack(scores))
    path = torch.stack(found, 1)
    return path if torch.is_grad_enabled() else path.detach()


def adapted_loss(
    module: nn.Module,
    adaptation: Adaptation,
    task: Task,
    preprocessing: Preprocessing,
    *,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The mean loss of the queries of some tasks, each adapted to by its support set: a scalar.

    `module` is in evaluation mode; its parameters are made to want gradients.
    """
    module.requires_grad_(True)
    inputs = prepare(task.inputs.reshape(-1, *task.inputs.shape[2:]), preprocessing, device=device)
    path = adapted_path(module, adaptation, inputs.unflatten(0, task.inputs.shape[:2]), task)
    labels = torch.as_tensor(task.query_labels, device=inputs.device)
    return inner_loop.loss_of(path[-1].flatten(0, 1), labels.flatten(0, 1))

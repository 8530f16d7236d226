"""Adapt by a few steps of gradient descent on the support set, ``θ_{k+1} = θ_k − α ∇ L_support(θ_k)``: the inner loop, once trained.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", 2017.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from mapsto.errors import DataError
from mapsto.kinds import Adaptation
from mapsto.nn.kernels.compiled import compiled_kernels
from mapsto.nn.kernels.fuse import fuse, is_fusable
from mapsto.nn.kernels.memory_layout import channels_last
from mapsto.nn.kernels.task_conv import task_convolutions
from mapsto.nn.kernels.task_threads import ThreadCopies, per_task
from mapsto.nn.meta import batch_norm as norms
from mapsto.nn.meta.inner_loop import HEAD, FunctionalModule, Inner, Point, inner_path, query_scores

__all__ = ["adapted", "episode_scores", "fit", "path_scores"]


def fit(
    module: nn.Module,
    support: Tensor,
    labels: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> tuple[FunctionalModule, list[Point]]:
    """Adapt to one support set: the function that the points are given to, and every point of the path."""
    call = FunctionalModule(module, Inner.of(adaptation.settings), adaptation.tensors)
    _check(labels, ways)
    start = {name: tensor.detach().requires_grad_() for name, tensor in module.named_parameters()}
    with torch.enable_grad():
        points = list(inner_path(call, start, support, labels, ways, steps=call.inner.steps))
    return call, [{name: tensor.detach() for name, tensor in point.items()} for point in points]


def _check(labels: Tensor, ways: int) -> None:
    if not labels.is_floating_point() and not 0 <= int(labels.min()) <= int(labels.max()) < ways:
        raise DataError(
            f"labels go from {int(labels.min())} to {int(labels.max())}",
            where="support set",
            hint=f"the labels of {ways} ways are 0 to {ways - 1}",
        )


def adapted(
    module: nn.Module,
    support: Tensor,
    labels: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
    """What the support set (S, ...) makes of a module: its changed parameters and statistics, and the head where it has none.

    Batch norms that took the task's statistics keep those of the support set, so that the result is an ordinary classifier.
    """
    with norms.task_norms(module):
        call, points = fit(module, support, labels, ways, adaptation)
        last = len(points) - 1
        statistics = call.statistics(last)
        if statistics is None and call.inner.batch_norm != "none":
            with torch.no_grad(), norms.recording() as statistics:
                call(points[last], support, last)
    changed = {name: tensor for name, tensor in points[last].items() if name not in HEAD}
    for place, (mean, variance) in (statistics or {}).items():
        changed |= dict(zip(norms.statistics_names(place), (mean.detach(), variance.detach()), strict=True))
    head = (points[last][HEAD[0]], points[last][HEAD[1]]) if HEAD[0] in points[last] else None
    return changed, head


def path_scores(
    module: nn.Module,
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """Scores (steps + 1, B, Q, ways) before the first inner step and after each."""
    return _scores(module, support, support_labels, query, ways, adaptation, whole=True)


def episode_scores(
    module: nn.Module,
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """Scores (B, Q, ways) of a batch of tasks, each adapted to on its own.

    >>> net = nn.Linear(1, 2)
    >>> x, y = torch.tensor([[[-1.0], [1.0]]]), torch.tensor([[0, 1]])
    >>> adaptation = Adaptation(method="gradient", settings={"steps": 20, "rate": 1.0})
    >>> episode_scores(net, x, y, x, 2, adaptation).argmax(-1).tolist()
    [[0, 1]]
    """
    return _scores(module, support, support_labels, query, ways, adaptation, whole=False)[-1]


def _scores(
    module: nn.Module,
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
    *,
    whole: bool,
) -> Tensor:
    inner = Inner.of(adaptation.settings)
    if support.device.type == "cuda":
        found = _side_by_side(module, support, support_labels, query, ways, adaptation, whole=whole)
        if bool(found.isfinite().all()):  # else the path that says where it diverged
            return found
    adapting = _adapting(module, inner, support)
    fused = adapting is not module
    own, judges = ThreadCopies(adapting), ThreadCopies(module)

    def one(number: int) -> Tensor:
        inputs, queries = support[number], query[number]
        if fused:
            inputs, queries = channels_last(inputs), channels_last(queries)
        call, points = fit(own(), inputs, support_labels[number], ways, adaptation)
        if fused and inner.batch_norm == "inductive":
            call = FunctionalModule(judges(), inner, adaptation.tensors)
        first = 0 if whole else len(points) - 1
        with torch.no_grad():
            return torch.stack(
                [query_scores(call, points[at], inputs, queries, at) for at in range(first, len(points))]
            )

    tasks, threads = len(support), torch.get_num_threads()
    with norms.task_norms(module), norms.task_norms(adapting):
        if support.device.type == "cpu" and tasks >= threads:
            return torch.stack(per_task(one, tasks, threads), 1)
        return torch.stack([one(number) for number in range(tasks)], 1)


def _side_by_side(
    module: nn.Module,
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
    *,
    whole: bool,
) -> Tensor:
    """The same with all tasks vectorised, as suits a device that is slow to start and quick to compute."""
    start = {name: tensor.detach() for name, tensor in module.named_parameters()}

    def one(inputs: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        call = FunctionalModule(module, Inner.of(adaptation.settings), adaptation.tensors, functional=True)
        points = list(inner_path(call, start, inputs, labels, ways, steps=call.inner.steps, functional=True))
        first = 0 if whole else len(points) - 1
        return torch.stack([query_scores(call, points[at], inputs, queries, at) for at in range(first, len(points))])

    with norms.task_norms(module), task_convolutions(module), torch.no_grad():
        several: Any = torch.func.vmap(one, out_dims=1, randomness="different")
        return cast("Tensor", several(support, support_labels, query))


def _adapting(module: nn.Module, inner: Inner, support: Tensor) -> nn.Module:
    """The module, or where that is quicker one with its operations fused, which knows the statistics of the batch alone."""
    by_batch = inner.batch_norm in ("transductive", "inductive")
    known = support.device.type == "cpu" and support.dtype in (torch.float32, torch.float64) and support.ndim == 5
    return fuse(module) if by_batch and known and is_fusable(module) and compiled_kernels() else module

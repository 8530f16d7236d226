"""The outer gradient over a batch of tasks, task by task or vectorised, with memory bounded by a chunk of tasks.

The gradient of each task's loss is found on its own and added up in the order of the tasks, so that only one chunk's graph is held
at a time. What comes out is a loss whose backward pass hands out the gradients that are there already: to an optimiser, a
precision plugin or DDP it looks like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn

from mapsto.nn.kernels.task_threads import per_task

if TYPE_CHECKING:
    from mapsto.nn.kernels.cuda_graphs import Recordings

__all__ = ["Engine", "TaskLoss", "by_chunks", "by_tasks", "precomputed"]

T = TypeVar("T")
Engine: TypeAlias = Literal["loop", "threads", "fused", "vmap", "graph"]
"""How the gradients of a step's tasks are found: one task after another, each on all cores; a task a core; so with fused
operations; all at once, vectorised; so, as a CUDA graph."""
TaskLoss: TypeAlias = Callable[[Mapping[str, Tensor], int], Tensor]
"""(parameters by name, number of the task) → its loss, a scalar."""
Gradients: TypeAlias = tuple[Tensor, Sequence[Tensor | None]]


def by_tasks(
    parameters: Mapping[str, Tensor],
    loss: TaskLoss,
    tasks: int,
    *,
    threads: int | None = None,
    chunk: int | None = None,
) -> Tensor:
    """The mean loss of tasks 0 … tasks - 1, differentiable in `parameters`.

    Parameters
    ----------
    parameters
        By name.
    loss
        Called once a task; under `threads` from several at once (see `per_task`).
    tasks
        How many.
    threads
        None: one task after another, each on all cores. Else so many at once, each on one core.
    chunk
        With threads: tasks whose gradients are held at once; None for all.

    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> mean = by_tasks({"w": w}, lambda at, number: at["w"] ** 2 * number, 3)
    >>> mean.backward()
    >>> mean.item(), w.grad.item()
    (4.0, 4.0)
    """
    single = partial(_loss_and_gradients, parameters, loss)

    def found() -> Iterator[Gradients]:
        if threads is None:
            yield from map(single, range(tasks))
            return
        for first in range(0, tasks, chunk or tasks):
            count = min(chunk or tasks, tasks - first)
            yield from per_task(partial(_offset, single, first), count, threads)

    return precomputed(list(parameters.values()), found(), tasks)


def _offset(call: Callable[[int], Gradients], first: int, number: int) -> Gradients:
    return call(first + number)


def _loss_and_gradients(
    parameters: Mapping[str, Tensor], loss: Callable[[Mapping[str, Tensor], T], Tensor], part: T
) -> Gradients:
    """The loss of a part of the tasks and its gradients, in the order of the parameters, which stay as they are."""
    leaves = [value.detach().requires_grad_() for value in parameters.values()]
    with torch.enable_grad():
        found = loss(dict(zip(parameters, leaves, strict=True)), part)
    return found.detach(), list(torch.autograd.grad(found, leaves, allow_unused=True))


def by_chunks(
    parameters: Mapping[str, Tensor],
    loss: Callable[[Mapping[str, Tensor], Sequence[Tensor]], Tensor],
    tasks: Sequence[Tensor],
    chunk: int,
    recordings: Recordings | None = None,
    key: Hashable = None,
) -> Tensor:
    """The mean loss of tasks, `chunk` of them at a time.

    Parameters
    ----------
    loss
        The sum over tasks, of the parameters and of some tasks' tensors.
    tasks
        The tensors of all, each of shape (T, ...).
    recordings
        Where the work of a chunk is kept, to be replayed; None to launch it anew each time.
    key
        What a recording depends on besides the parameters' places and the tensors' shapes.
    """
    count = len(tasks[0])
    places = tuple(value.data_ptr() for value in parameters.values()) if recordings is not None else ()

    def work(*part: Tensor) -> list[Tensor]:
        total, gradients = _loss_and_gradients(parameters, loss, part)
        own = zip(parameters.values(), gradients, strict=True)
        return [total, *(torch.zeros_like(value) if gradient is None else gradient for value, gradient in own)]

    def found() -> Iterator[Gradients]:
        for first in range(0, count, chunk):
            part = [tensor[first : first + chunk] for tensor in tasks]
            if recordings is None:
                yield _loss_and_gradients(parameters, loss, part)
            else:
                total, *gradients = recordings((key, places), work, part)
                yield total, gradients

    return precomputed(list(parameters.values()), found(), count)


def precomputed(parameters: Sequence[Tensor], results: Iterable[Gradients], count: int) -> Tensor:
    """A mean loss from the (loss, gradients) of its parts, added up in their order and divided by `count`."""
    total: Tensor | None = None
    sums: list[Tensor | None] = [None] * len(parameters)
    for part, gradients in results:
        total = part if total is None else total + part
        for place, gradient in enumerate(gradients):
            if gradient is not None:
                before = sums[place]
                sums[place] = gradient if before is None else before + gradient
    if total is None:
        raise ValueError("there is not one task")
    means = [None if gradient is None else gradient / count for gradient in sums]
    return cast("Tensor", _Precomputed.apply(total / count, means, *parameters))


class _Precomputed(torch.autograd.Function):
    """A loss whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        return (None, None, *(None if found is None else outputs[0] * found for found in ctx.gradients))


def trained(module: nn.Module) -> dict[str, Tensor]:
    """The parameters that want gradients, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}

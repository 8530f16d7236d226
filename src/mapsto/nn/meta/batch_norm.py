"""Which statistics batch norms take while a learner adapts: of the task's own images, of its support set, or the stored ones.

With few images the choice decides the accuracy (Bronskill et al., "TaskNorm: Rethinking Batch Normalization for Meta-Learning",
2020), so a learner says which it makes:

- ``transductive``: each batch by its own mean and variance, queries too, so that they see each other (Finn et al., 2017);
- ``inductive``: queries by the mean and variance of the support set, one by one;
- ``per_step``: like transductive in training, which keeps running statistics of each inner step, by which they are then normalised
  (Antoniou et al., "How to Train Your MAML", 2019);
- ``none``: by the statistics that the network holds, which a fresh one has as 0 and 1.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

__all__ = [
    "BatchNormMode",
    "Record",
    "Statistics",
    "are_given",
    "averaged",
    "norm_paths",
    "recording",
    "statistics_names",
    "task_norms",
    "using",
]

BatchNormMode: TypeAlias = Literal["transductive", "inductive", "per_step", "none"]
Statistics: TypeAlias = dict[str, tuple[Tensor, Tensor]]
"""Path of a batch norm → mean and (biased) variance, shape (C,) each."""
Record: TypeAlias = dict[int, list[Statistics]]
"""Inner step → the statistics of each batch that was met there."""

_given: ContextVar[Mapping[str, tuple[Tensor, Tensor]] | None] = ContextVar("given", default=None)
_seen: ContextVar[Statistics | None] = ContextVar("seen", default=None)
_stored: ContextVar[bool] = ContextVar("stored", default=False)


class _TaskNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm whose statistics come from the block it runs in; it never changes its running ones."""

    path: str

    def forward(self, input: Tensor) -> Tensor:
        if _stored.get():
            return nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        given = _given.get()
        if given is not None:
            return _normalised(input, *given[self.path], self.weight, self.bias, self.eps)
        seen = _seen.get()
        if seen is not None:
            over = [0, *range(2, input.ndim)]
            seen[self.path] = (input.mean(over), input.var(over, correction=0))
            return _normalised(input, *seen[self.path], self.weight, self.bias, self.eps)
        return nn.functional.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions will do."""


def _normalised(
    input: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    shape = [1, -1] + [1] * (input.ndim - 2)
    factor = (variance + eps).rsqrt()
    if weight is not None:
        factor = factor * weight
    shift = -mean * factor
    if bias is not None:
        shift = shift + bias
    return input * factor.view(shape) + shift.view(shape)


def norm_paths(module: nn.Module) -> list[str]:
    """The paths of the batch norms of a module, in order."""
    return [path for path, part in module.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def statistics_names(place: str) -> tuple[str, str]:
    """The names of a batch norm's running mean and variance, to which ``@step`` is added."""
    prefix = f"{place}." if place else ""
    return f"{prefix}running_mean", f"{prefix}running_var"


@contextmanager
def task_norms(module: nn.Module) -> Generator[nn.Module]:
    """Within the block the batch norms of `module` take the statistics of each batch, or those that `using` says.

    >>> import torch
    >>> net = nn.BatchNorm1d(1).eval()
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> with task_norms(net):
    ...     net(x).flatten().round().tolist()
    [-1.0, 1.0]
    >>> net(x).flatten().round().tolist(), net.running_mean.item()
    ([1.0, 3.0], 0.0)
    """
    parts = [(path, module.get_submodule(path)) for path in norm_paths(module)]
    kinds = [type(part) for _, part in parts]
    try:
        for path, part in parts:
            part.path = path  # type: ignore[assignment]
            if not isinstance(part, _TaskNorm):
                part.__class__ = _TaskNorm
        yield module
    finally:
        for (_, part), kind in zip(parts, kinds, strict=True):
            part.__class__ = kind


@contextmanager
def recording() -> Generator[Statistics]:
    """Within the block task norms note the mean and variance that they meet, and normalise by plain arithmetic.

    Under `torch.func.vmap` that is needed too: torch 2.13's second derivative of its own batch norm is wrong there.

    >>> import torch
    >>> with task_norms(nn.BatchNorm1d(1)) as net, recording() as seen:
    ...     _ = net(torch.tensor([[1.0], [3.0]]))
    >>> [value.item() for value in seen[""]]
    [2.0, 1.0]
    """
    seen: Statistics = {}
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


def averaged(record: Record) -> dict[int, Statistics]:
    """The mean of the statistics of each inner step.

    >>> from torch import tensor
    >>> averaged({0: [{"": (tensor(1.0), tensor(4.0))}, {"": (tensor(2.0), tensor(2.0))}]})
    {0: {'': (tensor(1.5000), tensor(3.))}}
    """

    def mean(found: list[Statistics], place: str, part: int) -> Tensor:
        return torch.stack([seen[place][part] for seen in found]).mean(0)

    return {
        step: {place: (mean(found, place, 0), mean(found, place, 1)) for place in found[0]}
        for step, found in record.items()
    }


def are_given() -> bool:
    """Whether a block of `using` or `recording` is in force."""
    return _stored.get() or _given.get() is not None or _seen.get() is not None


@contextmanager
def using(statistics: Mapping[str, tuple[Tensor, Tensor]] | Literal["stored"]) -> Generator[None]:
    """Within the block task norms normalise by these statistics, or by those that the network holds."""
    stored = _stored.set(statistics == "stored")
    token = _given.set(None if isinstance(statistics, str) else statistics)
    try:
        yield
    finally:
        _given.reset(token)
        _stored.reset(stored)

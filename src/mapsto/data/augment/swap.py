"""Exchange single values between two rows of a class: each stays one that the class has, in a row that it never was in.

Rows of a class are paired at random, ``x'_i[c] = x_j[c]`` and ``x'_j[c] = x_i[c]`` for each column c with a probability (as swap noise
within a class: Yoon, Zhang, Jordon and van der Schaar, "VIME: Extending the Success of Self- and Semi-supervised Learning to Tabular
Domain", 2020, which draws values from rows of any class). A one-hot column is exchanged as a whole.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._base import SampleKind

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Swap"]


class Swap(Augmentation):
    """Rows, some of whose values are another's of the same class in the batch.

    >>> import torch
    >>> rows = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    >>> batch = Drawn(x=rows, targets=torch.tensor([0, 0, 1]), classes=2)
    >>> Swap(probability=0.5).draw(batch, torch.Generator().manual_seed(1)).x.tolist()
    [[2.0, 10.0], [1.0, 20.0], [3.0, 30.0]]
    """

    by_class: ClassVar[bool] = True
    on: ClassVar[tuple[SampleKind, ...]] = ("rows",)
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"probability": 0.1}, {"probability": 0.3})

    probability: float = Field(default=0.1, ge=0, le=1)
    """Of each column of a pair of rows to be exchanged, 0 to 1."""

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        import torch

        from mapsto.data.augment._columns import by_number, known_columns

        x, columns = drawn.x, known_columns(drawn)
        partner = _partners(drawn.targets.cpu(), generator)
        places = torch.arange(len(x))
        exchanged = torch.rand(len(x), columns.count, generator=generator) < self.probability
        mask = by_number(exchanged[torch.minimum(places, partner)], columns).to(x.device).view_as(x)
        return dataclasses.replace(drawn, x=torch.where(mask, x[partner.to(x.device)], x))


def _partners(labels: Tensor, generator: Generator) -> Tensor:
    """With which row each is paired, (N,): one of its class, itself where it is left over."""
    import torch

    shuffled = torch.randperm(len(labels), generator=generator)
    order = shuffled[labels[shuffled].argsort(stable=True)]
    partner = torch.arange(len(labels))
    sizes = labels.unique(return_counts=True)[1].tolist()
    begin = 0
    for size in sizes:
        pairs = order[begin : begin + size // 2 * 2].view(-1, 2)
        partner[pairs[:, 0]], partner[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
        begin += size
    return partner

"""Move rows towards others of their class: between two rows of a class there is more of it.

``x' = x_i + u (x_j − x_i)``, u uniform from 0 to 1 and x_j one of the k rows of the same class in the batch that are nearest to x_i, in
units of each column's spread (Chawla, Bowyer, Hall and Kegelmeyer, "SMOTE: Synthetic Minority Over-sampling Technique", 2002). Categories
are taken whole: x_j's with probability u.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._base import SampleKind

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Smote"]


class Smote(Augmentation):
    """Rows, some of them between themselves and a near one of the same class.

    >>> import torch
    >>> rows = torch.tensor([[0.0, 0.0], [4.0, 4.0], [9.0, 0.0]])
    >>> batch = Drawn(x=rows, targets=torch.tensor([0, 0, 1]), classes=2)
    >>> moved = Smote(probability=1).draw(batch, torch.Generator().manual_seed(0)).x
    >>> bool(moved[0, 0] == moved[0, 1]), 0 < float(moved[0, 0]) < 4, moved[2].tolist()
    (True, True, [9.0, 0.0])
    """

    by_class: ClassVar[bool] = True
    on: ClassVar[tuple[SampleKind, ...]] = ("rows",)
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"probability": 0.5}, {"probability": 1.0})

    neighbours: int = Field(default=5, ge=1, le=100)
    """k; 5 in the paper. Fewer where a class has fewer rows in the batch."""
    probability: float = Field(default=0.5, ge=0, le=1)
    """Of each row to be moved, 0 to 1."""

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        import torch

        from mapsto.data.augment._columns import by_number, known_columns

        x, columns = drawn.x, known_columns(drawn)
        flat = x.flatten(1) if x.is_floating_point() else x.flatten(1).float()
        uniform = torch.rand(3, len(x), 1, generator=generator)
        switched = by_number(torch.rand(len(x), columns.count, generator=generator) < uniform[1], columns)
        spread = torch.as_tensor(columns.spread).clamp_min(1e-12).to(flat)
        near = _near(flat / spread, drawn.targets.to(x.device), self.neighbours, uniform[2, :, 0].to(x.device))
        share = torch.where(torch.as_tensor(columns.categorical), switched.float(), uniform[1])
        share = torch.where(uniform[0] < self.probability, share, 0.0).to(flat)
        moved = flat.lerp(flat[near], share).view_as(x)
        return dataclasses.replace(drawn, x=moved if x.is_floating_point() else moved.round_().to(x.dtype))


def _near(scaled: Tensor, labels: Tensor, neighbours: int, uniform: Tensor) -> Tensor:
    """One of the nearest of its class for each row, (N,), chosen by a number from 0 to 1; itself where its class has no other."""
    import torch

    near = torch.arange(len(labels), device=labels.device)
    for label in labels.unique():
        places = (labels == label).nonzero()[:, 0]
        count = min(neighbours, len(places) - 1)
        if count < 1:
            continue
        distances = torch.cdist(scaled[places], scaled[places]).fill_diagonal_(torch.inf)
        nearest = distances.topk(count, largest=False).indices
        pick = (uniform[places] * count).long().clamp_(max=count - 1)
        near[places] = places[nearest.gather(1, pick[:, None])[:, 0]]
    return near

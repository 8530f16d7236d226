"""Take single values out of rows, so that a network learns to answer from the rest.

``x'[c] = x[c]`` or, with a probability for each column c, what column c has in another row of the batch: a value that is possible, and says
nothing of this row (Bahri, Jiang, Tay and Metzler, "SCARF: Self-Supervised Contrastive Learning using Random Feature Corruption", 2022); or
the column's mean over the training rows, which is what a missing value becomes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._base import SampleKind

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["FeatureDropout"]


class FeatureDropout(Augmentation):
    """Rows without some of their values; a one-hot column is taken out as a whole.

    >>> import torch
    >>> rows = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    >>> dropout = FeatureDropout(probability=0.4, fill="mean")
    >>> dropout.draw(Drawn(x=rows, targets=torch.zeros(3)), torch.Generator().manual_seed(0)).x.tolist()
    [[1.0, 10.0], [2.0, 20.0], [2.0, 30.0]]
    """

    on: ClassVar[tuple[SampleKind, ...]] = ("rows",)
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"probability": 0.1}, {"probability": 0.3})

    probability: float = Field(default=0.1, ge=0, le=1)
    """Of each value to be taken out, 0 to 1; SCARF takes 0.6 where it learns without labels."""
    fill: Literal["row", "mean"] = "row"
    """What stands in its place. `row`: another row's value, always a whole category. `mean`: the column's mean over the training rows, as
    for a missing value: of a one-hot column the shares of its categories, which is no category."""

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        import torch

        from mapsto.data.augment._columns import by_number, known_columns

        x, columns = drawn.x, known_columns(drawn)
        gone = torch.rand(len(x), columns.count, generator=generator) < self.probability
        source = (torch.rand(len(x), columns.count, generator=generator) * len(x)).long().clamp_(max=max(len(x) - 1, 0))
        flat = x.flatten(1)
        if self.fill == "row":
            instead = flat.gather(0, by_number(source, columns).to(x.device))
        else:
            instead = torch.as_tensor(columns.mean, device=x.device, dtype=x.dtype).expand_as(flat)
        mask = by_number(gone, columns).to(x.device)
        return dataclasses.replace(drawn, x=torch.where(mask, instead, flat).view_as(x))

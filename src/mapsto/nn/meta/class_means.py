"""Means of the embeddings of each class, and the linear layer that ranks by the distance to them."""

from __future__ import annotations

import torch
from torch import Tensor

from mapsto.errors import DataError

__all__ = ["centroids", "layer", "members"]


def members(labels: Tensor, ways: int) -> Tensor:
    """Whether each sample is of each class, shape (..., S, ways), of labels (..., S).

    >>> members(torch.tensor([1, 0]), 2).tolist()
    [[False, True], [True, False]]
    """
    return labels.unsqueeze(-1) == torch.arange(ways, device=labels.device)


def centroids(features: Tensor, labels: Tensor, ways: int, *, checked: bool = True) -> Tensor:
    """Class means, shape (..., ways, D), of features (..., S, D) with labels (..., S) from 0 to ways - 1.

    Raises `DataError` where a class has no example; not under `torch.func.vmap`, which needs `checked` to be false, and not
    in an exported program.
    """
    own = members(labels, ways).to(features.dtype)
    counts = own.sum(-2)
    if checked and not torch.compiler.is_exporting() and bool((counts == 0).any()):
        empty = int((counts == 0).nonzero()[0, -1])
        raise DataError(f"class {empty} has no example in the support set", hint="give at least one example of each")
    return own.transpose(-1, -2) @ features / counts.unsqueeze(-1)


def layer(means: Tensor, *, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """The linear layer that ranks as squared distances to `means` (..., ways, D) do: weight (..., ways, D), bias (..., ways)."""
    return 2 * scale * means, -scale * means.square().sum(-1)

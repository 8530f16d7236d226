"""Solve linear systems of which only products with the matrix are known, as implicit differentiation needs it.

Hestenes and Stiefel, "Methods of Conjugate Gradients for Solving Linear Systems", 1952.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

__all__ = ["conjugate_gradient"]


def conjugate_gradient(
    product: Callable[[dict[str, Tensor]], Mapping[str, Tensor]], right: Mapping[str, Tensor], steps: int
) -> dict[str, Tensor]:
    """Find x with ``A x ≈ b`` by `steps` steps from 0, for a symmetric A that is positive definite; b is `right`.

    Nothing depends on values, so that it runs under `torch.func.vmap`.

    >>> x = conjugate_gradient(lambda v: {"a": torch.tensor([2.0, 4.0]) * v["a"]}, {"a": torch.tensor([2.0, 2.0])}, 2)
    >>> [round(value, 4) for value in x["a"].tolist()]
    [1.0, 0.5]
    """
    x = {name: torch.zeros_like(tensor) for name, tensor in right.items()}
    rest = dict(right)
    along = dict(right)
    square = _dot(rest, rest)
    for _ in range(steps):
        image = product(along)
        far = _ratio(square, _dot(along, image))
        x = {name: tensor + far * along[name] for name, tensor in x.items()}
        rest = {name: tensor - far * image[name] for name, tensor in rest.items()}
        before, square = square, _dot(rest, rest)
        turn = _ratio(square, before)
        along = {name: tensor + turn * along[name] for name, tensor in rest.items()}
    return x


def _dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """The quotient, and 0 where the solution is there already."""
    there = b.abs() <= torch.finfo(b.dtype).tiny
    return torch.where(there, torch.zeros_like(a), a / torch.where(there, torch.ones_like(b), b))

"""A linear support vector machine on the embeddings of the support set, differentiable through its optimum.

``min_W ½ Σ_k ‖w_k‖² + C Σ_n ξ_n`` with ``w_{y_n}·x_n − w_k·x_n ≥ [k ≠ y_n] − ξ_n`` (Crammer and Singer, 2001) by its dual
``min_α ½ Σ_k αᵀ_k X Xᵀ α_k − Σ_n α_{n,y_n}`` with ``α_{n,k} ≤ C [k = y_n]``, ``Σ_k α_{n,k} = 0`` and ``w_k = Σ_n α_{n,k} x_n`` (Lee et al.,
"Meta-Learning with Differentiable Convex Optimization", 2019). The optimum is found by a primal-dual interior point method
(Mehrotra, 1992) and differentiated by its conditions (Amos and Kolter, "OptNet", 2017): systems of S × S for every class, never of
(S · ways)².
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mapsto.errors import DomainError
from mapsto.kinds import Adaptation
from mapsto.nn.meta.class_means import members

__all__ = ["dual", "feature_scores", "first_tensors", "head"]

ITERATIONS = 60
"""At most; about 15 are usual."""
TOLERANCE = 1e-12
"""The mean product of a bounded variable and its multiplier, in units of C, at which it stops."""

FLOOR = 1e-8
"""Of the diagonal of the system that gives the gradient, in units of the kernel's."""


def first_tensors(*, scale: float = 1.0) -> dict[str, Tensor]:
    """γ, which multiplies the scores, as a logarithm."""
    return {"~log_scale": torch.tensor(math.log(scale))}


class _System:
    """The linear system of an interior point step: ``K dβ_k + d_k dβ_k + dν = b_k`` for each class, ``Σ_k dβ_k = p``.

    K is (..., S, S), `diagonal` (..., S, ways). It is solved by one factorisation of S × S a class and one more.
    """

    def __init__(self, kernel: Tensor, diagonal: Tensor) -> None:
        blocks = kernel.unsqueeze(-3) + torch.diag_embed(diagonal.transpose(-1, -2))
        self._inverses = torch.linalg.inv(blocks)
        self._across = self._inverses.sum(-3)

    def solve(self, right: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """dβ (..., S, ways) and dν (..., S) for b (..., S, ways) and p (..., S)."""
        free = (self._inverses @ right.transpose(-1, -2).unsqueeze(-1)).squeeze(-1)
        shift = torch.linalg.solve(self._across, (free.sum(-2) - total).unsqueeze(-1))
        moved = free - (self._inverses @ shift.unsqueeze(-3)).squeeze(-1)
        return moved.transpose(-1, -2), shift.squeeze(-1)


class _Dual(torch.autograd.Function):
    """α from the kernel; the distances β = C [k = y] − α to the bounds are at least 0 and of sum C."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, own: Tensor, strength: float) -> Tensor:
        slack, multiplier = _interior_point(kernel, own, strength)
        alpha = strength * own - slack
        ctx.save_for_backward(kernel, alpha, multiplier / slack)
        return alpha

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        kernel, alpha, diagonal = cast("tuple[Tensor, Tensor, Tensor]", ctx.saved_tensors)
        gradient: Tensor = outputs[0]
        # with fewer numbers in an embedding than samples K is singular: a floor keeps what cancels out from growing
        floor = FLOOR * kernel.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        moved, _ = _System(kernel, torch.maximum(diagonal, floor)).solve(
            gradient, gradient.new_zeros(gradient.shape[:-1])
        )
        found = -moved @ alpha.transpose(-1, -2)
        return (found + found.transpose(-1, -2)) / 2, None, None


def _interior_point(kernel: Tensor, own: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """β and its multipliers z, (..., S, ways) both, for ``min ½ Σ_k βᵀ_k K β_k + Σ q β``, β ≥ 0, ``Σ_k β = C``."""
    linear = own - strength * kernel @ own
    beta = torch.full_like(own, strength / own.shape[-1])
    slope = kernel @ beta + linear
    shift = -slope.amin(-1, keepdim=True) + slope.abs().mean() + 1e-3
    z = slope + shift
    shift = shift.squeeze(-1)
    for _ in range(ITERATIONS):
        gap = (beta * z).mean((-1, -2), keepdim=True)
        if float(gap.max()) <= TOLERANCE * strength:
            return beta, z
        system = _System(kernel, z / beta)
        rest, total = kernel @ beta + linear - z + shift.unsqueeze(-1), strength - beta.sum(-1)
        step, _ = system.solve(-z - rest, total)
        change = -z - z / beta * step
        length = torch.minimum(_longest(beta, step), _longest(z, change))
        centred = ((beta + length * step) * (z + length * change)).mean((-1, -2), keepdim=True)
        products = gap * (centred / gap).pow(3) - beta * z - step * change
        step, turn = system.solve(products / beta - rest, total)
        change = (products - z * step) / beta
        length = 0.99 * torch.minimum(_longest(beta, step), _longest(z, change))
        beta, z, shift = beta + length * step, z + length * change, shift + length.squeeze(-1) * turn
        if not bool(torch.isfinite(beta).all()):
            break
    if bool(torch.isfinite(beta).all()) and float((beta * z).mean((-1, -2)).max()) <= 1e-6 * strength:
        return beta, z
    raise DomainError("the support vector machine was not solved", hint="scale the embedding down, or lower strength")


def _longest(values: Tensor, step: Tensor) -> Tensor:
    """The longest step, at most 1, after which every value of a task is at least 0."""
    ratios = torch.where(step < 0, -values / step, torch.inf)
    return ratios.amin((-1, -2), keepdim=True).clamp(max=1.0)


def dual(features: Tensor, labels: Tensor, ways: int, strength: float) -> Tensor:
    """α, shape (..., S, ways), in float64, of features (..., S, D) and labels (..., S); differentiable once in the features.

    Raises `DomainError` where the problem cannot be solved, for features that are not finite or far too large.
    """
    precise = features.double()
    own = members(labels, ways).double()
    return cast("Tensor", _Dual.apply(precise @ precise.transpose(-1, -2), own, strength))


def head(features: Tensor, labels: Tensor, ways: int, adaptation: Adaptation) -> tuple[Tensor, Tensor]:
    """The linear layer of the machine, times γ: weight (..., ways, D), and a bias of 0.

    >>> x, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    >>> weight, _ = head(x, y, 2, Adaptation(method="svm", settings={"strength": 10.0}, tensors=first_tensors()))
    >>> (x @ weight.T).round(decimals=4)
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]])
    """
    strength = cast("float", adaptation.settings.get("strength", 0.1))
    alpha = dual(features, labels, ways, strength).to(features.dtype)
    scale = adaptation.tensors["~log_scale"].to(features).exp() if "~log_scale" in adaptation.tensors else 1.0
    weight = scale * alpha.transpose(-1, -2) @ features
    return weight, weight.new_zeros(weight.shape[:-1])


def feature_scores(
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """Scores (B, Q, ways) with ``settings["strength"]`` for C, by default 0.1."""
    weight, bias = head(support, support_labels, ways, adaptation)
    return query @ weight.transpose(-1, -2) + bias.unsqueeze(-2)

"""Ridge regression on the embeddings of the support set, in closed form and differentiable.

``W = Xᵀ (X Xᵀ + λ I)⁻¹ Y`` for fewer samples than numbers in an embedding, by the identity of Woodbury equal to
``(Xᵀ X + λ I)⁻¹ Xᵀ Y``; ``score(q) = α Wᵀ q + β`` with α, β and λ learned (Bertinetto et al., "Meta-learning with Differentiable
Closed-form Solvers", 2019). X has a column of ones, so that a bias is fitted too; targets that are numbers need no α and β.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mapsto.kinds import Adaptation
from mapsto.nn.meta.class_means import members

__all__ = ["feature_scores", "first_tensors", "head", "inverse", "ridge", "solve"]

PREDICTS_VALUES = True
"""Its labels may be numbers."""
ITERATIONS = 48
"""Of Newton's method for an inverse: enough for a condition number of 1e12, whatever the size."""


def first_tensors(*, penalty: float = 1.0, scale: float = 1.0) -> dict[str, Tensor]:
    """λ and α as logarithms, which keeps them positive, and β = 0."""
    return {
        "~log_penalty": torch.tensor(math.log(penalty)),
        "~log_scale": torch.tensor(math.log(scale)),
        "~bias": torch.tensor(0.0),
    }


def inverse(matrix: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """The inverse of symmetric positive definite matrices (..., S, S) by products alone, as every runtime has them.

    ``X ← X (2 I − A X)`` from ``I / ‖A‖_∞`` squares the error in each step (Schulz, "Iterative Berechnung der reziproken
    Matrix", 1933).

    >>> inverse(torch.tensor([[2.0, 1.0], [1.0, 2.0]])) * 3
    tensor([[ 2., -1.],
            [-1.,  2.]])
    """
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    estimate = identity / matrix.abs().sum(-1).amax(-1)[..., None, None]
    for _ in range(iterations):
        estimate = 2 * estimate - estimate @ (matrix @ estimate)
    return estimate


def solve(matrix: Tensor, target: Tensor) -> Tensor:
    """``A⁻¹ B`` for symmetric positive definite A (..., S, S): by LAPACK, in an exported program by `inverse`."""
    if not torch.compiler.is_exporting():
        return torch.linalg.solve(matrix, target)
    inverted = inverse(matrix)
    solution = inverted @ target
    return solution + inverted @ (target - matrix @ solution)


def ridge(features: Tensor, targets: Tensor, penalty: Tensor | float) -> Tensor:
    """Weights (..., D, K) that map features (..., S, D) to targets (..., S, K), the smaller of both systems solved.

    >>> ridge(torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [4.0]]), 5.0)
    tensor([[1.]])
    """
    samples, size = features.shape[-2:]
    across = features.transpose(-1, -2)
    if samples < size:
        identity = torch.eye(samples, dtype=features.dtype, device=features.device)
        return across @ solve(features @ across + penalty * identity, targets)
    identity = torch.eye(size, dtype=features.dtype, device=features.device)
    return solve(across @ features + penalty * identity, across @ targets)


def head(features: Tensor, labels: Tensor, ways: int, adaptation: Adaptation) -> tuple[Tensor, Tensor]:
    """The linear layer that was fitted: weight (..., ways, D) and bias (..., ways).

    Features are (..., S, D), labels (..., S) of classes or targets (..., S, ways).

    >>> x, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    >>> weight, bias = head(x, y, 2, Adaptation(method="ridge", tensors=first_tensors(penalty=1e-6)))
    >>> (x @ weight.T + bias).round(decimals=4)
    tensor([[1., 0.],
            [0., 1.]])
    """
    tensors = {name: tensor.to(features) for name, tensor in adaptation.tensors.items()}
    classes = not labels.is_floating_point()
    targets = members(labels, ways).to(features.dtype) if classes else labels.to(features.dtype)
    padded = torch.cat([features, torch.ones_like(features[..., :1])], -1)
    solution = ridge(padded, targets, tensors["~log_penalty"].exp()).transpose(-1, -2)
    weight, bias = solution[..., :-1], solution[..., -1]
    if not classes:
        return weight, bias
    scale = tensors["~log_scale"].exp()
    return scale * weight, scale * bias + tensors["~bias"]


def feature_scores(
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """Scores (B, Q, ways), or predicted numbers where the labels are numbers."""
    weight, bias = head(support, support_labels, ways, adaptation)
    return query @ weight.transpose(-1, -2) + bias.unsqueeze(-2)

"""What an adversary may do: move an input within a ball, and never out of the values that an image can have.

``x' ∈ {x + δ : ‖δ‖_p ≤ ε} ∩ [low, high]`` with p = ∞ or 2 (Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks",
2018). Inputs are as they are before normalisation, so that ε means the same for every network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.errors import DataError
from mapsto.kinds import Preprocessing
from mapsto.nn.network.preprocess import prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Scores", "Threat", "raw", "scores_of"]

Scores = Callable[[Tensor], Tensor]
"""Inputs (N, ...) before normalisation → scores (N, C), differentiable."""


@dataclass(frozen=True)
class Threat:
    """A ball, and the range that values stay in.

    >>> threat = Threat("linf", 0.1, (0.0, 1.0))
    >>> x = torch.tensor([[0.05, 0.5]])
    >>> threat.within(x, torch.tensor([[-1.0, 0.9]])).tolist()
    [[0.0, 0.6000000238418579]]
    """

    norm: Literal["linf", "l2"]
    epsilon: float
    bounds: tuple[float, float] | None = None
    """The lowest and the highest value; None where there is no limit, as of rows."""

    def within(self, x: Tensor, moved: Tensor) -> Tensor:
        """The inputs nearest to `moved` (N, ...) that may be made of `x`; for L2, first the ball, then the range, which is within both."""
        delta = moved - x
        if self.norm == "linf":
            delta = delta.clamp(-self.epsilon, self.epsilon)
        else:
            delta = delta * (self.epsilon / _length(delta).clamp_min(self.epsilon))
        found = x + delta
        return found if self.bounds is None else found.clamp(*self.bounds)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The move of length 1 in the norm that raises the loss most; zero where there is no gradient."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / _length(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)

    def anywhere(self, x: Tensor) -> Tensor:
        """A random input within the ball, uniform along each value (L∞) or in direction and length (L2). Draws from the global generator.

        Uniform in volume would be all at the surface, in as many dimensions as an image has, and ten steps do not come back from there:
        two points more answers survive.
        """
        if self.norm == "linf":
            return self.within(x, x + (2 * torch.rand_like(x) - 1) * self.epsilon)
        direction = torch.randn_like(x)
        share = torch.rand(len(x), device=x.device)
        lengths = share.view(-1, *[1] * (x.ndim - 1)) * self.epsilon
        return self.within(x, x + direction / _length(direction).clamp_min(1e-12) * lengths)


def raw(
    inputs: NDArray[Any] | Tensor, preprocessing: Preprocessing, *, where: str
) -> tuple[Tensor, tuple[float, float] | None]:
    """Samples as an adversary sees them, float32, and the range of their values: images from 0 to 1, rows as they are.

    Raises `DataError` for images with values outside 0 to 1: an attack that clamps them would be of other images than these.

    >>> raw(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), Preprocessing(channels=1, size=(1, 1)), where="data")
    (tensor([[[[1.]]]]), (0.0, 1.0))
    """
    batch = torch.as_tensor(inputs if isinstance(inputs, Tensor) else np.asarray(inputs))
    if preprocessing.kind != "image":
        return batch.float(), None
    batch = batch.float().div(255) if batch.dtype == torch.uint8 else batch.float()
    low, high = (float(extreme) for extreme in batch.aminmax()) if batch.numel() else (0.0, 1.0)
    if low < 0 or high > 1:
        raise DataError(
            f"images of floats from {low:.3g} to {high:.3g}, where an attack knows black as 0 and white as 1",
            where=where,
            hint="give bytes, or values from 0 to 1 that are not normalised yet",
        )
    return batch, (0.0, 1.0)


def scores_of(module: nn.Module | Callable[[Tensor], Tensor], preprocessing: Preprocessing) -> Scores:
    """A network that takes inputs as they are before normalisation: grey to colour, size and normalisation are within the gradient."""

    def scores(x: Tensor) -> Tensor:
        return module(prepare(x, preprocessing, device=x.device))

    return scores


def _length(delta: Tensor) -> Tensor:
    """The L2 norm of each sample, shaped to divide by."""
    flat = delta.flatten(1).norm(dim=1) if delta.ndim > 1 else delta.abs()
    return flat.view(-1, *[1] * (delta.ndim - 1))

"""What every network here has in common: an embedding, then one linear classifier.

A factory ``package.module:name`` takes JSON values and gives an `Embedder`; its initial weights are drawn from torch's global
generator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError

__all__ = [
    "Embedder",
    "classifier_of",
    "initialise",
    "is_whole",
    "require",
    "require_classes",
    "require_one_of",
    "require_share",
    "require_size",
    "require_whole",
]


class Embedder(nn.Module, ABC):
    """``forward(x) = classifier(embed(x))``.

    `classifier` is an `nn.Linear`, or an `nn.Identity` where the network was made without classes, so that its output is the
    embedding. In training mode `embed` may drop part of the embedding.
    """

    classifier: nn.Linear | nn.Identity
    embedding: int
    """D, the size of the embedding."""

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """The embedding (N, D) of a batch (N, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, classes) of a batch (N, ...); its embedding (N, D) where there are no classes."""
        return self.classifier(self.embed(x))


def classifier_of(embedding: int, classes: int | None) -> nn.Linear | nn.Identity:
    """The last part of a network: a linear layer, or none."""
    return nn.Identity() if classes is None else nn.Linear(embedding, classes)


def initialise(module: nn.Module, *, slope: float = 0.0) -> None:
    """Draw first weights: convolutions normal with variance ``2 / ((1 + slope²) · fan_out)``, linear layers with standard deviation 0.01.

    Biases are 0, batch norm starts as the identity (He et al., "Delving Deep into Rectifiers", 2015; the linear layer as in
    torchvision's VGG). `slope` is that of the leaky rectifiers.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, a=slope, mode="fan_out", nonlinearity="leaky_relu")
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.01)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
        bias = getattr(part, "bias", None)
        if isinstance(part, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)) and isinstance(bias, torch.Tensor):
            nn.init.zeros_(bias)


def require(where: str, name: str, value: object, allowed: str, holds: bool) -> None:
    """Raises `DomainError` that names the argument, what was given and what is allowed, unless it `holds`."""
    if not holds:
        raise DomainError(f"{name} must be {allowed}, got {value!r}", where=where)


def is_whole(value: object, low: int = 1) -> bool:
    """Whether `value` is an integer of at least `low`; a boolean is none.

    >>> is_whole(3), is_whole(0), is_whole(True), is_whole(3.0)
    (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def require_whole(where: str, **values: object) -> None:
    """Raises `DomainError` for the first that is not an integer of at least 1."""
    for name, value in values.items():
        require(where, name, value, "an integer of at least 1", is_whole(value))


def require_classes(where: str, classes: object) -> None:
    """Raises `DomainError` unless `classes` is None or an integer of at least 1."""
    require(
        where, "classes", classes, "an integer of at least 1, or null for none", classes is None or is_whole(classes)
    )


def require_size(where: str, size: int, poolings: int, *, remedy: str) -> int:
    """Pixels that are left of `size` after so many 2×2 poolings. Raises `DomainError` where none is.

    >>> require_size("vgg", 28, 4, remedy="stages")
    1
    """
    left = size // 2**poolings
    if left < 1:
        raise DomainError(
            f"size must be at least {2**poolings} for {poolings} poolings of 2×2, got {size}",
            where=where,
            hint=f"give larger images, or at most {size.bit_length() - 1} {remedy}",
        )
    return left


def require_one_of(where: str, name: str, value: object, options: Sequence[object]) -> None:
    """Raises `DomainError` unless `value` is one of the options."""
    known = any(type(value) is type(option) and value == option for option in options)
    require(where, name, value, f"one of {', '.join(map(str, options))}", known)


def require_share(where: str, name: str, value: object) -> None:
    """Raises `DomainError` unless `value` is a number from 0 to below 1."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    require(where, name, value, "a number from 0 to below 1", number and 0 <= float(value) < 1)

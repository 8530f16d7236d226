"""Replace a network's head by a linear layer that is given the signed square root of the embedding.

``output = W · dropout(r(embedding)) + b`` with ``r(x) = x / √(|x| + 1e-6)``: a few large numbers weigh less (Perronnin, Sánchez and
Mensink, "Improving the Fisher Kernel for Large-Scale Image Classification", 2010). The root is taken before the layer is called, so
that whatever watches the layer sees what its weights are multiplied with.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from mapsto.nn.edits.head import Head

__all__ = ["RootHead", "rooted", "takes_root"]

_LEAST = 1e-6
"""Keeps the root's slope at 0 finite."""


class RootHead(Head):
    """A new head at `path` on the root of the embedding. No tensor follows the old one.

    >>> import torch
    >>> net = RootHead(path="1", inputs=1, outputs=1, bias=False).apply(nn.Sequential(nn.ReLU(), nn.Linear(1, 3)))
    >>> _ = nn.init.constant_(net[1].weight, 1.0)
    >>> net(torch.tensor([[4.0], [9.0]])).round(decimals=3).flatten().tolist()
    [2.0, 3.0]
    """

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` as `Head` does."""
        module = super().apply(module)
        layer = module.get_submodule(self.path)
        layer.register_forward_pre_hook(_take_root)
        object.__setattr__(layer, "mapsto_takes_root", True)
        return module


def takes_root(layer: nn.Module | None) -> bool:
    """Whether a layer is a head that is given the root of the embedding."""
    return getattr(layer, "mapsto_takes_root", False)


def rooted(embedding: Tensor) -> Tensor:
    """The signed square root, with a finite slope everywhere; to what watches the calls of a pass it is one function."""
    if has_torch_function_unary(
        embedding
    ):  # a quantizer between its operations would round small numbers to 0, and divide by it
        return handle_torch_function(rooted, (embedding,), embedding)
    return embedding / (embedding.abs() + _LEAST).sqrt()


def _take_root(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (rooted(cast("Tensor", given[0])), *given[1:])

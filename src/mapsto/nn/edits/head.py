"""Replace a network's head: a new linear layer over its embedding, or none, so that the output is the embedding.

``output = W · dropout(embedding) + b`` with W of shape (outputs, inputs). The new layer's tensors are drawn from torch's global
generator; whoever makes the edit sets them.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit

__all__ = ["Head"]


class Head(Edit):
    """A new head at `path`. No tensor follows the old one.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> Head(path="2", inputs=8, outputs=5).apply(net)(torch.ones(1, 4)).shape
    torch.Size([1, 5])
    >>> Head(path="2", inputs=8, outputs=None).apply(net)(torch.ones(1, 4)).shape
    torch.Size([1, 8])
    """

    path: str = "classifier"
    """Dotted path of the head that is replaced."""
    inputs: int = Field(ge=1)
    """Size of the embedding."""
    outputs: int | None = Field(default=None, ge=1)
    """Number of classes; None for no head: the output is the embedding."""
    bias: bool = True
    """Whether the layer has a bias."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the embedding dropped in training, 0 to 1."""

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` where the head is not there or has another width, or where its result is quantized.

        A head with quantized weights gives way to one in float.
        """
        place, _, name = self.path.rpartition(".")
        try:
            parent, old = module.get_submodule(place), module.get_submodule(self.path)
        except AttributeError as error:
            raise DomainError(str(error), where=self.path, hint="name a module of the network as the head") from error
        if isinstance(old, nn.Linear) and old.in_features != self.inputs:
            raise DomainError(f"the head takes {old.in_features} inputs, not {self.inputs}", where=self.path)
        if any(q.path == self.path and not q.weight for q in getattr(module, "mapsto_quantizers", ())):
            raise DomainError(
                "the head's result is quantized to the old one's range",
                where=self.path,
                hint="replace the head before quantizing",
            )
        new = nn.Identity()
        if self.outputs is not None:
            first = next(module.parameters(), torch.empty(0))
            layer = _DroppingLinear if self.dropout else nn.Linear
            new = layer(self.inputs, self.outputs, bias=self.bias).to(first.device, first.dtype)
            if isinstance(new, _DroppingLinear):
                new.dropout = self.dropout
        setattr(parent, name, new.train(module.training))
        return module

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        return None if name.startswith(f"{self.path}.") else tensor


class _DroppingLinear(nn.Linear):
    """A linear layer that drops part of its input in training; its tensors are named as a plain one's."""

    dropout: float = 0.0

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            input = nn.functional.dropout(input, self.dropout)
        return super().forward(input)

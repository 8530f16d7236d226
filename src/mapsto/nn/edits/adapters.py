"""Add a bottleneck behind blocks of a network: a thin layer down, a ReLU, and one up, added to what the block gives.

``y' = y + U relu(D y + d) + u`` with U and u at 0, so that the output is at first what it was; linear over the features of tokens, 1×1
convolutions over the channels of images (Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", 2019; Rebuffi, Bilen and Vedaldi,
"Efficient Parametrization of Multi-Domain Deep Neural Networks", 2018). The ReLU stands in between: no weight can take it in.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, Literal, cast

from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit, Frozen
from mapsto.nn.edits._adapted_layer import layer_at

__all__ = ["Adapters", "bottlenecks"]


class BlockOutput(Frozen):
    """Where a bottleneck is added."""

    path: str
    """Of the block."""
    size: int = Field(ge=1)
    """Features or channels of what the block gives."""
    layout: Literal["channels", "features"]
    """`channels`: (N, C, H, W); `features`: (N, ..., D)."""


class Adapters(Edit):
    """Bottlenecks behind blocks, each as `adapter` in its block.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(3, 4))
    >>> x = torch.ones(1, 3)
    >>> before = net(x)
    >>> edit = Adapters(blocks=(BlockOutput(path="0", size=4, layout="features"),), width=2)
    >>> torch.equal(edit.apply(net)(x), before), sorted(name for name in net.state_dict() if "adapter" in name)
    (True, ['0.adapter.down.bias', '0.adapter.down.weight', '0.adapter.up.bias', '0.adapter.up.weight'])
    """

    blocks: tuple[BlockOutput, ...] = Field(min_length=1)
    """The blocks and their outputs."""
    width: int = Field(ge=1)
    """Of the bottleneck."""

    def apply(self, module: nn.Module) -> nn.Module:
        """D is drawn from torch's global generator. Raises `DomainError` where a block is not there or has an adapter."""
        for block in self.blocks:
            part = layer_at(module, block.path, where="adapters")
            if hasattr(part, "adapter"):
                raise DomainError(
                    "it has an adapter", where=f"adapters: {block.path}", hint="a block has one bottleneck at most"
                )
            first = next(module.parameters())
            bottleneck = _Bottleneck(block.size, self.width, block.layout).to(first.device, first.dtype)
            cast("Any", part).adapter = bottleneck.train(part.training)
            if not isinstance(part, nn.Sequential):  # which calls it as its last member
                part.__class__ = _with_bottleneck(type(part))
        return module


def bottlenecks(module: nn.Module) -> list[str]:
    """Paths of the blocks that have a bottleneck."""
    return [path.rpartition(".")[0] for path, part in module.named_modules() if isinstance(part, _Bottleneck)]


class _Bottleneck(nn.Module):
    mapsto_trained: ClassVar[tuple[str, ...]] = ("down.weight", "down.bias", "up.weight", "up.bias")

    def __init__(self, size: int, width: int, layout: str) -> None:
        super().__init__()
        features = layout == "features"
        self.down = nn.Linear(size, width) if features else nn.Conv2d(size, width, 1)
        self.up = nn.Linear(width, size) if features else nn.Conv2d(width, size, 1)
        for tensor in self.up.parameters():
            nn.init.zeros_(tensor)

    def forward(self, given: Tensor) -> Tensor:
        return given + self.up(nn.functional.relu(self.down(given)))


@cache
def _with_bottleneck(plain: type[nn.Module]) -> type[nn.Module]:
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        given: Any = plain.forward(self, *args, **kwargs)
        if isinstance(given, tuple):  # a block of transformers may give its attention too
            first, *others = cast("tuple[Any, ...]", given)
            return (self.adapter(first), *others)
        return self.adapter(given)

    return type(f"Adapted{plain.__name__}", (plain,), {"forward": forward})

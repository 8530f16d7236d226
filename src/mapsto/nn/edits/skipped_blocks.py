"""Skip whole blocks: what a block was given is what it gives, and its tensors are dropped.

``x_{l+1} = x_l`` in place of ``x_{l+1} = f_l(x_l)`` (Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than
You Expect", 2024).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit

__all__ = ["SkippedBlocks"]


class SkippedBlocks(Edit):
    """Blocks that let their first argument through. No tensor follows theirs.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> _ = SkippedBlocks(blocks=("0",)).apply(net)
    >>> sorted(net.state_dict())
    ['1.bias', '1.weight']
    """

    blocks: tuple[str, ...] = Field(min_length=1)
    """Paths of the blocks."""

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` where a block is not there."""
        for path in self.blocks:
            place, _, name = path.rpartition(".")
            try:
                module.get_submodule(path)
                setattr(module.get_submodule(place), name, _Skip())
            except AttributeError as error:
                raise DomainError(
                    str(error), where=f"skipped_blocks: {path}", hint="edits replay in the order they were made"
                ) from error
        return module

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        return None if any(name.startswith(f"{path}.") for path in self.blocks) else tensor


class _Skip(nn.Module):
    """Gives its first argument; what else blocks are given (masks, caches) it ignores."""

    def forward(self, value: Tensor, *_: Any, **__: Any) -> Tensor:
        return value

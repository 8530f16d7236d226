"""Gradual unfreezing: the head learns first, then one block more every so many steps, from the top down.

So the blocks that know most are changed last, by gradients from a head that makes sense already (Howard and Ruder, "Universal Language
Model Fine-tuning for Text Classification", 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

__all__ = ["frozen_at", "set_frozen"]


def frozen_at(step: int, blocks: int, every: int) -> int:
    """How many blocks, from the input on, are frozen at a step; every `every` steps there is one less.

    >>> [frozen_at(step, 3, 2) for step in range(6)]
    [2, 2, 1, 1, 0, 0]
    """
    return max(0, blocks - 1 - step // every)


def set_frozen(module: nn.Module, blocks: Sequence[Sequence[str]], count: int) -> None:
    """Let the parameters of all but the first `count` blocks want gradients."""
    for place, block in enumerate(blocks):
        for name in block:
            module.get_parameter(name).requires_grad_(place >= count)

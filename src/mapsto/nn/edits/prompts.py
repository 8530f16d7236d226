"""Put learnt tokens before those of a transformer's blocks, and take their places away behind the last.

``blocks([P; x])[k:]`` with k prompts P of a token's size, which every block's attention reads (Jia et al., "Visual Prompt Tuning", 2022,
the shallow form; Lester, Al-Rfou and Constant, "The Power of Scale for Parameter-Efficient Prompt Tuning", 2021, put them before the
positions are added). Tokens keep their positions.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit
from mapsto.nn.edits._adapted_layer import layer_at

__all__ = ["Prompts", "prompted"]


class Prompts(Edit):
    """Tokens before those of blocks, as `prompts` of theirs.

    The output is another one at once: what is added takes part of the attention.
    """

    path: str
    """Of the blocks: a part that is given tokens (N, L, D), with an ``attention_mask`` or without, and gives as many."""
    count: int = Field(ge=1)
    """k, how many."""
    size: int = Field(ge=1)
    """D, of a token."""

    def apply(self, module: nn.Module) -> nn.Module:
        """They are drawn from torch's global generator. Raises `DomainError` where the blocks are not there or have prompts."""
        blocks = layer_at(module, self.path, where="prompts")
        if hasattr(blocks, "prompts"):
            raise DomainError(
                "they have prompts", where=f"prompts: {self.path}", hint="give them once, and more of them"
            )
        first = next(module.parameters())
        prompts = first.new_empty(self.count, self.size)
        nn.init.trunc_normal_(prompts, std=0.02)
        blocks.register_parameter("prompts", nn.Parameter(prompts))
        blocks.__class__ = _with_prompts(type(blocks))
        return module


def prompted(module: nn.Module) -> list[str]:
    """Paths of the blocks that have prompts."""
    return [path for path, part in module.named_modules() if isinstance(part, _Prompted)]


class _Prompted:
    """Marks blocks with prompts."""

    mapsto_trained: ClassVar[tuple[str, ...]] = ("prompts",)


@cache
def _with_prompts(plain: type[nn.Module]) -> type[nn.Module]:
    def forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Tokens (N, L, D) → (N, L, D), or what holds them as ``last_hidden_state``."""
        prompts: Tensor = self.prompts
        tokens = torch.cat([prompts.expand(hidden_states.shape[0], -1, -1), hidden_states], 1)
        if isinstance(kwargs.get("attention_mask"), Tensor):
            kwargs["attention_mask"] = _wider(kwargs["attention_mask"], len(prompts))
        given: Any = plain.forward(self, tokens, *args, **kwargs)
        if isinstance(given, Tensor):
            return given[:, len(prompts) :]
        if isinstance(given, tuple):
            first, *others = cast("tuple[Any, ...]", given)
            return (first[:, len(prompts) :], *others)
        given.last_hidden_state = given.last_hidden_state[:, len(prompts) :]
        return given

    return type(f"Prompted{plain.__name__}", (_Prompted, plain), {"forward": forward})


def _wider(mask: Tensor, count: int) -> Tensor:
    """A mask of keys (N, L), or of queries and keys (N, 1, L or 1, L), that lets prompts be seen and see what the first token does."""
    seen = True if mask.dtype == torch.bool else 0.0 if mask.is_floating_point() and mask.ndim == 4 else 1
    wide = torch.cat([mask.new_full((*mask.shape[:-1], count), seen), mask], -1)
    if mask.ndim < 4 or mask.shape[2] == 1:
        return wide
    return torch.cat([wide[:, :, :1].expand(-1, -1, count, -1), wide], 2)

"""Copy the top layers of a text encoder beside themselves: one branch stays as it was pretrained, the other is tuned for a task.

``z(x) = [f(h(x)); g(h(x))]`` with the lower layers h, which both share, the top layers f and their copies g. The embedding is twice as
wide, so that a linear head over it can add what heads over both say: an ensemble of a frozen and a tuned encoder (Wortsman et al., "Robust
Fine-Tuning of Zero-Shot Models", 2022, average outputs and weights alike) for the price of a few more layers.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit

__all__ = ["TunedBranch", "untuned_size"]


class TunedBranch(Edit):
    """Copies of the top `count` layers at `path`, as `tuned` inside each; the head gives way, for the embedding is twice as wide.

    What pools behind the layers, which the embedding does not use, is dropped.
    """

    path: str
    """Dotted path of the list of layers."""
    count: int = Field(ge=1)
    """How many of them have a copy, the top ones."""

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` where the layers are not there, or have copies already."""
        try:
            layers = list(cast("nn.ModuleList", module.get_submodule(self.path)))
        except (AttributeError, TypeError) as error:
            raise DomainError(
                f"there is no list of layers ({error})",
                where=self.path,
                hint="edits replay in the order they were made",
            ) from error
        if self.count > len(layers) or any(isinstance(layer, _Branched) for layer in layers):
            raise DomainError(
                f"{self.count} of {len(layers)} layers cannot have a copy, or one has one already",
                where=self.path,
                hint="begin with the encoder as it was pretrained",
            )
        for number, layer in enumerate(layers[-self.count :]):
            _branch(layer, begins=number == 0)
        edited: Any = module
        if isinstance(getattr(edited.encoder, "pooler", None), nn.Module):
            edited.encoder.pooler = None
        edited.branches = 2
        edited.embedding = 2 * edited.embedding
        edited.classifier = nn.Identity()
        return module

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        gone = name.startswith(("classifier.", "encoder.pooler."))
        return None if gone else tensor


def untuned_size(module: nn.Module, size: int) -> int:
    """How many of an embedding's numbers, the first ones, come from the branch that was not tuned; all without branches."""
    return size // int(getattr(module, "branches", 1))


class _Branched:
    """Marks a layer that has a copy beside it: hidden states of both stand side by side in the last dimension."""

    tuned: nn.Module
    begins: bool

    def forward(self, hidden_states: Tensor, *others: Any, **named: Any) -> Any:
        """Hidden states (N, L, D), in the layers behind the first (N, L, 2 D) → (N, L, 2 D)."""
        both = (hidden_states, hidden_states) if self.begins else hidden_states.chunk(2, dim=-1)
        frozen = super().forward(both[0], *others, **named)  # type: ignore[misc]
        tuned = self.tuned(both[1], *others, **named)
        if isinstance(frozen, tuple):
            return (torch.cat([frozen[0], tuned[0]], dim=-1), *frozen[1:])
        return torch.cat([frozen, tuned], dim=-1)


def _branch(layer: nn.Module, *, begins: bool) -> None:
    """Give a layer its copy. Its class changes and no path does, so that every tensor keeps its name."""
    kind = type(layer)
    twin = copy.deepcopy(layer)
    layer.__class__ = type(f"Branched{kind.__name__}", (_Branched, kind), {})
    layer.tuned = twin
    layer.begins = begins  # type: ignore[assignment]

"""Replace a network's head by its labelled examples: those nearest to an input vote.

``output = log p``, ``p_k ∝ ε + Σ_{i among the n nearest} y_ik exp((cos(u, z_i) − cos(u, z_1)) / T)`` with u the root of the embedding
less the examples' mean (Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018). The examples are
tensors of the head; whoever makes the edit sets them.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from mapsto.kinds import Edit
from mapsto.nn.edits.head import Head
from mapsto.nn.edits.root_head import rooted

__all__ = ["NearestHead"]


class NearestHead(Edit):
    """A head at `path` in which examples vote. No tensor follows the old one."""

    path: str = "classifier"
    """Dotted path of the head that is replaced."""
    inputs: int = Field(ge=1)
    """Size of the embedding."""
    examples: int = Field(ge=1)
    """How many examples it holds."""
    outputs: int = Field(ge=1)
    """Number of classes."""
    neighbours: int = Field(ge=1)
    """How many vote, at most `examples`."""
    temperature: float = Field(gt=0)
    """T, in units of a cosine: smaller lets the nearest decide."""
    floor: float = Field(gt=0)
    """ε: what a class without a vote gets, as a share of the nearest example's."""

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` as `Head` does."""
        module = Head(path=self.path, inputs=self.inputs, outputs=None).apply(module)
        place, _, name = self.path.rpartition(".")
        first = next(module.parameters(), torch.empty(0))
        layer = VotingLayer(self).to(first.device, first.dtype).train(module.training)
        setattr(module.get_submodule(place), name, layer)
        return module

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        return None if name.startswith(f"{self.path}.") else tensor


class VotingLayer(nn.Module):
    """The head itself: embeddings (N, inputs) → logarithms of shares (N, outputs)."""

    centre: Tensor
    """What is taken off the root of an embedding, shape (inputs,)."""
    votes: Tensor
    """Whose vote is for which class, shape (examples, outputs)."""

    def __init__(self, edit: NearestHead) -> None:
        super().__init__()
        self.edit = edit
        self.likeness = nn.Linear(edit.inputs, edit.examples, bias=False)
        self.register_buffer("centre", torch.zeros(edit.inputs))
        self.register_buffer("votes", torch.zeros(edit.examples, edit.outputs))

    def forward(self, embedding: Tensor) -> Tensor:
        likeness: Tensor = self.likeness(_unit(rooted(embedding), self.centre))
        edit = self.edit
        return _voted(likeness, self.votes, min(edit.neighbours, edit.examples), edit.temperature, edit.floor)


def _unit(rows: Tensor, centre: Tensor) -> Tensor:
    """Rows less the centre, of length 1; to what watches the calls of a pass it is one function, as is the vote."""
    if has_torch_function((rows, centre)):
        return handle_torch_function(_unit, (rows, centre), rows, centre)
    apart = rows - centre
    return apart / apart.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-12)


def _voted(likeness: Tensor, votes: Tensor, count: int, temperature: float, floor: float) -> Tensor:
    if has_torch_function((likeness, votes)):
        return handle_torch_function(_voted, (likeness, votes), likeness, votes, count, temperature, floor)
    near, which = likeness.topk(count, -1)
    shares = ((near - near[..., :1]) / temperature).exp()
    voted = (votes[which] * shares.unsqueeze(-1)).sum(-2) + floor
    return (voted / voted.sum(-1, keepdim=True)).log()

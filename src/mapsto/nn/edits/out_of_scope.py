"""Give a head one more output, for inputs that are far from all classes.

``s_none = max_k s_k + a (t − max_k cos(z, c_k))`` with z what the head is given, or the first numbers of it, and c_k the mean of it over
the examples of class k: the new output is the highest where the nearest mean is farther than t. The means are tensors of the head;
whoever makes the edit sets them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from mapsto.errors import DomainError
from mapsto.kinds import Edit

__all__ = ["OutOfScope"]


class OutOfScope(Edit):
    """One more output of the head at `path`; its other outputs stay as they are. No tensor is renamed.

    >>> net = OutOfScope(path="0", inputs=2, means=1, threshold=0.5, steepness=10.0).apply(nn.Sequential(nn.Linear(2, 2)))
    >>> _ = nn.init.constant_(net[0].scope.weight, 1.0)
    >>> net(torch.tensor([[1.0, 1.0], [-1.0, -1.0]])).argmax(1).tolist()[1]
    2
    """

    path: str = "classifier"
    """Dotted path of the head."""
    inputs: int = Field(ge=1)
    """How many numbers of what the head is given are compared, the first ones."""
    means: int = Field(ge=1)
    """How many means there are, one a class."""
    threshold: float = Field(ge=-1, le=1)
    """t: an input whose cosine with every mean is below it is out of scope."""
    steepness: float = Field(gt=0)
    """a: how fast it becomes sure of that, in logits for a difference of 1 in cosine."""

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` where the head is not there, or has such an output already."""
        try:
            layer = module.get_submodule(self.path)
        except AttributeError as error:
            raise DomainError(str(error), where=self.path, hint="name the head of the network") from error
        if hasattr(layer, "scope"):
            raise DomainError("the head tells already what is out of scope", where=self.path, hint="leave it out")
        first = next(module.parameters(), torch.empty(0))
        scope = nn.Linear(self.inputs, self.means, bias=False).to(first.device, first.dtype)
        nn.init.zeros_(scope.weight)
        layer.add_module("scope", scope.train(module.training))
        layer.register_forward_hook(self._with_output)
        return module

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        return None if name.startswith(f"{self.path}.scope.") else tensor

    def _with_output(self, layer: nn.Module, given: tuple[Any, ...], scores: Tensor) -> Tensor:
        likeness: Tensor = cast("nn.Module", layer.scope)(_of_length_one(cast("Tensor", given[0])[..., : self.inputs]))
        return _with_none(scores, likeness, self.threshold, self.steepness)


def _of_length_one(rows: Tensor) -> Tensor:
    """Rows of length 1; to what watches the calls of a pass it is one function, as is the new output."""
    if has_torch_function((rows,)):
        return handle_torch_function(_of_length_one, (rows,), rows)
    return rows / rows.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-12)


def _with_none(scores: Tensor, likeness: Tensor, threshold: float, steepness: float) -> Tensor:
    if has_torch_function((scores, likeness)):
        return handle_torch_function(_with_none, (scores, likeness), scores, likeness, threshold, steepness)
    none = scores.amax(-1, keepdim=True) + steepness * (threshold - likeness.amax(-1, keepdim=True))
    return torch.cat([scores, none], -1)

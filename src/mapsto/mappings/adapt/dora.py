"""Give a network low-rank adapters that change each weight's direction, and a number an output for its magnitude.

``W' = m · V / ‖V‖`` with ``V = W + α/r · B A``, B = 0 and m = ‖W‖, so that nothing changes until they are trained (Liu et al., "DoRA:
Weight-Decomposed Low-Rank Adaptation", 2024).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["Dora"]


class Dora(Mapping[Network, Network]):
    """The network with adapters, its output the same; `adapt.finetune` with ``freeze: weights`` trains them, `adapt.merge` merges them.

    >>> from mapsto import networks
    >>> adapted = Dora(rank=2)(networks.conv4(width=4)(seed=0))
    >>> sorted(name for name in adapted.tensors if name.startswith("features.1.0"))
    ['features.1.0.dora_magnitude', 'features.1.0.lora_a', 'features.1.0.lora_b', 'features.1.0.weight']
    """

    version: ClassVar[int] = 2

    rank: int = Field(default=4, ge=1)
    """r, the rank of each change of direction. No more than a layer has inputs and outputs is of use."""
    alpha: float | None = Field(default=None, gt=0)
    """α, which over r scales the change; by default r: a scale of 1."""
    targets: tuple[str, ...] = ()
    """Patterns of module paths, such as ``features.2.*``; by default every linear layer and convolution without groups that the output
    depends on, but the head."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for a pattern without a layer that can be adapted, and where the network is quantized."""
        from mapsto.nn.adapt.adapter_places import float_module, places
        from mapsto.nn.edits._adapted_layer import is_adaptable
        from mapsto.nn.edits.dora import Dora as DoraEdit

        module = float_module(value, where=self.name)
        paths = places(value, module, self.targets, is_adaptable, where=self.name)
        edit = DoraEdit(targets=paths, rank=self.rank, alpha=self.alpha or float(self.rank))
        return value.with_module(edit.apply(module), edit)

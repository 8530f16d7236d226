"""Give a network low-rank adapters: a few parameters a layer by which it can learn something new while its own stay as they are.

``W' = W + α/r · B A`` with A drawn and B = 0, so that nothing changes until they are trained (Hu et al., "LoRA: Low-Rank Adaptation of
Large Language Models", 2022).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["Lora"]


class Lora(Mapping[Network, Network]):
    """The network with adapters, its output the same; ``meta.maml`` with ``adapts: adapters`` then learns over them.

    Pruning slices them with their layers. Folding batch norms and quantizing want them merged first, by `adapt.merge`.

    >>> from mapsto import networks
    >>> network = networks.conv4(width=4)(seed=0)
    >>> adapted = Lora(rank=2)(network)
    >>> sorted(name for name in adapted.tensors if name.startswith("features.1.0"))
    ['features.1.0.lora_a', 'features.1.0.lora_b', 'features.1.0.weight']
    """

    version: ClassVar[int] = 3

    rank: int = Field(default=4, ge=1)
    """r, the rank of each change; 4 in Hu et al. No more than a layer has inputs and outputs is of use."""
    alpha: float | None = Field(default=None, gt=0)
    """α, which over r scales the change; by default r: a scale of 1."""
    targets: tuple[str, ...] = ()
    """Patterns of module paths, such as ``features.2.*``; by default every linear layer and convolution without groups that the output
    depends on, but the head."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for a pattern without a layer that can be adapted, and where the network is quantized."""
        from mapsto.nn.adapt.adapter_places import float_module, places
        from mapsto.nn.edits._adapted_layer import is_adaptable
        from mapsto.nn.edits.lora import Lora as LoraEdit

        module = float_module(value, where=self.name)
        paths = places(value, module, self.targets, is_adaptable, where=self.name)
        edit = LoraEdit(targets=paths, rank=self.rank, alpha=self.alpha or float(self.rank))
        return value.with_module(edit.apply(module), edit)

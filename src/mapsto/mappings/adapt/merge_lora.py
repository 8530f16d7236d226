"""Merge a network's adapters into its weights: `adapt.merge` by its former name, which recipes may hold.

``W ← W + α/r · B A``, the output the same (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022, section 4.1).
"""

from __future__ import annotations

from typing import ClassVar

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.mappings.adapt.merge import Merge

__all__ = ["MergeLora"]


class MergeLora(Mapping[Network, Network]):
    """What `adapt.merge` gives.

    >>> from mapsto import adapt, networks
    >>> network = networks.conv4(width=4)(seed=0)
    >>> sorted(MergeLora()(adapt.lora()(network)).tensors) == sorted(network.tensors)
    True
    """

    version: ClassVar[int] = 3

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for a learner that adapts by its adapters: merged, it could adapt no more."""
        return Merge().apply(value, ctx)

"""Merge a network's low-rank adapters into its weights, which makes it as small and as fast as it was without them.

``W ← W + α/r · B A``, the output the same (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022, section 4.1).
"""

from __future__ import annotations

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["MergeLora"]


class MergeLora(Mapping[Network, Network]):
    """The network without adapters; one that has none comes back as it is.

    >>> from mapsto import adapt, networks
    >>> network = networks.conv4(width=4)(seed=0)
    >>> sorted(MergeLora()(adapt.lora()(network)).tensors) == sorted(network.tensors)
    True
    """

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for a learner that adapts by its adapters: merged, it could adapt no more."""
        from mapsto.nn.edits.lora import adapted_layers
        from mapsto.nn.edits.merge_lora import MergeLora as MergeEdit

        module = value.module()
        paths = tuple(adapted_layers(module))
        if not paths:
            return value
        if value.adaptation is not None and value.adaptation.settings.get("adapts") == "adapters":
            raise DomainError(
                "this learner adapts to a task by its adapters",
                where=self.name,
                hint="adapt it first (adapt.learner), then merge; or train it with adapts: all",
            )
        edit = MergeEdit(targets=paths)
        return value.with_module(edit.apply(module), edit)

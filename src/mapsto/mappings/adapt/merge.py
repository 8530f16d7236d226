"""Merge a network's adapters into its weights, which makes it as small and as fast as it was without them.

``W ← W'`` and ``b ← b'`` of `adapt.lora`, `dora`, `ia3` and `ssf`, the output the same (Hu et al., "LoRA: Low-Rank Adaptation of Large
Language Models", 2022, section 4.1); the marks of `adapt.bitfit` go too.
"""

from __future__ import annotations

from typing import ClassVar

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["Merge"]


class Merge(Mapping[Network, Network]):
    """The network without adapters; one that has none comes back as it is.

    Bottlenecks of `adapt.adapters` and tokens of `adapt.prompts` are in no weight: they stay, and a note says so.

    >>> from mapsto import adapt, networks
    >>> network = networks.conv4(width=4)(seed=0)
    >>> sorted(Merge()(adapt.lora()(network)).tensors) == sorted(network.tensors)
    True
    """

    version: ClassVar[int] = 2

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for a learner that adapts by its adapters: merged, it could adapt no more."""
        from mapsto.nn.edits._adapted_layer import adapted_layers
        from mapsto.nn.edits.adapters import bottlenecks
        from mapsto.nn.edits.bitfit import marked
        from mapsto.nn.edits.merge_adapters import MergeAdapters
        from mapsto.nn.edits.prompts import prompted

        module = value.module()
        for paths, what in ((bottlenecks(module), "bottleneck adapters"), (prompted(module), "prompts")):
            if paths:
                ctx.note(f"{what} at {paths[0]}{' …' if len(paths) > 1 else ''} stay: no weight can take them in")
        targets = (*adapted_layers(module), *marked(module))
        if not targets:
            return value
        if value.adaptation is not None and value.adaptation.settings.get("adapts") == "adapters":
            raise DomainError(
                "this learner adapts to a task by its adapters",
                where=self.name,
                hint="adapt it first (adapt.learner), then merge; or train it with adapts: all",
            )
        edit = MergeAdapters(targets=targets)
        return value.with_module(edit.apply(module), edit)

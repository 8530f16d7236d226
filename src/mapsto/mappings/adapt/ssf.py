"""Scale and shift every layer's and normalisation's output by two learnt numbers a channel.

``y' = γ · y + β`` with γ = 1 and β = 0, so that nothing changes until they are trained; merged they are part of weight and bias (Lian et
al., "Scaling & Shifting Your Features: A New Baseline for Efficient Model Tuning", 2022).
"""

from __future__ import annotations

from typing import ClassVar

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["Ssf"]


class Ssf(Mapping[Network, Network]):
    """The network with scales and shifts, its output the same; `adapt.finetune` with ``freeze: weights`` trains them.

    >>> from mapsto import networks
    >>> adapted = Ssf()(networks.conv4(width=4)(seed=0))
    >>> [name for name in adapted.tensors if name.startswith("features.1") and "ssf" in name]
    ['features.1.0.ssf_scale', 'features.1.0.ssf_shift', 'features.1.1.ssf_scale', 'features.1.1.ssf_shift']
    """

    version: ClassVar[int] = 2

    targets: tuple[str, ...] = ()
    """Patterns of paths; by default every linear layer, convolution, batch norm and layer norm that the output depends on, but the head."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for a pattern without a part that can be scaled, and where the network is quantized."""
        from mapsto.nn.adapt.adapter_places import float_module, places
        from mapsto.nn.edits.ssf import Ssf as SsfEdit
        from mapsto.nn.edits.ssf import can_be_scaled

        module = float_module(value, where=self.name)
        what = "linear layer, convolution or normalisation without adapters"
        edit = SsfEdit(targets=places(value, module, self.targets, can_be_scaled, where=self.name, what=what))
        return value.with_module(edit.apply(module), edit)

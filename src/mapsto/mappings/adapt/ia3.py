"""Give a network a learnt scale for each channel of chosen layers: of keys, values and the perceptrons' hidden features.

``y' = s · y`` with s = 1, so that nothing changes until they are trained (Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better
and Cheaper than In-Context Learning", 2022: IA³). Convolutional networks have no keys: there every convolution's output is scaled.
"""

from __future__ import annotations

from typing import ClassVar

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["Ia3"]

_KEYS_AND_VALUES = {
    "key",
    "value",
    "k",
    "v",
    "k_proj",
    "v_proj",
    "k_lin",
    "v_lin",
    "k_linear",
    "v_linear",
    "kv",
    "qkv",
    "Wqkv",
}
"""Last names of layers that make keys or values, queries beside them in some: their scale is worth no more than that of keys."""
_SECOND = ("fc2", "lin2", "linear2", "down_proj", "wo", "Wo", "output.dense", "ffn_output")
"""Last names of the second layers of perceptrons."""


class Ia3(Mapping[Network, Network]):
    """The network with scales, its output the same; `adapt.finetune` with ``freeze: weights`` trains them, `adapt.merge` merges them.

    >>> from mapsto import networks
    >>> net = networks.vit(size=8, patch=4, depth=1, width=8, heads=2)(seed=0)
    >>> adapted = Ia3()(net)
    >>> {name: tuple(tensor.shape) for name, tensor in adapted.tensors.items() if "ia3" in name}
    {'blocks.0.attention.qkv.ia3_scale': (24,), 'blocks.0.fc2.ia3_scale': (32,)}
    """

    version: ClassVar[int] = 2

    targets: tuple[str, ...] = ()
    """Patterns of paths of layers whose outputs are scaled; by default those that make keys and values, and where none has such a name
    every linear layer and convolution that the output depends on, but the head."""
    inputs: tuple[str, ...] = ()
    """Patterns of paths of layers whose inputs are scaled; by default, where `targets` is left out too, the second layers of the
    perceptrons in a transformer's blocks."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for a pattern without a layer that can be scaled, and where the network is quantized."""
        from mapsto.nn.adapt.adapter_places import float_module, places
        from mapsto.nn.edits._adapted_layer import is_adaptable
        from mapsto.nn.edits.ia3 import Ia3 as Ia3Edit

        module = float_module(value, where=self.name)
        if self.targets or self.inputs:
            scaled = [
                places(
                    value,
                    module,
                    patterns,
                    lambda part, groups=groups: is_adaptable(part, groups=groups),
                    where=self.name,
                )
                if patterns
                else ()
                for patterns, groups in ((self.targets, True), (self.inputs, False))
            ]
            outputs, inputs = scaled[0], tuple(path for path in scaled[1] if path not in scaled[0])
        else:
            known = places(value, module, (), lambda part: is_adaptable(part, groups=True), where=self.name)
            attending = tuple(path for path in known if path.rpartition(".")[2] in _KEYS_AND_VALUES)
            outputs = attending or known
            inputs = tuple(filter(_is_second, known)) if attending else ()
        edit = Ia3Edit(outputs=outputs, inputs=inputs)
        return value.with_module(edit.apply(module), edit)


def _is_second(path: str) -> bool:
    """Whether a layer is the second of a perceptron; ``attention.output.dense`` and ``attn.Wo`` are not."""
    attends = any("attention" in part or "attn" in part for part in path.split("."))
    return path.endswith(tuple(f".{name}" for name in _SECOND)) and not attends

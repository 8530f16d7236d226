"""Add a bottleneck of two thin layers behind each block of a network: few parameters, and a nonlinear change.

``y' = y + U relu(D y + d) + u`` with U = 0 and u = 0, so that nothing changes until they are trained (Houlsby et al., "Parameter-Efficient
Transfer Learning for NLP", 2019; behind each block, as Pfeiffer et al., "AdapterFusion", 2021; 1×1 convolutions on images, as Rebuffi et
al., "Efficient Parametrization of Multi-Domain Deep Neural Networks", 2018).
"""

from __future__ import annotations

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["Adapters"]


class Adapters(Mapping[Network, Network]):
    """The network with bottlenecks, its output the same; `adapt.finetune` with ``freeze: weights`` trains them.

    They cannot be merged, for a ReLU stands in between: the network stays larger, and is exported, pruned and quantized with them.

    >>> from mapsto import networks
    >>> adapted = Adapters(width=2)(networks.conv4(width=4)(seed=0))
    >>> [name for name in adapted.tensors if "features.1.adapter" in name]
    ['features.1.adapter.down.weight', 'features.1.adapter.down.bias', 'features.1.adapter.up.weight', 'features.1.adapter.up.bias']
    """

    width: int = Field(default=16, ge=1)
    """Of the bottleneck; 8 to 64 in Houlsby et al."""
    targets: tuple[str, ...] = ()
    """Patterns of paths of blocks, such as ``blocks.*``; by default every member of the network's sequences and lists that holds layers."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for a pattern without a part that can have an adapter, without blocks, and where it is quantized."""
        from mapsto.nn.adapt.adapter_places import block_outputs, blocks, float_module
        from mapsto.nn.edits.adapters import Adapters as AdaptersEdit

        module = float_module(value, where=self.name)
        known = blocks(module)
        paths = self._named([path for path, _ in module.named_modules() if path]) if self.targets else known
        if not paths:
            raise DomainError(
                "the network has no blocks of layers",
                where=self.name,
                hint="name parts behind which adapters go by targets, or use adapt.ssf or adapt.lora",
            )
        edit = AdaptersEdit(blocks=block_outputs(value, module, paths, where=self.name), width=self.width)
        return value.with_module(edit.apply(module), edit)

    def _named(self, known: list[str]) -> list[str]:
        from fnmatch import fnmatchcase

        for pattern in self.targets:
            if not any(fnmatchcase(path, pattern) for path in known):
                raise DomainError(
                    f"no part is called '{pattern}'",
                    where=f"{self.name}: targets",
                    hint=f"such as {', '.join(known[:4])}",
                )
        return [path for path in known if any(fnmatchcase(path, pattern) for pattern in self.targets)]

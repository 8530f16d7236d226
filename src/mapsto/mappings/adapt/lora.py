"""Give a network low-rank adapters: a few parameters a layer by which it can learn something new while its own stay as they are.

``W' = W + α/r · B A`` with A drawn and B = 0, so that nothing changes until they are trained (Hu et al., "LoRA: Low-Rank Adaptation of
Large Language Models", 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import Mapping

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Lora"]


class Lora(Mapping[Network, Network]):
    """The network with adapters, its output the same; ``meta.maml`` with ``adapts: adapters`` then learns over them.

    Pruning slices them with their layers. Folding batch norms and quantizing want them merged first, by `adapt.merge_lora`.

    >>> from mapsto import networks
    >>> network = networks.conv4(width=4)(seed=0)
    >>> adapted = Lora(rank=2)(network)
    >>> sorted(name for name in adapted.tensors if name.startswith("features.1.0"))
    ['features.1.0.lora_a', 'features.1.0.lora_b', 'features.1.0.weight']
    """

    rank: int = Field(default=4, ge=1)
    """r, the rank of each change; 4 in Hu et al. No more than a layer has inputs and outputs is of use."""
    alpha: float | None = Field(default=None, gt=0)
    """α, which over r scales the change; by default r: a scale of 1."""
    targets: tuple[str, ...] = ()
    """Patterns of module paths, such as ``features.2.*``; by default every linear layer and convolution but the head."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for a pattern without a layer that can be adapted, and where the network is quantized."""
        from mapsto.nn.edits.lora import Lora as LoraEdit
        from mapsto.nn.edits.quantizers import is_quantized

        module = value.module()
        if is_quantized(module):
            raise DomainError("the network is quantized", where=self.name, hint="add adapters before quantizing")
        edit = LoraEdit(targets=self._paths(module), rank=self.rank, alpha=self.alpha or float(self.rank))
        return value.with_module(edit.apply(module), edit)

    def _paths(self, module: nn.Module) -> tuple[str, ...]:
        from fnmatch import fnmatchcase

        from mapsto.nn.edits.lora import is_adaptable
        from mapsto.nn.network.head import head_path

        own = head_path(module)
        known = [path for path, part in module.named_modules() if is_adaptable(part)]
        if not self.targets:
            found = [path for path in known if path != own]
        else:
            for pattern in self.targets:
                if not any(fnmatchcase(path, pattern) for path in known):
                    raise DomainError(
                        f"no linear layer or convolution without adapters is called '{pattern}'",
                        where=f"{self.name}: targets",
                        hint=f"such as {', '.join(known[:4]) or 'none at all'}",
                    )
            found = [path for path in known if any(fnmatchcase(path, pattern) for pattern in self.targets)]
        if not found:
            raise DomainError(
                "the network has no layer that can be adapted",
                where=self.name,
                hint="adapters go with linear layers and convolutions without groups, once, and not with the head by default",
            )
        return tuple(found)

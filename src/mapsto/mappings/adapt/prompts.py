"""Put learnt tokens before those of a transformer: all that is trained beside the head is what they say.

``blocks([P; x])[k:]`` with k prompts P (Jia et al., "Visual Prompt Tuning", 2022, the shallow form; Lester, Al-Rfou and Constant, "The
Power of Scale for Parameter-Efficient Prompt Tuning", 2021).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["Prompts"]


def _transformer() -> Network:
    """For the contract suite: a network that has tokens."""
    from mapsto import discovery

    source = discovery.find("mappings", "networks.vit")
    return source(size=8, patch=4, channels=1, depth=1, width=8, heads=2, classes=3)(seed=0)


class Prompts(Mapping[Network, Network]):
    """The transformer with prompts; `adapt.finetune` with ``freeze: weights`` trains them.

    Its output is another one at once, for they take part of the attention before they have learnt anything. They cannot be merged: the
    network has as many more tokens to compute, and is exported, pruned and quantized with them.

    >>> network = _transformer()
    >>> adapted = Prompts(count=3)(network)
    >>> adapted.tensors["blocks.prompts"].shape, adapted.signature == network.signature
    (torch.Size([3, 8]), True)
    """

    contract_input: ClassVar[object] = staticmethod(_transformer)

    count: int = Field(default=10, ge=1)
    """k, how many tokens; 1 to 200 in Jia et al., chosen by held-out images."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for a network without tokens, one that is quantized, and one whose blocks take no more tokens."""
        from mapsto.nn.adapt.adapter_places import float_module, token_blocks
        from mapsto.nn.edits.prompts import Prompts as PromptsEdit
        from mapsto.nn.network.examples import example_batch

        module = float_module(value, where=self.name)
        path, size = token_blocks(value, module, where=self.name)
        edit = PromptsEdit(path=path, count=self.count, size=size)
        edit.apply(module)
        try:
            module(example_batch(value))
        except (RuntimeError, ValueError) as error:
            raise DomainError(
                f"its blocks cannot take more tokens: {str(error).splitlines()[0]}",
                where=f"{self.name}: {path}",
                hint="some have a position for each token, or look at windows of them: use adapt.lora or adapt.ssf",
            ) from error
        return value.with_module(module, edit)

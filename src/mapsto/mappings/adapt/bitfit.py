"""Mark a network's biases as what `adapt.finetune` trains while its weights stay as they are: nothing is added.

``min_b loss(f_{W, b})`` with W frozen; the shifts of normalisations are biases too (Ben Zaken, Goldberg and Ravfogel, "BitFit: Simple
Parameter-efficient Fine-tuning for Transformer-based Masked Language-models", 2022).
"""

from __future__ import annotations

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["Bitfit"]


class Bitfit(Mapping[Network, Network]):
    """The network with marks at its biases, its output the same; `adapt.merge` takes the marks away.

    >>> from mapsto import datasets, networks
    >>> from mapsto.mappings.adapt.finetune import Finetune
    >>> few = datasets.subset(data=datasets.digits(size=16), per_class=2)
    >>> before = Bitfit()(networks.conv4(data=few, width=4, classes=10)(seed=0))
    >>> after = Finetune(data=few, epochs=1, folds=None, freeze="weights")(before, seed=0)
    >>> sorted({name.rpartition(".")[2] for name, tensor in after.tensors.items() if not tensor.equal(before.tensors[name])})
    ['bias', 'weight']
    >>> [name for name, tensor in after.tensors.items() if name.endswith("weight") and not tensor.equal(before.tensors[name])]
    ['classifier.weight']
    """

    targets: tuple[str, ...] = ()
    """Patterns of paths of the parts whose biases learn; by default all that the output depends on, but the head, which learns anyway."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for a pattern without a part that has a bias, and where the network is quantized or has no biases."""
        from mapsto.nn.adapt.adapter_places import float_module, places
        from mapsto.nn.edits.bitfit import Bitfit as BitfitEdit
        from mapsto.nn.edits.bitfit import biases_of

        module = float_module(value, where=self.name)
        paths = places(
            value,
            module,
            self.targets,
            lambda part: bool(biases_of(part)),
            where=self.name,
            what="part with a bias",
            called=False,
        )
        edit = BitfitEdit(targets=paths)
        return value.with_module(edit.apply(module), edit)

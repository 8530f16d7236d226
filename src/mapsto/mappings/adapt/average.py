"""Take the average of a tuned network and of the one that it was tuned from: often as right as the better of both, and more robust.

``θ = (1 − α) θ₀ + α θ₁`` tensor by tensor, with θ₀ the network before fine-tuning (its embedding frozen, its head fitted) and θ₁ after
(Wortsman et al., "Robust Fine-Tuning of Zero-Shot Models", 2022: WiSE-FT). It costs nothing when the network is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network, Samples
from mapsto.mapping import DataSource, Mapping, NetworkSource

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Average"]

_SHARES = tuple(step / 10 for step in range(11))


class Average(Mapping[Network, Network]):
    """The tuned network that is given, averaged with `base`, which has the same layers and classes.

    >>> from mapsto import adapt, datasets, networks
    >>> few = datasets.subset(data=datasets.digits(size=16), per_class=5)
    >>> base = adapt.linear(data=few)(networks.conv4(data=few, width=8)())
    >>> tuned = adapt.finetune(data=few, epochs=1)(base)
    >>> half = Average(base=base, share=0.5)(tuned)
    >>> name = "classifier.bias"
    >>> bool((half.tensors[name] * 2 - base.tensors[name] - tuned.tensors[name]).abs().max() < 1e-6)
    True
    """

    base: NetworkSource
    """θ₀: the network that the given one was tuned from."""
    share: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = "auto"
    """α: the tuned network's share. `auto`: of 0, 0.1, …, 1 the likeliest for `validation`; without that, 0.5."""
    validation: DataSource | None = None
    """Labelled examples that neither network has learnt from."""

    @staticmethod
    def contract_input() -> Network:
        """What the contract suite tunes from its `base`: the same network, other weights."""
        from mapsto import discovery

        return discovery.find("mappings", "networks.conv4")(channels=1, size=16, width=4, classes=10)(seed=1)

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` where the networks have other layers or classes, `DataError` for validation data without labels."""
        import dataclasses

        base = ctx.network(self.base)
        self._require_alike(base, value)
        share = self.share
        if share == "auto":
            share = 0.5 if self.validation is None else self._likeliest(base, value, ctx.dataset(self.validation), ctx)
            if self.validation is None:
                ctx.note(
                    "share: 0.5 is taken; give `validation`, examples that neither network has learnt from, to have it chosen"
                )
        return dataclasses.replace(value, tensors=_between(base, value, share), adaptation=None)

    def _require_alike(self, base: Network, value: Network) -> None:
        """Raises `DomainError` where an average of tensors means nothing."""
        found = None
        if (base.arch, base.edits) != (value.arch, value.edits):
            found = "the networks are built differently"
        elif base.signature.classes != value.signature.classes:
            found = "the networks are for different classes"
        elif any(base.tensors[name].shape != tensor.shape for name, tensor in value.tensors.items()):
            found = "the networks' tensors have different shapes"
        if found:
            raise DomainError(
                found,
                where="adapt.average",
                hint="give as `base` the network that the other was tuned from, with its head: adapt.ridge >> adapt.finetune",
            )

    def _likeliest(self, base: Network, value: Network, samples: Samples, ctx: Context) -> float:
        import dataclasses

        from mapsto.data.checks import require_alike, require_labelled, require_some
        from mapsto.nn.adapt.cross_validation import accuracy, log_loss
        from mapsto.nn.network.inference import forward

        where = "adapt.average: validation"
        labels = require_labelled(require_some(samples, where=where), where=where)
        require_alike(value.signature.classes, samples.classes, where=where)
        losses: dict[float, float] = {}
        right: dict[float, float] = {}
        for share in ctx.track(_SHARES, total=len(_SHARES), what="shares"):
            module = dataclasses.replace(value, tensors=_between(base, value, share)).module()
            scores = forward(module, samples.inputs, value.signature.preprocessing, device=ctx.device).double().numpy()
            losses[share], right[share] = log_loss(scores, labels), accuracy(scores, labels)
        best = min(losses, key=losses.__getitem__)
        ctx.note(
            f"share: {best:g} of the tuned network was chosen on {len(labels)} validation examples: log-loss {losses[best]:.3f} and "
            f"{100 * right[best]:.1f} % right, {losses[0.0]:.3f} and {100 * right[0.0]:.1f} % before tuning, {losses[1.0]:.3f} and "
            f"{100 * right[1.0]:.1f} % after"
        )
        return best


def _between(base: Network, value: Network, share: float) -> dict[str, Tensor]:
    """Every tensor of floats between both networks' (running statistics too); whole numbers are the tuned one's. Tied ones stay tied."""
    made: dict[int, Tensor] = {}
    for name, tensor in value.tensors.items():
        if id(tensor) not in made:
            first = base.tensors[name]
            made[id(tensor)] = first.lerp(tensor, share) if tensor.is_floating_point() else tensor
    return {name: made[id(tensor)] for name, tensor in value.tensors.items()}

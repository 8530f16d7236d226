"""Fit the head to the source's features as they would lie in the target: with its mean and its covariance, in closed form.

``a(z) = (z − μ_s) C_s^{-1/2} C_t^{1/2} + μ_t`` of the embedding z, then logistic regression on a(z) and the source's labels (Sun, Feng and
Saenko, "Return of Frustratingly Easy Domain Adaptation", 2016). The embedding stays as it is. With labelled samples of other classes than
the source's the target's features are given the source's mean and covariance instead, in which a ridge regression on few samples weighs
directions as the source spreads in them; that is folded into the head.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.nn.transfer.domains import UNLABELLED, DomainFields

__all__ = ["Coral"]


class Coral(DomainFields, Mapping[Network, Network]):
    """A network with a head for the target; nothing is trained by gradients.

    >>> from mapsto import datasets, networks
    >>> digits = datasets.digits(size=8)
    >>> source = datasets.subset(data=digits, per_class=10)
    >>> target = datasets.subset(data=digits, per_class=10, seed=1)
    >>> embedding = networks.conv4(channels=1, size=8, width=4, blocks=1)(seed=0)
    >>> Coral(source=source, target=target, strength=0.1)(embedding).signature.classes == digits.open().classes
    True
    """

    strength: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """C of the logistic regression: the inverse of its penalty. `auto`: the likeliest of several for samples of the source that were not
    learnt from."""

    contract: ClassVar[dict[str, Any]] = {"target": UNLABELLED, "strength": 0.1}

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DataError` for fewer than two classes, an empty class, NaN or a target of other samples, `DomainError` where there is no
        embedding.
        """
        from mapsto.nn.adapt.features import features
        from mapsto.nn.transfer.coral import aligning
        from mapsto.nn.transfer.domains import domains_of
        from mapsto.nn.transfer.heads import behind, of_both, of_few, strength_of, with_head_of

        domains = domains_of(value, self, ctx, where=self.name)
        source, target = (features(value, inputs, ctx) for inputs in (domains.source.inputs, domains.target))
        few = None if domains.labelled is None else features(value, domains.labelled.inputs, ctx)
        if few is not None and not domains.shared:
            alignment, samples = aligning(target, source), domains.require_labelled()
            head = of_few(alignment(few), samples.labels, len(samples.classes), root=False)
            return with_head_of(value, samples, behind(alignment, head))
        moved = aligning(source, target)(source)
        labels, classes = domains.source.labels, len(domains.source.classes)
        strength = strength_of(moved, labels, classes, ctx) if self.strength == "auto" else self.strength
        known = None if few is None else (few, domains.renumbered().labels)
        return with_head_of(value, domains.source, of_both((moved, labels), known, classes, strength=strength))

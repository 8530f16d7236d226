"""A way from source to target as a candidate: a network, and what fits its head to some of the labelled samples of the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mapsto.nn.adapt.features import features
from mapsto.nn.adapt.linear_head import LinearHead
from mapsto.nn.transfer.coral import aligning
from mapsto.nn.transfer.features import fresh_features
from mapsto.nn.transfer.heads import behind, of_both, of_few, own_head, strength_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context
    from mapsto.kinds import Network, Samples
    from mapsto.nn.transfer.domains import Domains

__all__ = ["Candidate", "candidate"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A way."""

    network: Network
    """Whose embedding it has."""
    samples: Samples
    """Whose classes the head answers with."""
    fit: Callable[[NDArray[np.int64]], LinearHead]
    """Places of the labelled samples to learn from → a head."""
    few: NDArray[Any]
    """Features (n, D) of the labelled samples of the target."""
    labels: NDArray[np.int64] | None
    """Theirs, as numbers of the head's classes; None where there are none."""

    target: NDArray[Any]
    """Features (M, D) of the target."""

    def whole(self) -> LinearHead:
        """The head that is fitted to all of them."""
        return self.fit(np.arange(len(self.few)))


def candidate(
    name: str, network: Network, domains: Domains, ctx: Context, *, strength: float | Literal["auto"]
) -> Candidate:
    """The head that goes with a way: fitted to the source, with all ways but `source` as it would lie in the target, and to the labelled
    samples; where these have other classes to them alone. Without any a network that was trained keeps its own.
    """
    embedded = _embedding(name)
    few = None if domains.labelled is None else embedded(network, domains.labelled.inputs, ctx)
    if few is not None and (name == "few" or not domains.shared):
        samples = domains.renumbered() if domains.shared else domains.require_labelled()
        fit = _alone(name, network, domains, samples, few, ctx)
        target = embedded(network, domains.target, ctx)
        return Candidate(network=network, samples=samples, fit=fit, few=few, labels=samples.labels, target=target)
    source, classes = embedded(network, domains.source.inputs, ctx), len(domains.source.classes)
    target = embedded(network, domains.target, ctx)
    if name != "source":
        source = aligning(source, target)(source)
    known = (source, domains.source.labels)
    given = None if few is None else domains.renumbered().labels
    trained = own_head(network) if name not in ("source", "coral") else None
    settled = strength
    if settled == "auto":
        settled = strength_of(*known, classes, ctx) if trained is None or few is not None else 1.0

    def of_source(places: NDArray[np.int64]) -> LinearHead:
        if few is not None and given is not None and len(places):
            return of_both(known, (few[places], given[places]), classes, strength=settled)
        return of_both(known, None, classes, strength=settled) if trained is None else trained

    none = np.zeros((0, source.shape[1]))
    return Candidate(
        network=network,
        samples=domains.source,
        fit=of_source,
        few=none if few is None else few,
        labels=given,
        target=target,
    )


def _embedding(name: str) -> Callable[[Network, NDArray[Any], Context], NDArray[Any]]:
    """How a way's embeddings are made: those of the network as it came are kept."""
    return features if name in ("source", "few", "coral") else fresh_features


def _alone(
    name: str, network: Network, domains: Domains, samples: Samples, few: NDArray[Any], ctx: Context
) -> Callable[[NDArray[np.int64]], LinearHead]:
    classes = len(samples.classes)
    if name != "coral":
        return lambda places: of_few(few[places], samples.labels[places], classes)
    alignment = aligning(*(features(network, inputs, ctx) for inputs in (domains.target, domains.source.inputs)))
    moved = alignment(few)
    return lambda places: behind(alignment, of_few(moved[places], samples.labels[places], classes, root=False))

"""The head of a network for the target: fitted to the source's features, to the labelled ones of the target, or to both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.errors import DomainError
from mapsto.nn.adapt import logistic, ridge
from mapsto.nn.adapt.linear_head import LinearHead
from mapsto.nn.transfer.coral import Alignment, aligning
from mapsto.nn.transfer.features import fresh_features

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context
    from mapsto.kinds import Network, Samples
    from mapsto.nn.transfer.domains import Domains

__all__ = ["behind", "of_both", "of_few", "own_head", "strength_of", "with_head_of", "with_labelled"]

_MUCH = 100_000
"""Of more scores, samples times classes, a part of the samples chooses the strength."""


def of_few(features: NDArray[Any], labels: NDArray[np.int64], classes: int, *, root: bool = True) -> LinearHead:
    """A ridge regression on features (N, D) of the target alone."""
    fitted = ridge.fit_rooted if root else ridge.fit
    return LinearHead(*fitted(features, labels, classes), root=root)


def of_both(
    source: tuple[NDArray[Any], NDArray[np.int64]],
    target: tuple[NDArray[Any], NDArray[np.int64]] | None,
    classes: int,
    *,
    strength: float,
) -> LinearHead:
    """A logistic regression on features and labels of the source, and of the target, all of which count as much as all of the source's."""
    if target is None:
        return LinearHead(*logistic.fit(*source, classes, strength=strength))
    features, labels = (np.concatenate([a, b]) for a, b in zip(source, target, strict=True))
    ours, theirs = len(source[1]), len(target[1])
    weights = np.concatenate([np.ones(ours), np.full(theirs, ours / theirs)]) / 2
    return LinearHead(*logistic.fit(features, labels, classes, strength=strength, weights=weights))


def behind(alignment: Alignment, head: LinearHead) -> LinearHead:
    """The head that gives for features what `head`, without a root, gives for aligned ones.

    >>> from mapsto.nn.transfer.coral import Alignment
    >>> alignment = Alignment(np.array([[2.0]]), np.array([1.0]))
    >>> behind(alignment, LinearHead(np.array([[3.0]]), np.array([0.5])))(np.array([[1.0]]))
    array([[9.5]])
    """
    return LinearHead(head.weight @ alignment.matrix.T, head.bias + head.weight @ alignment.shift)


def strength_of(features: NDArray[Any], labels: NDArray[np.int64], classes: int, ctx: Context) -> float:
    """C of a logistic regression, the likeliest of several for samples that were not learnt from; it is noted."""
    most = max(_MUCH // classes, 2 * classes)
    if len(labels) > most:
        drawn = ctx.random("strength").permutation(len(labels))[:most]
        features, labels = features[drawn], labels[drawn]
    strength, _ = logistic.chosen(features, labels, classes, ctx.random("folds"))
    ctx.note(f"strength: {strength:g} was chosen by cross-validated log-loss on the source")
    return strength


def with_head_of(value: Network, samples: Samples, head: LinearHead) -> Network:
    """The network with that head for the classes of `samples`."""
    from mapsto.nn.adapt.examples import Examples, with_linear_head

    examples = Examples.of(samples, np.zeros((0, head.weight.shape[1]), np.float32))
    return with_linear_head(value, examples, head.weight, head.bias, root=head.root)


def own_head(network: Network) -> LinearHead:
    """The head that a network has. Raises `DomainError` where it has none that is linear."""
    from mapsto.nn.edits.root_head import takes_root
    from mapsto.nn.network.head import head

    linear = head(network.module())
    if linear is None:
        raise DomainError("the network has no linear head", hint="give it one first (adapt.linear)")
    weight = linear.weight.detach().double().numpy()
    bias = np.zeros(len(weight)) if linear.bias is None else linear.bias.detach().double().numpy()  # pyright: ignore[reportUnnecessaryComparison]
    return LinearHead(weight, bias, root=takes_root(linear))


def with_labelled(trained: Network, domains: Domains, ctx: Context) -> Network:
    """A network that answers with the source's classes, with a head that knows the labelled samples of the target too.

    Without any it stays as it is. Of shared classes both domains are learnt from, of others the labelled samples alone. The source's
    features are given the target's mean and covariance, since the network's norms are the target's.
    """
    if domains.labelled is None:
        return trained
    few = fresh_features(trained, domains.labelled.inputs, ctx)
    if not domains.shared:
        head = of_few(few, domains.labelled.labels, len(domains.labelled.classes))
        return with_head_of(trained, domains.labelled, head)
    source, classes = domains.source, len(domains.source.classes)
    ours, theirs = (fresh_features(trained, inputs, ctx) for inputs in (source.inputs, domains.target))
    known = (aligning(ours, theirs)(ours), source.labels)
    strength = strength_of(*known, classes, ctx)
    return with_head_of(trained, source, of_both(known, (few, domains.renumbered().labels), classes, strength=strength))

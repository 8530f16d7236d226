r"""Which labelled examples an answer of a few-shot classifier rests on, and how much each speaks for it.

The head is written through its examples: ``s_k(x) = Σ_i α_ik ⟨φ_i − m, φ(x) − m⟩ + c_k`` with φ what the head is given and m its mean over
the examples, so that example i moves the lead of answer k over the next class j by ``(α_ik − α_jk) ⟨φ_i − m, φ(x) − m⟩``. Of class means
``α`` is known, of ridge and logistic regression it is a multiple of the slope of the loss at each example (Yeh et al., "Representer Point
Selection for Explaining Deep Neural Networks", 2018); of other linear heads it is the smallest α that gives the weights, which is one of
many where there are more examples than numbers. Of a head in which examples vote it is their votes.

What is exact is said to be, what is not is said with the share of the head's weights that the examples account for. How examples shaped the
embedding itself, as where it was fine-tuned, no decomposition of the head tells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.adapt.logistic import normalised, spread_of
from mapsto.nn.adapt.ridge import rooted

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Evidence", "Support", "support_of"]

_EXACT = 1e-3
"""Largest share of a head's weights, as a length, that may be left over where a decomposition counts as exact."""

_CLOSE, _NEAR = 1e-2, 0.2
"""So near a head's own formula is taken for it; the second where any weights could be written through so many examples."""
_SCALES = 10.0 ** (np.arange(-18, 19) / 12)

How = Literal["votes", "class means", "ridge", "logistic", "linear head"]


class Evidence(NamedTuple):
    """What speaks for one answer."""

    answer: int
    """The class of the highest score."""
    against: int
    """The class with the next highest."""
    lead: float
    """By how much the answer's score is higher; of votes, its share of them less the other's."""
    examples: NDArray[np.float64]
    """Of each example the part of the lead that is its own, (N,); below 0 it speaks for the other class."""
    rest: float
    """The part of the lead that is no example's: that of an input like the mean of the examples, and what is not accounted for."""
    likeness: NDArray[np.float64]
    """Of each example the cosine between it and the input, seen from the mean of the examples, (N,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Support:
    """A head and its examples."""

    features: NDArray[np.float64]
    """What the head was given for each example, (N, D)."""
    labels: NDArray[np.int64]
    """(N,)."""
    how: How
    accounted: float
    """Share of the head's weights that the examples account for, 0 to 1."""
    weight: NDArray[np.float64]
    """(K, D); of votes not used."""
    bias: NDArray[np.float64]
    """(K,)."""
    duals: NDArray[np.float64]
    """α, (N, K)."""
    seen: NDArray[np.float64]
    """φ_i − m, what α stands before, (N, D)."""
    mean: NDArray[np.float64]
    """m, (D,)."""
    votes: Votes | None = None
    root: bool = False
    """Whether the head takes the root of the embedding."""

    @property
    def is_exact(self) -> bool:
        """Whether the parts of a lead are those of the very head."""
        return 1 - self.accounted <= _EXACT and self.is_one

    @property
    def is_one(self) -> bool:
        """Whether there is but one such way to share the head among the examples."""
        return self.how != "linear head" or len(self.seen) - 1 <= np.linalg.matrix_rank(self.seen)

    def evidence(self, features: NDArray[Any]) -> Evidence:
        """What speaks for the answer to one input, given its embedding as it comes, (D,)."""
        row = np.asarray(features, np.float64)
        row = rooted(row) if self.root else row
        if self.votes is not None:
            return self.votes.evidence(row)
        scores = self.weight @ row + self.bias
        answer, against = (int(place) for place in np.argsort(-scores, kind="stable")[:2])
        apart = row - self.mean
        parts = (self.duals[:, answer] - self.duals[:, against]) * (self.seen @ apart)
        if self.how == "class means" and self._is_distance:
            parts = self._of_distances(row, answer, against)
        lead = float(scores[answer] - scores[against])
        likeness = normalised(self.features - self.mean) @ normalised(apart[None])[0]
        return Evidence(answer, against, lead, parts, lead - float(parts.sum()), likeness)

    @property
    def _is_distance(self) -> bool:
        return bool(np.any(self.bias))

    def _of_distances(self, row: NDArray[np.float64], answer: int, against: int) -> NDArray[np.float64]:
        """``(s / n_k) (‖φ(x) − m‖² − ‖φ(x) − φ_i‖² + ‖φ_i − c_k‖²)``: they add up to −s ‖φ(x) − c_k‖², but for what classes share."""
        found = np.zeros(len(self.labels))
        from_mean = float(np.square(row - self.mean).sum())
        for number, sign in ((answer, 1.0), (against, -1.0)):
            own = self.labels == number
            half = self.duals[own, number] / 2
            centre = self.features[own].mean(0)
            distances = np.square(self.features[own] - row).sum(1)
            found[own] = sign * half * (from_mean - distances + np.square(self.features[own] - centre).sum(1))
        return found


class Votes(NamedTuple):
    """Examples that vote, as `mapsto.nn.adapt.nearest.Nearest` has them."""

    support: NDArray[np.float64]
    centre: NDArray[np.float64]
    votes: NDArray[np.float64]
    neighbours: int
    temperature: float
    floor: float

    def evidence(self, row: NDArray[np.float64]) -> Evidence:
        """Shares of all votes: those for the answer count up, those for the next class down."""
        likeness = self.support @ normalised((row - self.centre)[None])[0]
        near = np.argsort(-likeness, kind="stable")[: self.neighbours]
        weights = np.zeros(len(likeness))
        weights[near] = np.exp((likeness[near] - likeness[near[0]]) / self.temperature)
        cast = weights[:, None] * self.votes
        total = cast.sum(0) + self.floor
        shares = total / total.sum()
        answer, against = (int(place) for place in np.argsort(-shares, kind="stable")[:2])
        parts = (cast[:, answer] - cast[:, against]) / total.sum()
        return Evidence(answer, against, float(shares[answer] - shares[against]), parts, 0.0, likeness)


def support_of(network: Network, features: NDArray[Any], labels: NDArray[np.int64]) -> Support:
    """The head of a network, written through its examples.

    Parameters
    ----------
    network
        An adapted classifier.
    features
        Embeddings of the examples as they come, (N, D): before the root that some heads take.
    labels
        Class numbers (N,).

    Raises
    ------
    DomainError
        The network has no linear head or head of votes over such embeddings, or the labels are no class each.
    """
    from torch import nn

    from mapsto.nn.edits.nearest_head import VotingLayer
    from mapsto.nn.edits.root_head import takes_root
    from mapsto.nn.network.head import head_path

    module = network.module()
    path = head_path(module)
    layer = module.get_submodule(path) if path is not None else None
    rows = np.asarray(features, np.float64)
    if labels.ndim != 1 or len(labels) != len(rows) or len(labels) < 2:
        raise DomainError(
            "the labels are not one class for each of two examples or more", where="the examples", hint="give classes"
        )
    if isinstance(layer, VotingLayer):
        near, centre, cast = (
            each.detach().double().numpy() for each in (layer.likeness.weight, layer.centre, layer.votes)
        )
        votes = Votes(near, centre, cast, layer.edit.neighbours, layer.edit.temperature, layer.edit.floor)
        taken = rooted(rows)
        empty = np.zeros((0, 0))
        return Support(
            features=taken,
            labels=labels,
            how="votes",
            accounted=1.0,
            weight=empty,
            bias=np.zeros(0),
            duals=empty,
            seen=empty,
            mean=taken.mean(0),
            votes=votes,
            root=True,
        )
    if not isinstance(layer, nn.Linear) or layer.in_features != rows.shape[1]:
        raise DomainError(
            "its head is no linear layer over the examples' embeddings",
            where="the network",
            hint="explain it by occlusion",
        )
    weight = layer.weight.detach().double().numpy()
    own = dict(layer.named_parameters()).get("bias")
    bias = own.detach().double().numpy() if own is not None else np.zeros(len(weight))
    root = takes_root(layer)
    return replace(written_through(rooted(rows) if root else rows, labels, weight, bias), root=root)


def written_through(
    rows: NDArray[np.float64], labels: NDArray[np.int64], weight: NDArray[np.float64], bias: NDArray[np.float64]
) -> Support:
    """A linear head, weight (K, D) and bias (K,), through its examples (N, D): by the first way that gives its weights exactly.

    >>> rows, labels = np.array([[0.0, 1.0], [0.0, 3.0], [2.0, 0.0]]), np.array([0, 0, 1])
    >>> means = np.array([[0.0, 2.0], [2.0, 0.0]])
    >>> found = written_through(rows, labels, 2 * means, -np.square(means).sum(1))
    >>> found.how, found.is_exact, found.evidence(np.array([0.0, 2.0])).examples.round(3).tolist()
    ('class means', True, [0.444, 0.444, 7.111])
    """
    wanted = weight - weight.mean(0)  # what all classes share decides nothing
    size = float(np.linalg.norm(wanted)) or 1.0
    members = np.eye(len(weight))[labels]
    units = normalised(rows)
    views = [(seen, seen - seen.mean(0)) for seen in (rows, units, rows / np.square(spread_of(rows)))]
    ways: list[Callable[[NDArray[np.float64], NDArray[np.float64]], tuple[How, NDArray[np.float64]]]] = [
        lambda seen, _: ("class means", _of_means(seen, members, weight)),
        lambda _, centred: ("ridge", _of_ridge(centred, members, wanted)),
        lambda _, centred: ("logistic", _of_logistic(centred, members, wanted, rows @ weight.T + bias)),
        lambda _, centred: ("linear head", _smallest(centred, wanted)),
    ]
    near = _CLOSE if len(rows) - 1 <= rows.shape[1] else _NEAR
    best = _Way(np.inf, "linear head", members, rows)
    for way in ways:
        for seen, centred in views:
            how, duals = way(seen, centred)
            given = duals.T @ (seen if how == "class means" else centred)
            left = float(np.linalg.norm((given - given.mean(0)) - wanted)) / size
            if left < best.left - _EXACT:
                best = _Way(left, how, duals, centred)
        if best.left <= near:
            break
    return Support(
        features=rows,
        labels=labels,
        how=best.how,
        accounted=max(0.0, 1 - best.left),
        weight=weight,
        bias=bias,
        duals=best.duals,
        seen=best.seen,
        mean=rows.mean(0),
    )


class _Way(NamedTuple):
    """One way to write a head."""

    left: float
    how: How
    duals: NDArray[np.float64]
    seen: NDArray[np.float64]


def _of_means(
    seen: NDArray[np.float64], members: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """α where each weight is a multiple of the sum of its class's examples: (N, K), as nearly as there is one."""
    sums = members.T @ seen
    times = (sums * weight).sum(1) / np.maximum(np.square(sums).sum(1), 1e-30)
    return members * times


def _of_ridge(
    centred: NDArray[np.float64], members: NDArray[np.float64], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """α as ``a Y − b Z W``, residuals of a regression to a multiple of one-hot rows, with the a and b that give the weights best."""
    targets = members - members.mean(0)
    targets = targets - targets.mean(1, keepdims=True)
    answers = centred @ wanted.T
    parts = np.stack([(targets.T @ centred).ravel(), -(answers.T @ centred).ravel()], axis=1)
    (a, b), *_ = np.linalg.lstsq(parts, wanted.ravel(), rcond=None)
    return a * targets - b * answers


def _of_logistic(
    centred: NDArray[np.float64],
    members: NDArray[np.float64],
    wanted: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> NDArray[np.float64]:
    """α as a multiple of ``Y − softmax(t · scores)``, where the slope of the loss is the penalty's; t undoes the scale of the scores."""
    found: list[tuple[float, NDArray[np.float64]]] = []
    for scale in _SCALES:
        powers = np.exp(scale * (scores - scores.max(1, keepdims=True)))
        slopes = members - powers / powers.sum(1, keepdims=True)
        given = slopes.T @ centred
        times = float((given * wanted).sum() / max(float(np.square(given).sum()), 1e-30))
        found.append((float(np.linalg.norm(times * given - wanted)), times * slopes))
    return min(found, key=lambda each: each[0])[1]


def _smallest(centred: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """The α of least length that gives the weights best, (N, K)."""
    return np.linalg.lstsq(centred.T, wanted.T, rcond=1e-8)[0].astype(np.float64)

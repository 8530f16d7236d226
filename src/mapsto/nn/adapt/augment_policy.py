"""``augment: auto``: which random changes help with the user's own few labels, judged on embeddings of changed copies.

A ridge regression is fitted to the training folds and copies of them under a candidate, and judged by the log-loss of the unchanged
examples of the held-out fold. What counts is by how much it lowers the log-loss, less a part of that difference's own standard error over
the examples, so that nothing is chosen for noise (as by the one-standard-error rule: Breiman, Friedman, Olshen and Stone, "Classification
and Regression Trees", 1984); where nothing is left, no augmentation is chosen.

Lists of several operations are not tried: on CIFAR-10 with five labels a class pairs of the best did worse than the best one alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from mapsto.data.augment import Augmentation, Augmentations, AugmentationsOrAuto
from mapsto.data.augment._auto import candidates
from mapsto.errors import DomainError
from mapsto.kinds import Samples, Table
from mapsto.kinds.canonical import without_defaults
from mapsto.nn.adapt import ridge
from mapsto.nn.adapt.cross_validation import folds_of, log_losses

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context
    from mapsto.data.augment._base import SampleKind
    from mapsto.kinds import Network

__all__ = [
    "COPIES",
    "COPIES_WEIGH",
    "Candidate",
    "Choice",
    "Copier",
    "Judge",
    "as_yaml",
    "chosen",
    "copies_of",
    "embedded_copies",
    "lists_for",
    "operations_for",
    "warn_where_destroyed",
    "with_copies",
]

COPIES = 4
"""Copies of each example and candidate; fewer where there are many examples, down to 1."""
COPIES_WEIGH = 2.0
"""What all copies of an example weigh together, against the example itself."""
MOST_COPIES = 1000
"""Copies of all examples under one candidate; of more examples a part, of each class its share, is looked at."""
_AT_ONCE = 2000
"""Copies that are embedded at once."""
FOLDS, REPEATS = 5, 4
RULE = 1.5
"""Standard errors that are taken off the gain. It was chosen by the ten draws of `augment_policy`: 0.5 to 1.5 came within 0.91 to 1.01
points of the oracle, with 1.5 no draw lost, and 0 and 2 were worse."""
_SAME = 1e-6
"""Differences of the log-loss below it are none."""
_COLLAPSE = (0.5, 0.1)
"""Accuracy on copies that is below this share of that on the examples, and by this much, says that an operation destroys the label."""


class Candidate(NamedTuple):
    """A list of operations, and how it was judged."""

    operations: Augmentations
    loss: float
    """Log-loss of held-out examples, in nats."""
    gain: float
    """By how much it is below that without augmentation; mean over the examples."""
    error: float
    """The gain's standard error over the examples."""
    accuracy: float
    """Share of held-out examples that are right."""
    on_copies: float
    """Share of copies of held-out examples that a head without augmentation gets right."""

    destroys: bool = False
    """Whether a head that was not trained on them cannot tell what the copies show."""

    @property
    def sure(self) -> float:
        """The gain less a part of its standard error; below all others where the label is destroyed."""
        return -float("inf") if self.destroys else self.gain - RULE * self.error


class Choice(NamedTuple):
    """What was chosen, and among what."""

    operations: Augmentations
    none: Candidate
    tried: tuple[Candidate, ...]
    """Each candidate, the best first."""


class Settings(NamedTuple):
    """Of the ridge regression on the examples alone."""

    penalty: float
    scale: float

    @staticmethod
    def of(rooted: NDArray[Any], labels: NDArray[Any], classes: int) -> Settings:
        found = ridge.fitted(rooted, labels, classes)
        return Settings(found.penalty, found.scale)


Copier = Callable[[Augmentations], "NDArray[np.floating[Any]]"]
"""Operations → embeddings of the copies, (R, M, N, D): M copies of each example; R is 1, or one for each way of dividing into folds."""


@dataclass(frozen=True)
class Judge:
    """Judges candidates on embeddings (N, D) and class numbers (N,) by the same folds."""

    features: NDArray[Any]
    labels: NDArray[Any]
    classes: int
    folds: NDArray[np.int64]
    """The fold of each example in each way of dividing them, (R, N); −1 for the only example of its class."""
    settings: Settings

    @staticmethod
    def of(features: NDArray[Any], labels: NDArray[Any], classes: int, rng: np.random.Generator) -> Judge:
        """With folds drawn from `rng`."""
        count = max(2, min(FOLDS, int(np.bincount(labels).max())))
        folds = np.stack([folds_of(labels, count, rng) for _ in range(REPEATS)])
        seen = _seen(features)
        return Judge(seen, labels, classes, folds, Settings.of(seen, labels, classes))

    def judged(self, copies: NDArray[Any] | None) -> tuple[NDArray[np.float64], float, float]:
        """Log-loss of each held-out example, (N,), NaN where it is never held out; accuracy; accuracy of the plain head on copies.

        `copies` are embeddings (R, M, N, D), R as of the folds or 1; None for no augmentation.
        """
        rooted = None if copies is None else _seen(copies)
        total, right, seen, on_copies = np.zeros(len(self.labels)), 0, 0, [0, 0]
        ways = [None] if rooted is None else list(rooted)
        grams = [_Gram(self.features, own, self.labels, self.classes) for own in ways]
        for way, folds in enumerate(self.folds):
            own, gram = ways[min(way, len(ways) - 1)], grams[min(way, len(ways) - 1)]
            for fold in range(int(folds.max()) + 1):
                held, kept = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
                if not len(held):
                    continue
                scores = gram.scores(kept, held, self.settings)
                total[held] += log_losses(scores, self.labels[held])
                right, seen = right + int((scores.argmax(1) == self.labels[held]).sum()), seen + len(held)
                if own is not None:
                    told = gram.of_copies(kept, held, self.settings).argmax(1) == np.tile(self.labels[held], len(own))
                    on_copies = [on_copies[0] + int(told.sum()), on_copies[1] + len(told)]
        losses = np.where((self.folds >= 0).all(0), total / len(self.folds), np.nan)
        return losses, right / max(seen, 1), on_copies[0] / max(on_copies[1], 1)

    def candidate(
        self, operations: Augmentations, copies: NDArray[Any], plain: NDArray[np.float64], plain_accuracy: float
    ) -> Candidate:
        """How a list of operations does against the log-losses (N,) and the accuracy without any."""
        losses, accuracy, on_copies = self.judged(copies)
        gains = (plain - losses)[np.isfinite(losses)]
        error = float(gains.std() / np.sqrt(max(len(gains), 1)))
        destroys = _collapses(plain_accuracy, on_copies)
        return Candidate(
            operations, float(np.nanmean(losses)), float(gains.mean()), error, accuracy, on_copies, destroys
        )


def warn_where_destroyed(
    operations: Augmentations,
    features: NDArray[Any],
    labels: NDArray[Any],
    classes: int,
    copies: NDArray[Any],
    ctx: Context,
) -> None:
    """Warn where a head that was fitted without copies (M, N, D) of held-out examples cannot tell what they show."""
    if int(np.bincount(labels).max()) < 2:
        return
    judge = Judge.of(features, labels, classes, ctx.random("augment", "folds"))
    _, plain, _ = judge.judged(None)
    _, _, on_copies = judge.judged(copies[None])
    if _collapses(plain, on_copies):
        ctx.warn(
            f"augment: {as_yaml(operations)} destroys what the label stands for: a head that was fitted without it gets {plain:.0%} of "
            f"held-out examples right, of copies that it changed {on_copies:.0%}; leave out what changes too much, or use augment: auto"
        )


def _collapses(accuracy: float, on_copies: float) -> bool:
    share, least = _COLLAPSE
    return on_copies < min(share * accuracy, accuracy - least)


def lists_for(kind: SampleKind) -> list[Augmentations]:
    """What is tried on such samples: each operation with each of its settings by itself."""
    return [(each,) for each in candidates(kind)]


def chosen(judge: Judge, lists: Sequence[Augmentations], copier: Copier) -> Choice:
    """The list of operations whose log-loss is surest to be below that of none, if it is by more than noise; else the empty one.

    Parameters
    ----------
    judge
        The examples.
    lists
        What is tried.
    copier
        Embeds copies.
    """
    plain, accuracy, _ = judge.judged(None)
    none = Candidate((), float(np.nanmean(plain)), 0.0, 0.0, accuracy, accuracy)
    tried = [judge.candidate(each, copier(each), plain, accuracy) for each in lists]
    best = max(tried, key=lambda each: each.sure, default=none)
    ranked = sorted(tried, key=lambda each: each.loss)
    return Choice(best.operations if best.sure > _SAME else (), none, tuple(ranked))


# ---------------------------------------------------------------------------------------------------- a mapping's `augment`


def operations_for(
    augment: AugmentationsOrAuto, value: Network, samples: Samples, ctx: Context, *, where: str
) -> Augmentations:
    """The operations of a field `augment`: those that are listed, or with ``auto`` those that the examples choose.

    What was chosen is noted and attached to the step, with a table of all candidates and what of them destroys the label.

    Raises `DomainError` where there is nothing to choose by: targets that are no classes, or token ids without a tokenizer.
    """
    if isinstance(augment, tuple):
        return tuple(each.bound(ctx) for each in augment)
    from mapsto.data.augment._apply import sample_kind
    from mapsto.data.augment._words import words_of
    from mapsto.nn.adapt.features import features
    from mapsto.nn.train.label_kinds import kind_of

    kind = sample_kind(samples.inputs)
    if kind_of(samples.labels) != "classification":
        raise DomainError(
            "augment: auto chooses by classes, but the targets are no classes",
            where=where,
            hint="give a list, or leave it out",
        )
    if kind == "texts" and words_of(samples) is None:
        raise DomainError(
            "augment: auto changes words, but the samples are token ids without their tokenizer",
            where=where,
            hint="give datasets.text to a network that carries its tokenizer",
        )
    if int(np.bincount(samples.labels).max()) < 2:
        ctx.warn(
            "augment: auto needs two examples of a class to choose by; there is one of each, so that nothing is augmented"
        )
        return ()
    looked_at = _part(samples, ctx)
    judge = Judge.of(
        features(value, looked_at.inputs, ctx), looked_at.labels, len(samples.classes), ctx.random("augment", "folds")
    )
    lists = lists_for(kind)
    choice = chosen(judge, lists, embedded_copies(value, looked_at, judge.folds, ctx, ahead=lists))
    _tell(choice, len(looked_at), ctx)
    return choice.operations


def copies_of(
    samples: Samples,
    operations: Augmentations,
    count: int,
    seed: Callable[[int], int],
    folds: NDArray[np.int64] | None = None,
) -> NDArray[Any]:
    """Changed copies of raw samples, shape (count, N, ...).

    Parameters
    ----------
    seed
        Number of the copy → what its draws come from.
    folds
        Of the samples, (N,): what takes values from other samples takes them from the same fold, so that none are let in from held-out
        ones. None: from all of them.
    """
    import torch

    from mapsto.data.augment._apply import changed, generator_of
    from mapsto.data.augment._columns import columns_of
    from mapsto.data.augment._words import words_of

    raw, columns = torch.as_tensor(np.asarray(samples.inputs)), columns_of(samples)
    labels = samples.labels if folds is None else samples.labels + len(samples.classes) * (folds + 1)
    targets = torch.as_tensor(labels)

    def copy(number: int) -> NDArray[Any]:
        def generator(place: int) -> Any:
            return generator_of(seed(number) + place)

        return changed(
            operations,
            raw,
            generator,
            targets=targets,
            classes=int(targets.max()) + 1,
            columns=columns,
            words=words_of(samples),
        ).numpy()

    return np.stack([copy(number) for number in range(count)])


def embedded_copies(
    value: Network, samples: Samples, folds: NDArray[np.int64], ctx: Context, *, ahead: Sequence[Augmentations] = ()
) -> Copier:
    """Embeds copies of samples under operations; those `ahead` all at once, which is faster."""
    from mapsto.nn.adapt.features import features

    count = max(1, min(COPIES, MOST_COPIES // max(len(samples), 1)))

    def raw(operations: Augmentations) -> NDArray[Any]:
        """(R · M, N, ...)."""
        ways: list[Any] = list(folds) if any(each.by_class for each in operations) else [None]
        text = " ".join(map(repr, operations))
        made = [
            copies_of(
                samples,
                operations,
                count,
                lambda number, way=way: ctx.seed_for("augment", "auto", text, way, number) >> 8,
                each,
            )
            for way, each in enumerate(ways)
        ]
        return np.concatenate(made)

    known: dict[Augmentations, NDArray[np.float32]] = {}

    def embed(wanted: Sequence[Augmentations]) -> None:
        parts = [raw(operations) for operations in wanted]
        found = features(value, np.concatenate([part.reshape(-1, *part.shape[2:]) for part in parts]), ctx)
        begin = 0
        for operations, part in zip(wanted, parts, strict=True):
            own = found[begin : begin + part.shape[0] * part.shape[1]]
            known[operations] = own.reshape(-1, count, len(samples), found.shape[1])
            begin += len(own)

    def copier(operations: Augmentations) -> NDArray[np.float32]:
        if operations not in known:
            at_once = max(1, _AT_ONCE // (count * len(samples)))
            place = ahead.index(operations) if operations in ahead else 0
            embed(ahead[place : place + at_once] if operations in ahead else [operations])
        return known[operations]

    return copier


def with_copies(
    features: NDArray[Any], labels: NDArray[Any], copies: NDArray[Any], weights: NDArray[Any] | None = None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Embeddings, labels and weights of examples (N, D) and their copies (M, N, D), to fit a head to.

    >>> with_copies(np.zeros((1, 2)), np.array([3]), np.ones((2, 1, 2)))
    (array([[0., 0.],
           [1., 1.],
           [1., 1.]]), array([3, 3, 3]), array([1., 1., 1.]))
    """
    own = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    rows = np.concatenate([features, copies.reshape(-1, features.shape[1])])
    shares = np.concatenate([own, *[own * (COPIES_WEIGH / len(copies))] * len(copies)])
    return rows, np.concatenate([labels] * (len(copies) + 1)), shares


def _seen(features: NDArray[Any]) -> NDArray[np.float64]:
    """What the regression sees of embeddings: their root, of length 1."""
    return _normalised(ridge.rooted(np.asarray(features, np.float64)))


class _Gram:
    """The ridge regression in its dual form: inner products are computed once for all folds.

    ``α = (K_c + λ diag(w)⁻¹)⁻¹ (Y − ȳ)`` with K_c the inner products of centred rows and weights w; the answers to rows z are
    ``k_c(z) α + ȳ``.
    """

    def __init__(self, features: NDArray[Any], copies: NDArray[Any] | None, labels: NDArray[Any], classes: int) -> None:
        count, self._copies = len(features), 0 if copies is None else len(copies)
        rows = features if copies is None else np.concatenate([features, copies.reshape(-1, features.shape[1])])
        self._products, self._count = rows @ rows.T, count
        self._targets = np.tile(ridge.targets_of(labels, classes), (self._copies + 1, 1))
        weight = COPIES_WEIGH / max(self._copies, 1)
        self._weights = np.repeat([1.0, *[weight] * self._copies], count)

    def scores(self, kept: NDArray[Any], held: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
        """Scores (H, K) of held-out examples by the fit to others and all their copies."""
        used = np.concatenate([kept + copy * self._count for copy in range(self._copies + 1)])
        more = 1 + COPIES_WEIGH if self._copies else 1.0  # so that the penalty stays what it was for an example
        return self._solved(used, held, settings.penalty * more, settings.scale)

    def of_copies(self, kept: NDArray[Any], held: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
        """Scores (M · H, K) of copies of held-out examples by the fit to others without copies."""
        asked = np.concatenate([held + copy * self._count for copy in range(1, self._copies + 1)])
        return self._solved(kept, asked, settings.penalty, settings.scale)

    def _solved(self, used: NDArray[Any], asked: NDArray[Any], penalty: float, scale: float) -> NDArray[np.float64]:
        weights, products = self._weights[used], self._products[np.ix_(used, used)]
        shares = weights / weights.sum()
        towards = products @ shares
        middle = shares @ towards
        centred = products - towards[:, None] - towards + middle
        unit = float(shares @ np.diag(centred)) or 1.0
        mean = shares @ self._targets[used]
        dual = np.linalg.solve(centred + np.diag(penalty * unit / weights), self._targets[used] - mean)
        to_asked = self._products[np.ix_(asked, used)]
        return scale * ((to_asked - (to_asked @ shares)[:, None] - towards + middle) @ dual + mean)


def _normalised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def _part(samples: Samples, ctx: Context) -> Samples:
    """All samples, or of many as many of each class as are looked at."""
    from mapsto.data.stratify import share_of_each_class

    if len(samples) <= MOST_COPIES:
        return samples
    chosen_rows = share_of_each_class(samples.labels, MOST_COPIES, ctx.seed_for("augment", "part"))
    return samples.take(np.flatnonzero(chosen_rows))


def _tell(choice: Choice, examples: int, ctx: Context) -> None:
    """Note what was chosen and why, attach the table of candidates, and note what destroys the label."""
    rows = [
        (as_yaml(each.operations), *(round(number, 4) for number in (each.loss, each.gain, each.error)), *_shares(each))
        for each in (choice.none, *choice.tried)
    ]
    columns = ("augment", "log-loss", "below none", "standard error", "accuracy", "accuracy on copies")
    units = {"log-loss": "nats", "accuracy": "%", "accuracy on copies": "%"}
    ctx.attach("augmentation_candidates", Table(columns=columns, rows=tuple(rows), units=units))
    if choice.operations:
        best = next(each for each in choice.tried if each.operations == choice.operations)
        why = (
            f"the cross-validated log-loss falls from {choice.none.loss:.3f} to {best.loss:.3f} "
            f"(by {best.gain:.3f} ± {best.error:.3f}), accuracy from {choice.none.accuracy:.1%} to {best.accuracy:.1%}"
        )
    else:
        best = choice.tried[0]
        why = (
            f"of {len(choice.tried)} candidates none lowers the cross-validated log-loss of {choice.none.loss:.3f} by more than noise; "
            f"the best, {as_yaml(best.operations)}, comes to {best.loss:.3f} (a change of {-best.gain:+.3f} ± {best.error:.3f})"
        )
    ctx.note(f"augment: auto chose `augment: {as_yaml(choice.operations)}` by {examples} examples: {why}")
    lost = [each for each in choice.tried if each.destroys and len(each.operations) == 1]
    if lost:
        least = min(each.on_copies for each in lost)
        ctx.note(
            f"{', '.join(as_yaml(each.operations)[1:-1] for each in lost)}: changed so, what the label stands for is lost. A head gets "
            f"{choice.none.accuracy:.0%} of held-out examples right, of such copies of them as few as {least:.0%}; not chosen, and better "
            "left out of lists for these data"
        )


def _shares(each: Candidate) -> tuple[float, float]:
    return round(100 * each.accuracy, 1), round(100 * each.on_copies, 1)


def as_yaml(operations: Augmentations) -> str:
    """A list of operations in one line, as a recipe takes it.

    >>> from mapsto.data.augment.crop import Crop
    >>> from mapsto.data.augment.flip import Flip
    >>> as_yaml((Flip(), Crop(padding=2))), as_yaml(())
    ('[flip, crop: {padding: 2}]', '[]')
    """

    def one(each: Augmentation) -> str:
        fields = {field.name: getattr(each, field.name) for field in dataclasses.fields(cast("Any", each))}
        changed = ", ".join(
            f"{name}: {json.dumps(value)}" for name, value in without_defaults(type(each), fields).items()
        )
        return f"{each.name}: {{{changed}}}" if changed else each.name

    return f"[{', '.join(map(one, operations))}]"

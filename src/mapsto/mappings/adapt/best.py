"""The head that cross-validation on the labelled examples finds best, of all that need no training of the embedding.

Every way, ridge regression, class means, logistic regression, nearest neighbours, and with a pool of unlabelled samples label propagation,
answers the same held-out examples; the one that did best elsewhere on samples of that kind is taken unless another is better by more than
three standard errors (Stone, "Cross-Validatory Choice and Assessment of Statistical Predictions", 1974; Breiman et al., "Classification and
Regression Trees", 1984), or it needs the pool and the first without is better by more than one. What each came to stands in the report.

Of images a ridge regression on the root of the features comes first. Of texts it is logistic regression on the features as they are, which
suits embeddings of sentences, a pool is asked last, and the name of each class is one more example.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import AugmentationsOrAuto
from mapsto.errors import DomainError, MapstoError
from mapsto.kinds import Network, Table
from mapsto.mapping import DataSource, Mapping
from mapsto.nn.adapt.augmented import refuse_mixed_embeddings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.nn.adapt.choice_of_head import Choice, Way
    from mapsto.nn.adapt.examples import Examples
    from mapsto.nn.adapt.label_names import NamedClasses

__all__ = ["Best"]

_Way = Literal["propagation", "pt_map", "ridge", "plain_ridge", "centroid", "logistic", "nearest"]
_USUAL: tuple[_Way, ...] = ("propagation", "pt_map", "ridge", "centroid", "logistic", "nearest")
_OF_TEXTS: tuple[_Way, ...] = ("logistic", "plain_ridge", "centroid", "propagation", "pt_map")
_COLUMNS = ("way", "accuracy", "± of accuracy", "log-loss", "above the first", "± of that", "taken")


class Best(Mapping[Network, Network]):
    """A head for the classes of `data`, chosen among several ways; the embedding stays as it is, quantized or not.

    Labels that stand each by itself and numbers to predict get a ridge regression.

    >>> from mapsto import datasets, networks
    >>> digits = datasets.digits(size=16)
    >>> reader = Best(data=datasets.subset(data=digits, per_class=4))(networks.conv4(data=digits, width=8)())
    >>> reader.signature.classes == digits.open().classes
    True
    """

    version: ClassVar[int] = 3

    data: DataSource
    """The labelled examples, at least one of each class."""
    unlabelled: DataSource | None = None
    """A pool of samples of the same kind, whose labels are not read."""
    ways: Annotated[tuple[_Way, ...], Field(min_length=1)] | Literal["auto"] = "auto"
    """Which ways are judged, the one that is taken by default first; `propagation` and `pt_map`, both followed by a ridge regression, need
    `unlabelled` and are left out without it; `plain_ridge` goes without the root. `auto`: propagation, pt_map, ridge, centroid, logistic,
    nearest; of texts logistic, plain_ridge, centroid, propagation, pt_map."""
    label_names: Literal["auto", "use", "leave_out"] = "auto"
    """Of texts: whether the name of each class, made readable, is one more example that is learnt from and never judged. `auto`: unless
    held-out examples say that it does harm; with one example a class, unless the names alone are hardly better than chance."""
    open_set: Literal["leave_out", "keep"] = "leave_out"
    """What becomes of samples of the pool that are farther from every labelled example than 95 % of these are from each other."""
    augment: AugmentationsOrAuto = ()
    """Random changes of the examples, whose embeddings the head of a way without a pool is fitted to as well; `auto` chooses them by
    cross-validation. Nearest neighbours and ways with a pool go without."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class counts as much as any other, however few its examples, in the figures that decide and in a head without a
    pool."""

    contract: ClassVar[dict[str, Any]] = {
        "data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 3}},
        "unlabelled": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 5, "seed": 1}},
    }

    def __post_init__(self) -> None:
        refuse_mixed_embeddings(self.augment, where=self.name)

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DataError` for fewer than two classes, an empty class, NaN or a pool of other samples, `DomainError` where there is no
        embedding or no way is left.
        """
        from mapsto.nn.adapt.examples import examples_of, with_linear_head, with_votes
        from mapsto.nn.adapt.linear_head import LinearHead
        from mapsto.nn.adapt.nearest import Nearest

        kinds = ("classification", "multilabel", "regression")
        examples = examples_of(value, self.data, ctx, where=self.name, class_weights=self.class_weights, kinds=kinds)
        if examples.kind != "classification":
            return self._regressed(value, examples, ctx)
        texts = value.signature.preprocessing.kind == "text"
        names = self._names(value, examples, ctx) if texts else None
        choice = self._chosen(value, examples, names, ctx)
        own = None if texts or choice.picked.pool else self._own_mapping(choice.picked.name)
        if own is not None:
            return ctx.apply(own, value)
        head = choice.head(len(examples.samples) + (0 if names is None else len(names.labels)))
        if isinstance(head, LinearHead):
            return with_linear_head(value, examples, head.weight, head.bias, root=head.root)
        if not isinstance(head, Nearest):
            raise MapstoError(f"{choice.picked.name} gives no head that a network can have", where=self.name)
        return with_votes(value, examples, head)

    def _names(self, value: Network, examples: Examples, ctx: Context) -> NamedClasses | None:
        """The embedded names of the classes, where they are used."""
        from mapsto.nn.adapt.label_names import used_names

        if self.label_names == "leave_out":
            return None
        return used_names(value, examples, ctx, judged=self.label_names == "auto")

    def _chosen(self, value: Network, examples: Examples, names: NamedClasses | None, ctx: Context) -> Choice:
        from mapsto.nn.adapt.choice_of_head import choose
        from mapsto.nn.adapt.label_names import with_names
        from mapsto.nn.adapt.text_ways import FEW_FOLDS

        features, labels, weights = with_names(examples, names)
        given = len(labels) - len(examples.labels)
        pool = self._pool(value, examples, ctx)
        ways = self._ways(value, examples, given, weights, ctx)
        ways = [way for way in ways if pool is not None or not way.pool]
        if not ways:
            raise DomainError(
                "no way is left: what `ways` names needs unlabelled samples, and there are none",
                where=self.name,
                hint="give unlabelled, or leave ways out",
            )
        many = value.signature.preprocessing.kind == "text" and len(labels) * examples.outputs > FEW_FOLDS
        choice = choose(
            features,
            labels,
            examples.outputs,
            ctx.random("folds"),
            ways=ways,
            pool=pool,
            weights=examples.weights,
            given=given,
            **({"folds": 3, "repeats": 1} if many else {}),
        )
        ctx.note(f"{choice.picked.name}: {choice.why}")
        rows = tuple(
            (
                each.name,
                100 * each.accuracy,
                100 * each.accuracy_error,
                each.log_loss,
                100 * each.against_usual,
                100 * each.against_usual_error,
                "yes" if each.name == choice.picked.name else "",
            )
            for each in choice.judged
        )
        units = dict.fromkeys(_COLUMNS[1:3], "%") | {"log-loss": "nats"} | dict.fromkeys(_COLUMNS[4:6], "points")
        ctx.attach("ways", Table(columns=_COLUMNS, rows=_known(rows), units=units))
        return choice

    def _ways(
        self, value: Network, examples: Examples, given: int, weights: NDArray[Any] | None, ctx: Context
    ) -> list[Way]:
        from mapsto.nn.adapt.augmented import embedded
        from mapsto.nn.adapt.text_ways import text_ways
        from mapsto.nn.semi.ways import ALL_WAYS

        texts = value.signature.preprocessing.kind == "text"
        known = {way.name.partition(",")[0]: way for way in ALL_WAYS}
        if texts:
            copies = embedded(self.augment, value, examples, ctx, where=self.name)
            known |= {way.name: way for way in text_ways(given, weights, copies)}
        known["plain_ridge"] = known["ridge without the root"]
        asked = self.ways if self.ways != "auto" else _OF_TEXTS if texts else _USUAL
        return [known[name] for name in asked]

    def _own_mapping(self, way: str) -> Mapping[Network, Network] | None:
        """What fits the head of a way with class weights or augmentation; None where neither is asked for."""
        from mapsto.mappings.adapt.centroid import Centroid
        from mapsto.mappings.adapt.linear import Linear
        from mapsto.mappings.adapt.nearest import Nearest
        from mapsto.mappings.adapt.ridge import Ridge

        weights = self.class_weights
        if way == "nearest" and weights != "none":
            return Nearest(data=self.data, class_weights=weights)
        if way == "nearest" or not (self.augment or weights != "none"):
            return None
        if way == "centroid":
            return Centroid(data=self.data, augment=self.augment)
        return (Ridge if way == "ridge" else Linear)(data=self.data, augment=self.augment, class_weights=weights)

    def _pool(self, value: Network, examples: Examples, ctx: Context) -> NDArray[Any] | None:
        """The features of the pool, without samples of no class; None where nothing is left."""
        from mapsto.nn.adapt.features import features
        from mapsto.nn.semi.open_set import kept_of
        from mapsto.nn.semi.pool import labelled_and_pool

        if self.unlabelled is None:
            return None
        _, inputs = labelled_and_pool(self.data, self.unlabelled, ctx, where=self.name)
        found = features(value, inputs, ctx) if len(inputs) else examples.features[:0]
        kept = found[kept_of(examples.features, examples.labels, found, ctx)] if self.open_set == "leave_out" else found
        return kept if len(kept) else None

    def _regressed(self, value: Network, examples: Examples, ctx: Context) -> Network:
        """A ridge regression; a pool without labels is not used for numbers."""
        from mapsto.mappings.adapt.ridge import Ridge

        if self.unlabelled is not None:
            ctx.warn("the pool is not used: labels are guessed for classes alone, and these are not one class each")
        return ctx.apply(Ridge(data=self.data), value)


def _known(rows: tuple[tuple[Any, ...], ...]) -> tuple[tuple[Any, ...], ...]:
    """Rows in which a figure that is not known, as where nothing could be held out, is left empty."""
    return tuple(tuple("" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row) for row in rows)

"""Fit a ridge regression to the embeddings of labelled examples in closed form: the strongest head for few labels, in milliseconds.

``min_W,b  Σ_i ‖W r(z_i) + b − y_i‖² + λ ‖W‖²`` with z the embedding, ``r(x) = sign(x) √|x|`` scaled to length 1, and y the class as a
one-hot vector. The penalty, and the scale at which the softmax of scores is a probability, are chosen by leaving out each example in
turn, which needs no second fit (Hoerl and Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems", 1970; Allen, "The
Relationship between Variable Selection and Data Augmentation and a Method for Prediction", 1974); the root as in Perronnin, Sánchez and
Mensink, "Improving the Fisher Kernel for Large-Scale Image Classification", 2010.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import AugmentationsOrAuto
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping
from mapsto.nn.adapt.augmented import embedded, refuse_mixed_embeddings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.nn.adapt.examples import Examples
    from mapsto.nn.adapt.ridge import RidgeFit

__all__ = ["Ridge"]


class Ridge(Mapping[Network, Network]):
    """A linear head for `data`, of classes, of labels that stand each by itself, or of numbers; the embedding stays as it is.

    >>> from mapsto import datasets, networks
    >>> digits = datasets.digits(size=16)
    >>> reader = Ridge(data=datasets.subset(data=digits, per_class=5))(networks.conv4(data=digits, width=16)())
    >>> reader.signature.classes == digits.open().classes
    True
    """

    version: ClassVar[int] = 2

    data: DataSource
    """The labelled examples, at least one of each class."""
    penalty: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """λ, in units of the mean squared length of a centred embedding. `auto`: 1, or what is clearly better on left-out examples."""
    root: bool | Literal["auto"] = "auto"
    """Whether the head is given the signed root of the embedding. `auto`: of classes, unless left-out examples are clearly against it."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class weighs as much as any other, however few its examples; a class with many is then answered less often."""
    augment: AugmentationsOrAuto = ()
    """Random changes, in order, of copies whose embeddings the head is fitted to as well; `auto`: chosen by the examples, by
    cross-validation."""

    def __post_init__(self) -> None:
        refuse_mixed_embeddings(self.augment, where=self.name)

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DataError` for fewer than two classes, an empty class or NaN, `DomainError` where there is no embedding."""
        from mapsto.nn.adapt.examples import examples_of, with_linear_head

        kinds = ("classification", "multilabel", "regression")
        examples = examples_of(
            value, self.data, ctx, where="adapt.ridge", class_weights=self.class_weights, kinds=kinds
        )
        tried = {
            root: self._fitted(examples, root) for root in ((True, False) if self.root == "auto" else (self.root,))
        }
        root = self._better(tried, usual=examples.kind != "regression")
        found = tried[root]
        if len(found.losses):
            taken = "the root of the embedding" if root else "the embedding as it is"
            other = f" ({tried[not root].losses.mean():.3f} otherwise)" if len(tried) > 1 else ""
            loss = f"{'squared error' if examples.kind == 'regression' else 'log-loss'} {found.losses.mean():.3f}"
            ctx.note(f"ridge on {taken}: {loss} on left-out examples{other}, penalty {found.penalty:.2g}")
            if examples.kind == "classification":
                self._tell_gap(examples, found, root, ctx)
        copies = embedded(self.augment, value, examples, ctx, where=self.name)
        weight, bias = found.weight, found.bias
        if copies is not None:
            weight, bias = self._with_copies(examples, copies, found, root)
        return with_linear_head(value, examples, weight, bias, root=root)

    def _tell_gap(self, examples: Examples, found: RidgeFit, root: bool, ctx: Context) -> None:
        """Say how much better the head is on its examples than on each when it is left out; without their changed copies."""
        from mapsto.nn.adapt import ridge
        from mapsto.nn.train.gap import gap_of_scores

        rows = ridge.rooted(examples.features) if root else examples.features
        fitted = rows @ found.weight.T + found.bias
        ctx.account["gap"] = gap_of_scores(fitted, found.left_out, examples.labels, by="leaving one out at a time")

    def _with_copies(
        self, examples: Examples, copies: NDArray[np.float32], found: RidgeFit, root: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight and bias fitted to examples and copies, with the penalty and the scale that the examples alone gave."""
        from mapsto.nn.adapt import ridge
        from mapsto.nn.adapt.augment_policy import with_copies

        rows, labels, weights = with_copies(examples.features, examples.labels, copies, examples.weights)
        return ridge.fit(
            ridge.rooted(rows) if root else rows,
            labels,
            examples.outputs,
            penalty=found.penalty * (1 + len(copies)),
            scale=found.scale,
            weights=weights,
            normalise=root,
        )

    def _fitted(self, examples: Examples, root: bool) -> RidgeFit:
        from mapsto.nn.adapt import ridge

        rows = ridge.rooted(examples.features) if root else examples.features
        penalty = None if self.penalty == "auto" else self.penalty
        if examples.kind == "classification":
            return ridge.fitted(
                rows, examples.labels, examples.outputs, penalty=penalty, weights=examples.weights, normalise=root
            )
        if examples.kind == "multilabel":
            return ridge.fitted_labels(rows, examples.labels, penalty=penalty, normalise=root)
        return ridge.fitted_values(rows, examples.labels, penalty=penalty, normalise=root)

    def _better(self, tried: dict[bool, RidgeFit], *, usual: bool) -> bool:
        """Whether the root is taken: the usual way unless the other is better by more than one standard error."""
        if len(tried) == 1:
            return next(iter(tried))
        gain = tried[usual].losses - tried[not usual].losses
        if len(gain) < 2:
            return usual
        return usual if gain.mean() <= gain.std(ddof=1) / len(gain) ** 0.5 else not usual

"""Fit a linear classifier to the embeddings of labelled examples: logistic regression with an L2 penalty, the embedding frozen.

``min_W  ½‖W‖² + C Σ_i −log softmax(W z_i + b)[y_i]`` with z the standardised embedding; the standardisation is folded into the layer
(Fan et al., "LIBLINEAR", 2008; as a few-shot baseline: Tian et al., "Rethinking Few-Shot Image Classification", 2020).

The spread of each number over n examples is shrunk towards the spread of all of them: a number that happens to be the same in five
photos would else be divided by nothing, and one huge weight drown the others, in int8 altogether (Schäfer and Strimmer, "A Shrinkage
Approach to Large-Scale Covariance Matrix Estimation", 2005).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context, SilentContext
from mapsto.data.augment import AugmentationsOrAuto
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping
from mapsto.nn.adapt.augmented import embedded, refuse_mixed_embeddings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.nn.adapt.examples import Examples

__all__ = ["Linear"]


class Linear(Mapping[Network, Network]):
    """A linear head for `data`; the embedding stays as it is, quantized or not.

    Labels that stand each by itself get one logistic regression each, numbers a ridge regression with penalty 1 / C.
    """

    version: ClassVar[int] = 3

    data: DataSource
    """The labelled examples, at least one of each class."""
    strength: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """C: the inverse of the penalty; smaller is smoother. `auto`: the likeliest of several for examples that were not learnt from."""
    standardize: bool = True
    """Whether each number of the embedding is scaled to mean 0 and, given enough examples, standard deviation 1 first."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class weighs as much as any other, however few its examples; a class with many is then answered less often."""
    folds: int = Field(default=0, ge=0)
    """Of the cross-validation that says how heads for labels or numbers do on examples that they were not fitted to; 0: it is not said."""
    iterations: int = Field(default=1000, ge=1)
    """At most so many of L-BFGS."""
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
            value, self.data, ctx, where="adapt.linear", class_weights=self.class_weights, kinds=kinds
        )
        copies = embedded(self.augment, value, examples, ctx, where=self.name)
        settled = self._settled(examples, ctx)
        if self.folds and examples.kind != "classification":
            from mapsto.nn.adapt.judged_targets import attach_figures

            quiet = SilentContext(seed=ctx.seed, key=ctx.key, numerics=ctx.numerics)
            attach_figures(examples, self.folds, lambda some: settled.head(some, quiet), ctx)
        return with_linear_head(value, examples, *settled.head(examples, ctx, copies))

    def head(
        self, examples: Examples, ctx: Context, copies: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The weight (K, D) and the bias (K,) that `apply` gives a network; `ctx` is told what was chosen.

        `copies` are embeddings (M, N, D) of changed copies of the examples, of classes alone.
        """
        if examples.kind == "regression":
            return self._fit_values(examples, ctx)
        return self._settled(examples, ctx)._fit_classes(examples, copies)

    def _settled(self, examples: Examples, ctx: Context) -> Linear:
        """With the strength that the examples choose, where it is theirs to choose; numbers choose it in closed form as they are fitted."""
        from mapsto.nn.adapt import logistic

        if self.strength != "auto" or examples.kind == "regression":
            return self
        strength, losses = logistic.chosen(
            examples.features,
            examples.labels,
            examples.outputs,
            ctx.random("folds"),
            weights=examples.weights,
            standardize=self.standardize,
            iterations=self.iterations,
        )
        if losses:
            tried = ", ".join(f"{each:g}: {loss:.3f}" for each, loss in losses.items())
            ctx.note(f"strength: {strength:g} was chosen by cross-validated log-loss ({tried})")
        else:
            ctx.note(f"strength: {strength:g} is taken: with one example a class nothing can be left out to choose it")
        return replace(self, strength=strength)

    def _fit_classes(
        self, examples: Examples, copies: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight (K, D) and bias (K,) over the embedding as it comes, with a strength that is settled."""
        from mapsto.nn.adapt import logistic
        from mapsto.nn.adapt.augment_policy import COPIES_WEIGH, with_copies

        features, labels, weights = examples.features, examples.labels, examples.weights
        usual: dict[str, Any] = {"standardize": self.standardize, "iterations": self.iterations}
        strength = float(self.strength)
        if examples.kind == "multilabel":
            return logistic.fit_labels(features, labels, strength=strength, **usual)
        if copies is not None:
            features, labels, weights = with_copies(features, labels, copies, weights)
            strength /= 1 + COPIES_WEIGH
        return logistic.fit(features, labels, examples.outputs, strength=strength, weights=weights, **usual)

    def _fit_values(self, examples: Examples, ctx: Context) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same of K numbers."""
        import numpy as np

        from mapsto.nn.adapt import ridge
        from mapsto.nn.adapt.logistic import spread_of

        features = np.asarray(examples.features, np.float64)
        spread = spread_of(features) if self.standardize else np.ones(features.shape[1])
        rows = features / spread
        penalty = None if self.strength == "auto" else 1 / (self.strength * ridge.unit_of(rows))
        found = ridge.fitted_values(rows, examples.labels, penalty=penalty)
        if penalty is None:
            strength = 1 / (found.penalty * ridge.unit_of(rows))
            ctx.note(f"strength: {strength:.2g} was chosen by the squared error on left-out examples")
        return found.weight / spread, found.bias

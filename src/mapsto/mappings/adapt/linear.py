"""Fit a linear classifier to the embeddings of labelled examples: logistic regression with an L2 penalty, the embedding frozen.

``min_W  ½‖W‖² + C Σ_i −log softmax(W z_i + b)[y_i]`` with z the standardised embedding; the standardisation is folded into the layer
(Fan et al., "LIBLINEAR", 2008; as a few-shot baseline: Tian et al., "Rethinking Few-Shot Image Classification", 2020).

The spread of each number over n examples is shrunk towards the spread of all of them: a number that happens to be the same in five
photos would else be divided by nothing, and one huge weight drown the others, in int8 altogether (Schäfer and Strimmer, "A Shrinkage
Approach to Large-Scale Covariance Matrix Estimation", 2005).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Linear"]


_PRIOR = 10
"""As many examples the common spread weighs; 10 to 200 were as good for EfficientNet-Lite0 on CIFAR-10 with 20 to 1,000 labels."""
_LEAST = 0.1
"""No number of the embedding is enlarged more than tenfold against the typical one, so that int8 can hold the weights."""


class Linear(Mapping[Network, Network]):
    """A linear head for `data`; the embedding stays as it is, quantized or not.

    Labels that stand each by itself get one logistic regression each, numbers a ridge regression with penalty 1 / C.
    """

    version: ClassVar[int] = 2

    data: DataSource
    """The labelled examples, at least one of each class."""
    strength: float = Field(default=1.0, gt=0)
    """C: the inverse of the penalty; smaller is smoother. scikit-learn's default is 1."""
    standardize: bool = True
    """Whether each number of the embedding is scaled to mean 0 and, given enough examples, standard deviation 1 first."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class weighs as much as any other, however few its examples; a class with many is then answered less often."""
    iterations: int = Field(default=1000, ge=1)
    """At most so many of L-BFGS."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DataError` for fewer than two classes, an empty class or NaN, `DomainError` where there is no embedding."""
        from dataclasses import replace

        from mapsto.data.checks import require_classes, require_finite, require_some
        from mapsto.errors import DomainError
        from mapsto.nn.network.build import taking
        from mapsto.nn.network.dense_outputs import refuse_dense
        from mapsto.nn.network.head import headed, set_head
        from mapsto.nn.network.inference import embeddings
        from mapsto.nn.train.class_weights import note_unequal
        from mapsto.nn.train.label_kinds import ANSWERS, kind_of

        where = "adapt.linear"
        refuse_dense(value.signature, where=where)
        samples = require_some(ctx.dataset(self.data), where=where)
        kind = kind_of(samples.labels)
        if kind == "classification":
            require_classes(samples, at_least=max(2, len(samples.classes)), where=where)
        elif self.class_weights != "none":
            raise DomainError(
                f"class_weights: {self.class_weights}, but the labels are not one class each",
                where=where,
                hint="leave class_weights out",
            )
        require_finite(samples.labels, where=f"{where}: labels")
        require_finite(samples.inputs, where=f"{where}: data")
        if kind == "classification" and self.class_weights == "none":
            note_unequal(samples, ctx)
        module = value.module()
        features = embeddings(module, samples.inputs, value.signature.preprocessing, device=ctx.device)
        module.cpu()
        edit, signature = headed(value, module, samples.classes, fresh=True)
        fit = {"classification": self._fit, "multilabel": self._fit_labels, "regression": self._fit_values}[kind]
        set_head(module, *fit(features.double().numpy(), samples.labels))
        signature = replace(taking(signature, samples), answers=ANSWERS[kind])
        return value.with_module(module, *([edit] if edit else []), signature=signature, adaptation=None)

    def _fit(self, features: NDArray[Any], labels: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """Weight (classes, D) and bias (classes,) over the embedding as it comes."""
        import numpy as np
        import torch
        from sklearn.linear_model import LogisticRegression

        mean, spread = np.zeros(features.shape[1]), np.ones(features.shape[1])
        if self.standardize:
            mean, spread = features.mean(0), _spread(features)
        fitted: Any = LogisticRegression(
            C=self.strength,
            max_iter=self.iterations,
            class_weight="balanced" if self.class_weights == "balanced" else None,
        )
        with warnings.catch_warnings():  # that there are few examples of a class is said of the data, in our words
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            fitted.fit((features - mean) / spread, labels)
        weight, bias = np.asarray(fitted.coef_), np.asarray(fitted.intercept_)
        if len(weight) == 1:  # of two classes scikit-learn gives the second's log-odds
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        weight = weight / spread
        return torch.as_tensor(weight).float(), torch.as_tensor(bias - weight @ mean).float()

    def _fit_labels(self, features: NDArray[Any], labels: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """Weight (K, D) and bias (K,) of K labels; one that all or no examples have keeps those odds."""
        import numpy as np
        import torch

        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for column in labels.T.astype(np.int64):
            if len(np.unique(column)) > 1:
                weight, bias = self._fit(features, column)
                weights.append(weight[1] - weight[0])
                biases.append(bias[1] - bias[0])
            else:
                odds = np.log((column.sum() + 0.5) / (len(column) - column.sum() + 0.5))
                weights.append(torch.zeros(features.shape[1]))
                biases.append(torch.tensor(float(odds)))
        return torch.stack(weights), torch.stack(biases)

    def _fit_values(self, features: NDArray[Any], targets: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """Weight (K, D) and bias (K,) of K numbers."""
        import numpy as np
        import torch
        from sklearn.linear_model import Ridge

        mean, spread = np.zeros(features.shape[1]), np.ones(features.shape[1])
        if self.standardize:
            mean, spread = features.mean(0), _spread(features)
        fitted: Any = Ridge(alpha=1 / self.strength).fit((features - mean) / spread, targets)
        weight = np.asarray(fitted.coef_).reshape(targets.shape[1], -1) / spread
        return torch.as_tensor(weight).float(), torch.as_tensor(np.asarray(fitted.intercept_) - weight @ mean).float()


def _spread(features: NDArray[Any]) -> NDArray[Any]:
    """What each number of the embedding is divided by, shape (D,), from features (n, D): its own spread, shrunk to the common one.

    >>> import numpy as np
    >>> few = np.array([[0.0, 0.0, 2.0], [0.0, 4.0, 0.0]])
    >>> _spread(few).round(2), _spread(np.tile(few, (500, 1))).round(2)
    (array([1.18, 1.43, 1.25]), array([0.13, 1.99, 1.  ]))
    """
    import numpy as np

    own = features.var(0)
    common = float(own.mean())
    if common == 0:
        return np.ones_like(own)
    shrunk = (len(features) * own + _PRIOR * common) / (len(features) + _PRIOR)
    return np.sqrt(np.maximum(shrunk, _LEAST**2 * common))

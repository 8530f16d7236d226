"""How learners adapt: each method is a file in ``mapsto/nn/meta/adaptation/`` that scores queries from a support set.

A method's file provides ``feature_scores`` where the scores depend on the samples only through their embeddings, so that an evaluation
may embed each sample once; else ``episode_scores``.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Protocol, cast

from torch import Tensor, nn

from mapsto.errors import DomainError, SpecError, nearest
from mapsto.kinds import Adaptation
from mapsto.nn.meta import adaptation as methods
from mapsto.nn.network.head import episode_features

__all__ = [
    "CENTROID",
    "EpisodeMethod",
    "FeatureMethod",
    "LinearMethod",
    "StepwiseMethod",
    "TensorMethod",
    "UnlabelledMethod",
    "feature_method",
    "feature_task_scores",
    "linear_method",
    "method",
    "predicts_values",
    "task_scores",
    "tensor_method",
    "unlabelled_method",
]

CENTROID = Adaptation(method="centroid")
"""How a network that was never trained as a learner is used as one: nearest class mean of its embeddings."""


class EpisodeMethod(Protocol):
    """A method that is given the network, as it changes that or its statistics."""

    def episode_scores(
        self,
        module: nn.Module,
        support: Tensor,
        support_labels: Tensor,
        query: Tensor,
        ways: int,
        adaptation: Adaptation,
    ) -> Tensor:
        """Scores (B, Q, ways) for support (B, S, ...), labels (B, S) int64, query (B, Q, ...), prepared as input."""
        ...


class FeatureMethod(Protocol):
    """A method whose scores depend on samples only through their embeddings."""

    def feature_scores(
        self,
        support: Tensor,
        support_labels: Tensor,
        query: Tensor,
        ways: int,
        adaptation: Adaptation,
    ) -> Tensor:
        """Scores (B, Q, ways) from embeddings: support (B, S, D), labels (B, S), query (B, Q, D)."""
        ...


class LinearMethod(FeatureMethod, Protocol):
    """A method whose result is a linear layer on the embedding."""

    def head(
        self,
        features: Tensor,
        labels: Tensor,
        ways: int,
        adaptation: Adaptation,
    ) -> tuple[Tensor, Tensor]:
        """Weight (ways, D) and bias (ways,) from the support set's embeddings (S, D) and labels (S,)."""
        ...


class UnlabelledMethod(FeatureMethod, Protocol):
    """A method that learns from samples without labels too."""

    def unlabelled_scores(
        self,
        support: Tensor,
        support_labels: Tensor,
        query: Tensor,
        unlabelled: Tensor,
        ways: int,
        adaptation: Adaptation,
    ) -> Tensor:
        """Scores (B, Q, ways) from embeddings: support (B, S, D), labels (B, S), query (B, Q, D), unlabelled (B, U, D)."""
        ...


class TensorMethod(Protocol):
    """A method whose result is a network with other tensors."""

    def adapted(
        self,
        module: nn.Module,
        support: Tensor,
        labels: Tensor,
        ways: int,
        adaptation: Adaptation,
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
        """The tensors that differ, by name, and the head where the module gives embeddings."""
        ...


class StepwiseMethod(Protocol):
    """A method that adapts step by step, whose accuracy is a curve over them."""

    def path_scores(
        self,
        module: nn.Module,
        support: Tensor,
        support_labels: Tensor,
        query: Tensor,
        ways: int,
        adaptation: Adaptation,
    ) -> Tensor:
        """Scores (steps + 1, B, Q, ways) before the first step and after each."""
        ...


def method(name: str) -> ModuleType:
    """The file of the method of that name. Raises `SpecError` with the nearest known one.

    >>> method("centroid").__name__
    'mapsto.nn.meta.adaptation.centroid'
    """
    known = [info.name for info in pkgutil.iter_modules(methods.__path__)]
    if name not in known:
        raise SpecError(f"unknown method of adaptation '{name}'", hint=nearest(name, known))
    return importlib.import_module(f"{methods.__name__}.{name}")


def feature_method(name: str) -> FeatureMethod | None:
    """The method of that name if it works on embeddings alone."""
    found = method(name)
    return cast("FeatureMethod", found) if hasattr(found, "feature_scores") else None


def unlabelled_method(name: str) -> UnlabelledMethod | None:
    """The method of that name if it learns from samples without labels too."""
    found = method(name)
    return cast("UnlabelledMethod", found) if hasattr(found, "unlabelled_scores") else None


def predicts_values(name: str) -> bool:
    """Whether the method can predict numbers: one that works on embeddings says so by ``PREDICTS_VALUES = True``.

    >>> predicts_values("ridge"), predicts_values("centroid")
    (True, False)
    """
    return feature_method(name) is None or bool(getattr(method(name), "PREDICTS_VALUES", False))


def task_scores(
    call: nn.Module,
    inputs: Tensor,
    support_labels: Tensor,
    queries: int,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """Scores (B, Q, ways) by a learner for support, query and unlabelled samples side by side, (B, S + Q + U, ...), prepared."""
    shots = support_labels.shape[1]
    if inputs.shape[1] > shots + queries and unlabelled_method(adaptation.method) is not None:
        features: Tensor = call(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
        return feature_task_scores(features, support_labels, queries, ways, adaptation)
    support, query = inputs[:, :shots], inputs[:, shots : shots + queries]
    by_features = feature_method(adaptation.method)
    if by_features is None:
        by_episode = cast("EpisodeMethod", method(adaptation.method))
        return by_episode.episode_scores(call, support, support_labels, query, ways, adaptation)
    support, query = episode_features(call, support, query)
    return by_features.feature_scores(support, support_labels, query, ways, adaptation)


def feature_task_scores(
    features: Tensor,
    support_labels: Tensor,
    queries: int,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """As `task_scores`, from embeddings (B, S + Q + U, D)."""
    found = feature_method(adaptation.method)
    if found is None:
        raise DomainError(f"the method {adaptation.method} does not work on embeddings")
    shots = support_labels.shape[1]
    support, query, rest = features.tensor_split((shots, shots + queries), 1)
    if rest.shape[1] and (semi := unlabelled_method(adaptation.method)) is not None:
        return semi.unlabelled_scores(support, support_labels, query, rest, ways, adaptation)
    return found.feature_scores(support, support_labels, query, ways, adaptation)


def linear_method(name: str) -> LinearMethod | None:
    """The method of that name if its result is a linear layer."""
    found = method(name)
    return cast("LinearMethod", found) if hasattr(found, "head") else None


def tensor_method(name: str) -> TensorMethod | None:
    """The method of that name if its result is a network with other tensors."""
    found = method(name)
    return cast("TensorMethod", found) if hasattr(found, "adapted") else None

"""How learners adapt: each method is a file in ``mapsto/nn/adaptation/`` that scores queries from a support set.

A method's file provides ``episode_scores`` and, where the scores depend on the samples only through their embeddings,
``feature_scores``, so that an evaluation may embed each sample once.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol, cast

from torch import Tensor, nn

from mapsto.errors import SpecError, nearest
from mapsto.kinds import Adaptation, Json
from mapsto.nn import adaptation

__all__ = ["CENTROID", "Method", "feature_method", "method"]

CENTROID = Adaptation(method="centroid")
"""How a network that was never trained as a learner is used as one: nearest class mean of its embeddings."""


class Method(Protocol):
    """A file in ``mapsto/nn/adaptation/``."""

    def episode_scores(
        self,
        module: nn.Module,
        support: Tensor,
        support_labels: Tensor,
        query: Tensor,
        ways: int,
        settings: Mapping[str, Json],
        tensors: Mapping[str, Tensor],
    ) -> Tensor:
        """Scores (B, Q, ways) for support (B, S, ...), labels (B, S) int64, query (B, Q, ...), prepared as input."""
        ...


class FeatureMethod(Method, Protocol):
    """A method whose scores depend on samples only through their embeddings."""

    def feature_scores(
        self, support: Tensor, support_labels: Tensor, query: Tensor, ways: int, settings: Mapping[str, Json]
    ) -> Tensor:
        """Scores (B, Q, ways) from embeddings: support (B, S, D), labels (B, S), query (B, Q, D)."""
        ...


def method(name: str) -> Method:
    """The method of that name. Raises `SpecError` with the nearest known one.

    >>> method("centroid").__name__
    'mapsto.nn.adaptation.centroid'
    """
    known = [info.name for info in pkgutil.iter_modules(adaptation.__path__)]
    if name not in known:
        raise SpecError(f"unknown method of adaptation '{name}'", hint=nearest(name, known))
    found: Any = importlib.import_module(f"{adaptation.__name__}.{name}")
    return cast("Method", found)


def feature_method(name: str) -> FeatureMethod | None:
    """The method of that name if it works on embeddings alone."""
    found = method(name)
    return cast("FeatureMethod", found) if hasattr(found, "feature_scores") else None

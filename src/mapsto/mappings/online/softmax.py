"""Multinomial logistic regression that learns from a stream, event by event.

``p = softmax(W z)``, and after each label ``G ← G + g ⊙ g``, ``W ← W − η g ⊘ √(G + ε)`` with the gradient ``g = (p − y) zᵀ`` (Duchi, Hazan
and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from pydantic import Field

from mapsto.kinds import Json
from mapsto.nn.online.loop import Online
from mapsto.nn.online.rule import Rule

__all__ = ["Softmax"]


class Softmax(Online):
    """A linear classifier of the stream's columns, whose inputs and classes grow with what it meets.

    >>> from mapsto import streams
    >>> model = Softmax(stream=streams.sea(events=2000, noise=0.0))(None)
    >>> model.events, model.signature.classes
    (2000, ('no', 'yes'))
    >>> question = next(streams.sea(events=1, seed=5).open())
    >>> bool(abs(model.open().predict(question).sum() - 1) < 1e-12)
    True
    """

    rate: float = Field(default=0.2, gt=0)
    """η, the rate of AdaGrad; 0.2 did best on seventeen streams."""

    version: ClassVar[int] = 2
    contract: ClassVar[dict[str, Any]] = {"stream": {"sea": {"events": 300}}, "every": 100}

    @classmethod
    def cost(cls, fields: Mapping[str, Any], inputs: int, classes: int) -> float:
        return 1.0 + 0.005 * inputs * classes

    @classmethod
    def rule(cls, fields: Mapping[str, Json]) -> Rule:
        from mapsto.nn.online.native_adagrad import adagrad

        return adagrad(float(cast("float", fields["rate"])))

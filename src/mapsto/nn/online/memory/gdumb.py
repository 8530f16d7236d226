"""GDumb: a memory in which classes are even, and a network that is trained from its beginning on that memory alone.

Samples are only kept; answers come from the network that was trained last (Prabhu, Torr and Dokania, "GDumb: A Simple Approach that
Questions Our Progress in Continual Learning", 2020). It is trained anew whenever the number of labelled events has doubled, and after so
many of them, at a rate that falls from its value to 0 along a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from torch.nn.functional import cross_entropy

from mapsto.nn.online.trained.draws_of_step import draws_of
from mapsto.nn.online.trained.method import Method, Step
from mapsto.nn.online.trained.sample_memory import Greedy, SampleMemory

__all__ = ["Gdumb"]

_BATCH = 32
_PURPOSE = 2


class Gdumb(Method):
    """A memory that is trained on when it is time."""

    policy = Greedy
    trains = False

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._seen = self._trained_at = 0

    def keep(self, step: Step) -> str:
        super().keep(step)
        self._seen += len(step.batch)
        held = cast("SampleMemory", self.memory)
        due = self._seen >= 2 * self._trained_at or self._seen - self._trained_at >= self.fields.consolidate
        if not due or not len(held):
            return ""
        self._trained_at = self._seen
        self._train(draws_of(self.fields.seed, self._seen, _PURPOSE))
        return f"trained anew on {len(held)} samples"

    def values(self) -> dict[str, Any]:
        return {"seen": self._seen, "trained_at": self._trained_at}

    def restore(self, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        self._seen, self._trained_at = int(values["seen"]), int(values["trained_at"])

    def _train(self, draws: np.random.Generator) -> None:
        network, held = self.network, cast("SampleMemory", self.memory)
        network.begin_again()
        batches = math.ceil(len(held) / _BATCH)
        total = batches * self.fields.passes
        order: list[int] = []
        for number in range(total):
            if number % batches == 0:
                order = draws.permutation(len(held)).tolist()
            start = number % batches * _BATCH
            places = order[start : start + _BATCH]
            with network.learning(self._seen + number):
                logits = network.logits(network.features(self.inputs_of(places, draws)))
                gradients = network.gradients(cross_entropy(logits, self.labels_of(places)))
                network.descend(gradients, (1 + math.cos(math.pi * number / total)) / 2)

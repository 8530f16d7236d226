"""DER++: dark experience replay, and the labels of other replayed samples beside.

``L = (n CE over batch + m (α ‖h(x′) − z′‖² / classes + β CE(x″, y″))) / (n + m)`` with x′ and x″ drawn apart, n samples in the mini-batch
and m replayed ones (Buzzega et al., "Dark Experience for General Continual Learning: a Strong, Simple Baseline", 2020). With α = 0 and
β = 1 it is plain replay.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from mapsto.nn.online.memory.der import Der
from mapsto.nn.online.trained.method import Method, Step

__all__ = ["Derpp"]


class Derpp(Der):
    """Replay of scores and of labels."""

    def loss(self, step: Step) -> Tensor:
        first, second = self.replayed(step.draws), self.replayed(step.draws)
        if not first:
            return Method.loss(self, step)
        of_first, of_second = (self.inputs_of(places, step.draws) for places in (first, second))
        step.logits, scored, labelled = self.together(step.inputs, of_first, of_second)
        old = self.weight * self.distance(scored, first)
        old = old + self.fields.beta * cross_entropy(labelled, self.labels_of(second))
        return self.weighed(step, cross_entropy(step.logits, step.labels), old)

"""Dark experience replay: the network keeps the scores that it once gave to samples of a reservoir.

``L = (n CE over batch + m α ‖h(x′) − z′‖² / classes) / (n + m)`` with z′ the logits from when x′ was learnt, n samples in the mini-batch
and m replayed ones; where these are as many it is half of the paper's (Buzzega et al., "Dark Experience for General Continual Learning: a
Strong, Simple Baseline", 2020). There the head has a row for every class from the start, which learns before its class comes that nothing
is of it, and z′ holds its score. Here one row does so for all classes that have not come yet: they begin as its copies, and z′ of a class
that came later is its score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mapsto.nn.online.trained.method import Method, Step
from mapsto.nn.online.trained.sample_memory import Reservoir, SampleMemory

__all__ = ["Der"]


class Der(Method):
    """Replay of scores."""

    alpha = 1.0
    later = True
    policy = Reservoir
    keeps_scores = True

    def loss(self, step: Step) -> Tensor:
        places = self.replayed(step.draws)
        if not places:
            return super().loss(step)
        step.logits, old = self.together(step.inputs, self.inputs_of(places, step.draws))
        return self.weighed(step, cross_entropy(step.logits, step.labels), self.weight * self.distance(old, places))

    def weighed(self, step: Step, new: Tensor, old: Tensor) -> Tensor:
        """The mean of a mini-batch's loss and of a loss of replayed samples, each counted as often as it has samples."""
        batch, replayed = len(step.batch), min(self.fields.replay, len(cast("SampleMemory", self.memory)))
        return (batch * new + replayed * old) / (batch + replayed)

    def distance(self, logits: Tensor, places: Sequence[int]) -> Tensor:
        """Mean square by which logits (n, classes and later ones) differ from those that are kept."""
        kept = cast("SampleMemory", self.memory).scores
        table = np.zeros(tuple(logits.shape), np.float32)
        for row, place in enumerate(places):
            table[row] = kept[place][-1]
            table[row, : len(kept[place]) - 1] = kept[place][:-1]
        return (logits - torch.tensor(table)).square().mean()

"""Dark experience replay: the network keeps the scores that it once gave to samples of a reservoir.

``L = (n CE over batch + m α ‖h(x′) − z′‖² / classes) / (n + m)`` with z′ the logits from when x′ was learnt, n samples in the mini-batch
and m replayed ones; where these are as many it is half of the paper's (Buzzega et al., "Dark Experience for General Continual Learning: a
Strong, Simple Baseline", 2020). A class that came later had a row of zeros then, so its z′ is 0.
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

    alpha = 0.1
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
        """Mean square by which logits (n, classes) differ from those that are kept."""
        kept = cast("SampleMemory", self.memory).scores
        table = np.zeros(tuple(logits.shape), np.float32)
        for row, place in enumerate(places):
            table[row, : len(kept[place])] = kept[place]
        return (logits - torch.tensor(table)).square().mean()

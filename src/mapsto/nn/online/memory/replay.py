"""Experience replay: each step learns from the mini-batch and from as many samples of a reservoir of all samples so far.

``L = CE over batch and replayed samples`` (Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mapsto.nn.online.trained.method import Method, Step
from mapsto.nn.online.trained.sample_memory import Reservoir

__all__ = ["Replay"]


class Replay(Method):
    """Replay from a reservoir."""

    policy = Reservoir

    def loss(self, step: Step) -> Tensor:
        places = self.replayed(step.draws)
        if not places:
            return super().loss(step)
        step.logits, old = self.together(step.inputs, self.inputs_of(places, step.draws))
        return cross_entropy(torch.cat([step.logits, old]), torch.cat([step.labels, self.labels_of(places)]))

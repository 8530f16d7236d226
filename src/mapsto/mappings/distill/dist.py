"""Teach the order of the teacher's answers instead of their values: classes within a sample, and samples within a class.

``T² (β mean_i (1 − ρ(P_s[i, :], P_t[i, :])) + γ mean_c (1 − ρ(P_s[:, c], P_t[:, c]))) + labels · CE(y, s)`` with Pearson's ρ and
the softened probabilities P of a batch: what a small student can match of a strong teacher (Huang et al., "Knowledge Distillation from A
Stronger Teacher", 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.distill.loop import Distillation, LossInputs

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Dist"]


class Dist(Distillation):
    """The student trained so that its answers correlate with those of `teacher`.

    Without a single label:

    >>> from mapsto import datasets, evaluate, networks, train
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher, student = (networks.conv4(data=digits, width=width, blocks=2, classes="data")(seed=0) for width in (12, 4))
    >>> teacher = train.supervised(data=digits, epochs=6, batch_size=50)(teacher)
    >>> trained = Dist(data=digits, teacher=teacher, labels=0, epochs=6, batch_size=50)(student)
    >>> before, after = (evaluate.difference(teacher=teacher, data=digits)(each).metrics for each in (student, trained))
    >>> before["agreement"].value < 60 < after["agreement"].value
    True
    """

    inter: float = Field(default=2.0, ge=0)
    """β, the weight of the correlation between classes of a sample; 2 in the paper on CIFAR-100, 1 on ImageNet."""
    intra: float = Field(default=2.0, ge=0)
    """γ, the weight of the correlation between samples of a class; 2 in the paper on CIFAR-100, 1 on ImageNet."""
    temperature: float = Field(default=4.0, gt=0)
    """T; 4 in the paper on CIFAR-100, 1 on ImageNet."""

    def imitation_loss(self, given: LossInputs) -> Tensor:
        from mapsto.nn.distill.losses import correlations

        return correlations(
            given.scores, given.targets, temperature=self.temperature, inter=self.inter, intra=self.intra
        )

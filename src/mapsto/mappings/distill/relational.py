"""Teach how samples lie to one another in the teacher's embedding: their distances, and the angles of their triplets.

``distance · Huber(ψ_s, ψ_t) + angle · Huber(∠_s, ∠_t) + answers · T² KL(t ‖ s) + labels · CE(y, s)`` with the pairwise distances ψ
in units of their mean, and the cosines ∠ of the angles at each sample between two others (Park et al., "Relational Knowledge Distillation",
2019). The angles of a batch of N take memory of N³.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.distill.feature_based import FeatureDistillation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.distill.loop import LossInputs
    from mapsto.nn.network.features import Pair

__all__ = ["Relational"]


class Relational(FeatureDistillation):
    """The student trained to place samples as `teacher` does, whatever the size of either embedding.

    Without a single label, samples come to lie as in the teacher's embedding:

    >>> from mapsto import datasets, evaluate, networks, train
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher, student = (networks.conv4(data=digits, width=width, blocks=2, classes="data")(seed=0) for width in (12, 4))
    >>> teacher = train.supervised(data=digits, epochs=6, batch_size=50)(teacher)
    >>> trained = Relational(data=digits, teacher=teacher, labels=0, learning_rate=0.02, epochs=6, batch_size=50)(student)
    >>> before, after = (evaluate.difference(teacher=teacher, data=digits)(each).metrics for each in (student, trained))
    >>> before["cka.embedding"].value < 0.6 < after["cka.embedding"].value
    True
    """

    weight: float = Field(default=1.0, ge=0)
    """Weight of both relations together."""
    distance: float = Field(default=25.0, ge=0)
    """Weight of the distances; 25 in the paper."""
    angle: float = Field(default=50.0, ge=0)
    """Weight of the angles; 50 in the paper. At 0 they are not computed."""

    def default_pairs(self, students: nn.Module, teachers: nn.Module, examples: tuple[Tensor, Tensor]) -> list[Pair]:
        from mapsto.nn.network.features import EMBEDDING

        return [(EMBEDDING, EMBEDDING)]

    def layers_loss(self, given: LossInputs) -> Tensor:
        from mapsto.nn.distill.feature_based import summed_over_layers

        return summed_over_layers(self._relations, given)

    def _relations(self, ours: Tensor, theirs: Tensor) -> Tensor:
        from mapsto.nn.distill.losses import angles, distances

        ours, theirs = ours.flatten(1), theirs.flatten(1)
        loss = self.distance * distances(ours, theirs)
        return loss + self.angle * angles(ours, theirs) if self.angle else loss

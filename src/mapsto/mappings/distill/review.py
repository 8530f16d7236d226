"""Teach shallow layers of the teacher to deeper ones of the student as well, as one looks up what was learnt before.

``weight · Σ_l HCL(u_l, F_t^l) + answers · T² KL(t ‖ s) + labels · CE(y, s)`` with u_l the student's layers from the deepest up to
l, fused place by place, and HCL the mean squared differences of maps as they are and averaged to 4, 2 and 1 pixels (Chen et
al., "Distilling Knowledge via Knowledge Review", 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.distill.feature_based import FeatureDistillation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.distill.loop import LossInputs, ProjectorInputs

__all__ = ["Review"]


class Review(FeatureDistillation):
    """The student trained so that its layers, each fused with all deeper ones, equal those of `teacher`.

    Named layers are given from the shallowest to the deepest.

    >>> from mapsto import datasets, networks, train
    >>> from mapsto.context import Context
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher, student = (networks.conv4(data=digits, width=width, blocks=2, classes="data")(seed=0) for width in (12, 4))
    >>> teacher = train.supervised(data=digits, epochs=6, batch_size=50)(teacher)
    >>> ctx, process = Context(), Review(data=digits, teacher=teacher, labels=0, epochs=3, batch_size=50)
    >>> live, items = process.open(student, None, ctx), process.items(student, ctx)
    >>> losses = [live.advance(items[step])[0][1]["train_loss"] for step in range(live.total)]
    >>> losses[-1] < 0.9 * losses[0]
    True
    """

    weight: float = Field(default=1.0, ge=0)
    """Weight of the layers; 0.6 to 8 in the authors' settings for CIFAR-100, rising over 20 epochs (`ramp`)."""
    width: int = Field(default=512, ge=1)
    """Most channels of the fused maps, which have no more than the student's deepest layer; 512 in the authors' code."""

    def projectors(self, inputs: ProjectorInputs) -> nn.Module:
        from mapsto.nn.distill.projectors import ReviewFusions

        return ReviewFusions(inputs.ours, inputs.theirs, self.width)

    def layers_loss(self, given: LossInputs) -> Tensor:
        from mapsto.nn.distill.feature_based import summed_over_layers
        from mapsto.nn.distill.losses import hierarchical

        return summed_over_layers(hierarchical, given)

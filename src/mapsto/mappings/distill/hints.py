"""Teach what the teacher computes half-way: a layer of the student, put through a linear map, shall equal one of the teacher.

``weight · mean ‖r(F_s) − F_t‖² + answers · T² KL(t ‖ s) + labels · CE(y, s)`` with r a 1×1 convolution (and batch norm) that only
training needs (Romero et al., "FitNets: Hints for Thin Deep Nets", 2015). The paper trains in two stages: this with labels: 0,
then distill.logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.distill.feature_based import FeatureDistillation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.distill.loop import LossInputs, ProjectorInputs
    from mapsto.nn.network.features import Pair

__all__ = ["Hints"]


class Hints(FeatureDistillation):
    """The student trained to compute, by a linear map, the hint layers of `teacher`.

    Of the layers chosen by default only the middle one is used, as in the paper.

    >>> from mapsto import datasets, networks, train
    >>> from mapsto.context import Context
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher, student = (networks.conv4(data=digits, width=width, blocks=2, classes="data")(seed=0) for width in (12, 4))
    >>> teacher = train.supervised(data=digits, epochs=6, batch_size=50)(teacher)
    >>> ctx, process = Context(), Hints(data=digits, teacher=teacher, labels=0, epochs=6, batch_size=50)
    >>> live, items = process.open(student, None, ctx), process.items(student, ctx)
    >>> losses = [live.advance(items[step])[0][1]["train_loss"] for step in range(live.total)]
    >>> losses[-1] < 0.7 * losses[0]
    True
    """

    weight: float = Field(default=100.0, ge=0)
    """Weight of the hints; 100 in Tian et al., 2020."""

    def chosen(self, pairs: list[Pair]) -> list[Pair]:
        middle = len(pairs) // 2
        return pairs[middle : middle + 1]

    def projectors(self, inputs: ProjectorInputs) -> nn.Module:
        from mapsto.nn.distill.projectors import LinearProjections

        return LinearProjections(inputs.ours, inputs.theirs)

    def layers_loss(self, given: LossInputs) -> Tensor:
        from mapsto.nn.distill.feature_based import summed_over_layers
        from mapsto.nn.distill.losses import hint

        return summed_over_layers(hint, given)

"""Teach where the teacher looks: the places of a layer at which its channels are active, however many channels there are.

``weight · Σ_l mean (A(F_s) − A(F_t))² + answers · T² KL(t ‖ s) + labels · CE(y, s)`` with A the mean square over channels, made length 1
(Zagoruyko and Komodakis, "Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks via
Attention Transfer", 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.distill.feature_based import FeatureDistillation

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.distill.loop import LossInputs

__all__ = ["Attention"]


class Attention(FeatureDistillation):
    """The student trained to be active where `teacher` is, in the last layer of each resolution.

    >>> from mapsto import datasets, networks, train
    >>> from mapsto.context import Context
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher, student = (networks.conv4(data=digits, width=width, blocks=2, classes="data")(seed=0) for width in (12, 4))
    >>> teacher = train.supervised(data=digits, epochs=6, batch_size=50)(teacher)
    >>> ctx, process = Context(), Attention(data=digits, teacher=teacher, labels=0, epochs=6, batch_size=50)
    >>> live, items = process.open(student, None, ctx), process.items(student, ctx)
    >>> losses = [live.advance(items[step])[0][1]["train_loss"] for step in range(live.total)]
    >>> losses[-1] < 0.5 * losses[0]
    True
    """

    weight: float = Field(default=1000.0, ge=0)
    """Weight of the attention maps, which are small numbers; 1000 in Tian et al., 2020."""

    def layers_loss(self, given: LossInputs) -> Tensor:
        from mapsto.nn.distill.feature_based import summed_over_layers
        from mapsto.nn.distill.losses import attention

        return summed_over_layers(attention, given)

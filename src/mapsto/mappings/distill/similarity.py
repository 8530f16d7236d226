"""Teach which samples the teacher finds alike: pairs that activate it in the same way shall activate the student alike.

``weight · Σ_l ‖G_s − G_t‖²_F / N² + answers · T² KL(t ‖ s) + labels · CE(y, s)`` with ``G = F Fᵀ``, each row made length 1, for a
layer F of a batch of N (Tung and Mori, "Similarity-Preserving Knowledge Distillation", 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.distill.feature_based import FeatureDistillation

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.distill.loop import LossInputs
    from mapsto.nn.network.features import Pair

__all__ = ["Similarity"]


class Similarity(FeatureDistillation):
    """The student trained so that the samples of a batch are as alike in it as they are in `teacher`.

    Of the layers chosen by default only the deepest is used, as in the paper.

    Without a single label, samples come to be alike as in the teacher:

    >>> from mapsto import datasets, evaluate, networks, train
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher, student = (networks.conv4(data=digits, width=width, blocks=2, classes="data")(seed=0) for width in (12, 4))
    >>> teacher = train.supervised(data=digits, epochs=6, batch_size=50)(teacher)
    >>> trained = Similarity(data=digits, teacher=teacher, labels=0, learning_rate=0.02, epochs=6, batch_size=50)(student)
    >>> before, after = (evaluate.difference(teacher=teacher, data=digits)(each).metrics for each in (student, trained))
    >>> before["cka.embedding"].value < 0.6 < after["cka.embedding"].value
    True
    """

    weight: float = Field(default=3000.0, ge=0)
    """Weight of the similarities; 3000 in the paper on CIFAR-10."""

    def chosen(self, pairs: list[Pair]) -> list[Pair]:
        return pairs[-1:]

    def layers_loss(self, given: LossInputs) -> Tensor:
        from mapsto.nn.distill.feature_based import summed_over_layers
        from mapsto.nn.distill.losses import similarity

        return summed_over_layers(similarity, given)

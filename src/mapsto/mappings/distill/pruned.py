"""Teach a pruned copy to compute what its original computes in the channels that are left: they are known, no map is needed.

``weight · Σ_l mean (F_s^l − F_t^l[K_l])² + answers · T² KL(t ‖ s) + labels · CE(y, s)`` with K_l the channels of layer l that the copy's
edits kept (He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", 2017; Li et al., "Few Sample
Knowledge Distillation for Efficient Network Compression", 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.distill.feature_based import FeatureDistillation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.distill.loop import LossInputs, ProjectorInputs
    from mapsto.nn.network.features import Pair

__all__ = ["Pruned"]


class Pruned(FeatureDistillation):
    """The pruned network that is given, trained to compute in its channels what `teacher`, from which it was pruned, does.

    By default the last batch norms of each resolution are compared; named layers are batch norms or convolutions.
    Raises `DomainError` where the student was not made from the teacher by edits.

    Without a single label:

    >>> from mapsto import datasets, evaluate, networks, prune, train
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher = networks.conv4(data=digits, width=12, blocks=2, classes="data")(seed=0)
    >>> teacher = train.supervised(data=digits, epochs=6, batch_size=50)(teacher)
    >>> copy = prune.magnitude(macs=0.4)(teacher)
    >>> trained = Pruned(data=digits, teacher=teacher, labels=0, epochs=3, batch_size=50)(copy)
    >>> before, after = (evaluate.accuracy(data=digits)(each).metrics["accuracy"].value for each in (copy, trained))
    >>> before + 10 < after
    True
    """

    weight: float = Field(default=1.0, ge=0)
    """Weight of the layers; after batch norm their values are about 1 in size."""
    answers: float = Field(default=1.0, ge=0)
    """Weight of the teacher's softened answers, as in `distill.logits`; 0 for none."""

    def default_pairs(self, students: nn.Module, teachers: nn.Module, examples: tuple[Tensor, Tensor]) -> list[Pair]:
        from mapsto.nn.prune.kept_channels import last_norms

        return [(path, path) for path in last_norms(students, examples[0])]

    def projectors(self, inputs: ProjectorInputs) -> nn.Module:
        from mapsto.nn.distill.projectors import KeptChannels
        from mapsto.nn.prune.kept_channels import kept_channels

        student, teacher = inputs.student, inputs.teacher
        return KeptChannels([kept_channels(student, teacher, own, where=self.name) for own, _ in inputs.pairs])

    def layers_loss(self, given: LossInputs) -> Tensor:
        from mapsto.nn.distill.feature_based import summed_over_layers
        from mapsto.nn.distill.losses import hint

        return summed_over_layers(hint, given)

"""Teach the mean answer of several teachers, which is righter than that of each and shows what they are unsure of.

``answers · T² KL(mean_k softmax(t_k / T) ‖ softmax(s / T)) + labels · CE(y, s)`` with the scores t_k of teacher k (Hinton, Vinyals and
Dean, "Distilling the Knowledge in a Neural Network", 2015; You et al., "Learning from Multiple Teacher Networks", 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.mapping import NetworkSource
from mapsto.nn.distill.loop import DistillationLoop, LossInputs, shared_classes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapsto.kinds import Network, Samples
    from mapsto.nn.distill.teacher_student import Teacher

__all__ = ["Ensemble"]


class Ensemble(DistillationLoop):
    """The student trained to answer as `teachers` do on average.

    >>> from mapsto import datasets, evaluate, networks, train
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> student = networks.conv4(data=digits, width=4, blocks=2, classes="data")(seed=0)
    >>> one, other = (
    ...     train.supervised(data=digits, epochs=5, batch_size=50)(
    ...         networks.conv4(data=digits, width=8, blocks=2, classes="data")(seed=seed)
    ...     )
    ...     for seed in (1, 2)
    ... )
    >>> trained = Ensemble(data=digits, teachers=(one, other), labels=0, epochs=6, batch_size=50)(student)
    >>> [evaluate.difference(teacher=teacher, data=digits)(trained).metrics["agreement"].value > 50 for teacher in (one, other)]
    [True, True]
    """

    teachers: tuple[NetworkSource, ...] = Field(min_length=1)
    """The networks to imitate: classifiers of the data's classes, each with its own preprocessing."""
    answers: float = Field(default=1.0, ge=0)
    """Weight of the teachers' answers; 9 times that of the labels is what `distill.logits` has by default."""
    temperature: float = Field(default=4.0, gt=0)
    """T: higher shows more of how the teachers rank the wrong classes; 4 is usual for CIFAR (Tian et al., 2020)."""

    contract: ClassVar[dict[str, Any]] = {
        "teachers": [{"networks.conv4": {"channels": 1, "size": 16, "width": 4, "classes": 10}}] * 2,
    }

    def teacher_networks(self, ctx: Context) -> Sequence[Network]:
        return [ctx.network(teacher) for teacher in self.teachers]

    def make_teacher(self, value: Network, samples: Samples, ctx: Context) -> Teacher:
        from mapsto.nn.distill.teacher_student import Teacher, TeacherEnsemble

        networks = self.teacher_networks(ctx)
        for number, network in enumerate(networks, 1):
            shared_classes(samples, network.signature, where=f"{self.name}: teachers: number {number}")
        augmenter = self.augmenter(samples, ctx)
        members = [Teacher(network, value, augmenter, ctx, where=self.name) for network in networks]
        return TeacherEnsemble(members, self.temperature)

    def imitation_loss(self, given: LossInputs) -> Tensor:
        from mapsto.nn.distill.divergences import kl

        return self.answers * kl(given.scores, given.targets, temperature=self.temperature)

"""Teach how sure the teacher is of the label, and how it ranks the other classes, each with a weight of its own.

``T² (α KL(b_t ‖ b_s) + β KL(p̂_t ‖ p̂_s)) + labels · CE(y, s)`` with b the probabilities of the label and of all else, and p̂
those of the other classes among themselves. In plain distillation the second weighs as much as the teacher is unsure, so that
sure answers teach little (Zhao et al., "Decoupled Knowledge Distillation", 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mapsto.nn.distill.loop import Distillation, LossInputs

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Decoupled"]


class Decoupled(Distillation):
    """The student trained to answer as `teacher` does, label and other classes apart.

    Without a single label:

    >>> from mapsto import datasets, evaluate, networks, train
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher, student = (networks.conv4(data=digits, width=width, blocks=2, classes="data")(seed=0) for width in (12, 4))
    >>> teacher = train.supervised(data=digits, epochs=6, batch_size=50)(teacher)
    >>> trained = Decoupled(data=digits, teacher=teacher, labels=0, epochs=6, batch_size=50)(student)
    >>> before, after = (evaluate.difference(teacher=teacher, data=digits)(each).metrics for each in (student, trained))
    >>> before["agreement"].value < 40 < after["agreement"].value
    True
    """

    needs_whole_labels: ClassVar[str] = "this loss sets the one right class of a sample apart from the others"

    target: float = Field(default=1.0, ge=0)
    """α, the weight of how sure the teacher is of the label; 1 in the paper."""
    others: float = Field(default=8.0, ge=0)
    """β, the weight of the other classes; 8 in the paper for most pairs on CIFAR-100, 1 to 2 for close or weak teachers."""
    ramp: int = Field(default=5, ge=0)
    """Epochs over which both weights rise linearly to their full; 20 of 240 in the paper. At once, β often is too much."""
    temperature: float = Field(default=4.0, gt=0)
    """T: higher shows more of how the teacher ranks the wrong classes; 4 in the paper."""

    def imitation_loss(self, given: LossInputs) -> Tensor:
        from mapsto.nn.distill.losses import decoupled

        return decoupled(
            given.scores,
            given.targets,
            given.labels,
            temperature=self.temperature,
            target=self.target,
            others=self.others,
        )

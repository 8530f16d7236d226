"""Teach a network's shallow layers what its deepest one says: they serve it better, and no other teacher is needed.

``CE(y, s) + exits · Σ_l ((1 − α) CE(y, e_l) + α T² KL(s ‖ e_l) + λ ‖h_l − h‖²)`` with scores e_l of a classifier on layer l, which only
training needs, its features h_l, and the network's own scores s and last layer h as they stand (Zhang et al., "Be Your Own
Teacher: Improve the Performance of Convolutional Neural Networks via Self Distillation", 2019). The other kind, born-again
networks (Furlanello et al., 2018), is distill.logits with a trained network of the same architecture as the teacher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.errors import DomainError
from mapsto.nn.distill.loop import DistillationLoop, LossInputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.context import Context
    from mapsto.kinds import Network, Samples
    from mapsto.nn.distill.loop import ProjectorInputs
    from mapsto.nn.distill.teacher_student import Teacher
    from mapsto.nn.network.features import Pair

__all__ = ["Self"]


class Self(DistillationLoop):
    """The network trained on `data` with classifiers on its shallow layers, which learn from its own answers.

    >>> from mapsto import datasets, evaluate, networks
    >>> digits, rest = (datasets.subset(data=datasets.digits(size=8), per_class=30, part=part) for part in ("chosen", "rest"))
    >>> network = networks.conv4(data=digits, width=8, blocks=2, classes="data")(seed=0)
    >>> trained = Self(data=digits, epochs=6, batch_size=50)(network)
    >>> evaluate.accuracy(data=rest)(trained).metrics["accuracy"].value > 70
    True
    >>> trained.tensors.keys() == network.tensors.keys()
    True
    """

    layers: tuple[str, ...] | None = Field(default=None, min_length=2)
    """Layers by module path, from the shallowest to the deepest, which teaches the others' features; by default the last of each
    resolution."""
    exits: float = Field(default=1.0, ge=0)
    """Weight of the shallow classifiers' losses together."""
    alpha: float = Field(default=0.3, ge=0, le=1)
    """α, the share of the network's own answers in what a shallow classifier learns; 0.3 in the authors' code."""
    temperature: float = Field(default=3.0, gt=0)
    """T; 3 in the authors' code."""
    features: float = Field(default=0.03, ge=0)
    """λ, the weight of the features' mean squared difference; 0.03 in the authors' code."""

    def make_teacher(self, value: Network, samples: Samples, ctx: Context) -> Teacher:
        from mapsto.nn.distill.teacher_student import SelfTeacher

        return SelfTeacher(value, value, self.augmenter(samples, ctx), ctx, where=self.name)

    def pairs(self, students: nn.Module, teachers: nn.Module, examples: tuple[Tensor, Tensor]) -> list[Pair]:
        from mapsto.nn.network.features import matched

        where = f"{self.name}: layers"
        named = dict(zip(self.layers, self.layers, strict=True)) if self.layers is not None else None
        found = matched(students, students, (examples[0], examples[0]), named, where=where)
        if len(found) < 2:
            raise DomainError(
                "there are no two layers of different resolution",
                where=where,
                hint="name the shallow layers and the last",
            )
        return found

    def projectors(self, inputs: ProjectorInputs) -> nn.Module:
        from mapsto.nn.distill.projectors import EarlyExits

        return EarlyExits(inputs.ours, len(inputs.samples.classes))

    def imitation_loss(self, given: LossInputs) -> Tensor:
        from torch.nn.functional import mse_loss

        from mapsto.nn.distill.divergences import kl
        from mapsto.nn.train.losses import classification

        deepest, total = given.theirs[-1].detach(), given.scores.new_zeros(())
        for scores, features in zip(given.ours, given.theirs[:-1], strict=True):
            total = total + (1 - self.alpha) * classification(scores, given.labels)
            total = total + self.alpha * kl(scores, given.scores.detach(), temperature=self.temperature)
            total = total + self.features * mse_loss(features, deepest)
        return self.exits * total

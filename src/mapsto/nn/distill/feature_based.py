"""Distillation that compares layers: which ones by default or by name, and their loss beside that of the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.distill.loop import Distillation, LossInputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.network.features import Pair

__all__ = ["FeatureDistillation", "summed_over_layers"]


class FeatureDistillation(Distillation):
    """The fields of every mapping that compares layers of student and teacher."""

    layers: dict[str, str] | None = Field(
        default=None,
        min_length=1,
        description=(
            "The student's layer → the teacher's, by module path, `embedding` for what the head is given: `{layer2: layer2}`. By "
            "default the last layer of each resolution that both networks have."
        ),
    )
    weight: float = Field(default=1.0, ge=0, description="Weight of the layers.")
    answers: float = Field(
        default=0.0, ge=0, description="Weight of the teacher's softened answers, as in `distill.logits`; 0 for none."
    )
    temperature: float = Field(
        default=4.0, gt=0, description="T of the answers; 4 is usual for CIFAR (Tian et al., 2020)."
    )

    # -- what a mapping defines

    def layers_loss(self, given: LossInputs) -> Tensor:
        """The loss of the layers, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} does not define layers_loss")

    def default_pairs(self, students: nn.Module, teachers: nn.Module, examples: tuple[Tensor, Tensor]) -> list[Pair]:
        """The layers that are compared where none is named."""
        from mapsto.nn.network.features import matched

        return self.chosen(matched(students, teachers, examples, None, where=self.name))

    def chosen(self, pairs: list[Pair]) -> list[Pair]:
        """Those of the last layers of each resolution, from the largest map to the smallest, that are compared by default."""
        return pairs

    # -- what the loop calls

    def pairs(self, students: nn.Module, teachers: nn.Module, examples: tuple[Tensor, Tensor]) -> list[Pair]:
        from mapsto.nn.network.features import matched

        if self.layers is None:
            return self.default_pairs(students, teachers, examples)
        return matched(students, teachers, examples, self.layers, where=f"{self.name}: layers")

    def imitation_loss(self, given: LossInputs) -> Tensor:
        from mapsto.nn.distill.divergences import kl

        loss = self.weight * self.layers_loss(given)
        if self.answers:
            loss = loss + self.answers * kl(given.scores, given.targets, temperature=self.temperature)
        return loss


def summed_over_layers(loss: Callable[[Tensor, Tensor], Tensor], given: LossInputs) -> Tensor:
    """The sum of a loss over the pairs of layers."""
    terms = [loss(ours, theirs) for ours, theirs in zip(given.ours, given.theirs, strict=True)]
    return sum(terms[1:], terms[0])

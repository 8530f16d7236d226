"""The two networks of distillation: a frozen teacher, and a student with the projectors that only its training needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapsto.context import Context
from mapsto.data.augment import Drawn
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.network.features import Pair, capturing
from mapsto.nn.network.inference import compact
from mapsto.nn.train.augmenter import Augmenter

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Projectors", "SelfTeacher", "StudentWithProjectors", "Teacher", "TeacherEnsemble", "layers_of"]


class Projectors(nn.Module):
    """Layers as they are; a subclass makes them comparable, by parameters that are trained with the student."""

    def forward(self, ours: list[Tensor], theirs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The student's layers and the teacher's, as the loss compares them."""
        return ours, theirs


class StudentWithProjectors(nn.Module):
    """A student that gives its answers together with the layers that the loss compares.

    Its tensors are the student's, named ``student.…``, and the projectors', named ``regressors.…`` as in the checkpoints that are there.
    """

    def __init__(self, student: nn.Module, pairs: Sequence[Pair], projectors: nn.Module | None) -> None:
        super().__init__()
        self.student = student
        self.pairs = tuple(pairs)
        self.regressors = projectors if projectors is not None else Projectors()

    @property
    def projectors(self) -> nn.Module:
        """What makes the layers comparable."""
        return self.regressors

    @property
    def paths(self) -> tuple[str, ...]:
        """The student's layers."""
        return tuple(own for own, _ in self.pairs)

    def forward(self, inputs: Tensor, theirs: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Scores (N, classes), and both networks' layers after the projectors."""
        with capturing(self.student, self.paths) as seen:
            scores: Tensor = self.student(inputs)
        ours, theirs = self.projectors([seen[path] for path in self.paths], theirs)
        return scores, ours, theirs


class Teacher:
    """A network that is only asked: in evaluation mode, without gradients, on the samples that the student sees.

    Parameters
    ----------
    network
        The teacher.
    student
        Whose preprocessing the student's inputs follow.
    augmenter
        Changes samples at random, the same way for both.
    """

    def __init__(self, network: Network, student: Network, augmenter: Augmenter, ctx: Context, *, where: str) -> None:
        self.network = network
        self.module = compact(network.module().to(ctx.device)).requires_grad_(False)
        self._augmenter, self._where = augmenter, where
        self._own, self._theirs = student.signature.preprocessing, network.signature.preprocessing

    def inputs(self, raw: NDArray[Any], labels: NDArray[Any], item: int) -> tuple[Drawn, Any]:
        """The student's input with its targets, and the teacher's input, with the same random changes."""
        samples = self._augmenter.changed(raw, item, labels)
        drawn = self._augmenter.prepared(samples, labels, item, self._own)
        return drawn, drawn.x if self._own == self._theirs else self.theirs(samples, labels, item)

    def theirs(self, samples: Tensor, labels: NDArray[Any], item: int) -> Tensor:
        """The teacher's input of changed samples."""
        return self._augmenter.prepared(samples, labels, item, self._theirs).x

    def answers(self, inputs: Any, paths: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        """Scores (N, classes) and the outputs of these layers. Raises `DomainError` where the scores hold NaN."""
        with torch.no_grad(), capturing(self.module, paths) as seen:
            scores: Tensor = self.module(inputs)
        return self.checked(scores), [seen[path] for path in paths]

    def checked(self, scores: Tensor) -> Tensor:
        """The teacher's scores. Raises `DomainError` where they hold NaN."""
        if bool(scores.isnan().any()):
            raise DomainError(
                "the teacher's answers hold NaN", where=f"{self._where}: teacher", hint="evaluate the teacher first"
            )
        return scores


class SelfTeacher(Teacher):
    """No external teacher: the student learns from its own answers."""

    def answers(self, inputs: Any, paths: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        """No scores, no layers."""
        return inputs.new_empty(0), []


class TeacherEnsemble(Teacher):
    """Several teachers, whose softened probabilities are averaged.

    Parameters
    ----------
    members
        At least one.
    temperature
        T.
    """

    def __init__(self, members: Sequence[Teacher], temperature: float) -> None:
        self.network, self.module = members[0].network, members[0].module
        self._members, self._temperature = members, temperature

    def inputs(self, raw: NDArray[Any], labels: NDArray[Any], item: int) -> tuple[Drawn, Any]:
        """The student's input with its targets, and the input of each member, with the same random changes."""
        first = self._members[0]
        samples = first._augmenter.changed(raw, item, labels)
        drawn = first._augmenter.prepared(samples, labels, item, first._own)
        return drawn, [member.theirs(samples, labels, item) for member in self._members]

    def answers(self, inputs: Any, paths: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        """``T log mean_k softmax(t_k / T)``, shape (N, classes): scores whose softened probabilities are the mean; no layers."""
        scores = [member.answers(given, ())[0] for member, given in zip(self._members, inputs, strict=True)]
        logs = torch.stack([functional.log_softmax(each.float() / self._temperature, 1) for each in scores])
        return self._temperature * (logs.logsumexp(0) - math.log(len(scores))), []


def layers_of(module: nn.Module, example: Tensor, paths: Sequence[str]) -> list[Tensor]:
    """The outputs of these layers for a batch; `module` should be in evaluation mode."""
    if not paths:
        return []
    with torch.no_grad(), capturing(module, paths) as seen:
        module(example)
    return [seen[path] for path in paths]

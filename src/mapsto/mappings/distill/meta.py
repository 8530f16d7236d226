"""Teach a small learner to adapt as a large one does: the same answers after each inner step, not only the same answers in the end.

``α T² mean_k D(softmax(t_k / T), softmax(s_k / T)) + (1 − α) · CE(y, s_K) + β ‖ψ(t) − ψ(s)‖`` with the scores t_k, s_k that teacher and
student give the queries of a task after k steps of adapting to its support set (a learner in closed form has one), and ψ the pairwise
distances of the embeddings of support and query (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015; Park et
al., "Relational Knowledge Distillation", 2019; that whole paths of adaptation are matched is ours). On tasks whose answers are values,
not classes, D is their mean squared difference without T, and the labels' loss is the mean squared error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Adaptation, Episodes, Network, Signature
from mapsto.mapping import NetworkSource
from mapsto.nn.meta.outer_loop import Episodic

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.kinds import Edit
    from mapsto.nn.meta.learner_module import Learner
    from mapsto.nn.train.batches import Task

__all__ = ["Meta"]


class Meta(Episodic):
    """The learner that is given, trained to adapt as `teacher` does; how it adapts stays, what it holds for that is trained too."""

    version: ClassVar[int] = 3

    teacher: NetworkSource
    """The learner to imitate; what is no learner adapts by its embeddings' class means."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of the teacher's answers; the labels weigh 1 - alpha."""
    temperature: float = Field(default=4.0, gt=0)
    """T: higher shows more of how the teacher ranks the wrong classes."""
    difference: Literal["kl", "euclidean", "cosine"] = "kl"
    """D, by which the answers differ; values differ by their mean square with `kl` and `euclidean` alike."""
    path: bool = True
    """Whether answers are compared after every inner step, or only after the last."""
    leave_one_out: bool = False
    """Every image of a task is a query, against the mean of its class's others; for learners that adapt by class means."""
    features: float = Field(default=1.0, ge=0)
    """β, weight of the difference between the embeddings' pairwise distances."""

    contract: ClassVar[dict[str, Any]] = {"steps": 3, "epoch": 2}

    def ways(self, episodes: Episodes) -> int | None:
        return None

    def adaptation(self, value: Network, learner: Learner | None) -> Adaptation:
        from mapsto.nn.meta.adaptation_methods import CENTROID

        own = value.adaptation or CENTROID
        return own if learner is None else dataclasses.replace(own, tensors=learner.detached())

    def predicts_values(self) -> bool:
        return True

    def is_whole(self, learner: Learner) -> bool:
        """Embeddings are read off the network's own layers."""
        return False

    def learner(self, value: Network, ctx: Context) -> tuple[Learner, tuple[Edit, ...], Signature]:
        """The student, which keeps its head if that adapts."""
        from mapsto.nn.meta.learner_module import Learner
        from mapsto.nn.network.head import headless

        module, adaptation = value.module(), self.adaptation(value, None)
        if _by_features(adaptation) is None:
            return Learner(module, adaptation), (), value.signature
        edit, signature = headless(value, module)
        return Learner(module, adaptation), (edit,) if edit else (), signature

    def objective(self, value: Network, ctx: Context) -> Callable[[Learner, Tensor, Task, int], Tensor]:
        import torch

        from mapsto.nn.distill.losses import distances
        from mapsto.nn.meta.adaptation_methods import CENTROID
        from mapsto.nn.network.head import headless
        from mapsto.nn.network.inference import compact

        teacher = ctx.network(self.teacher)
        module, adaptation = teacher.module(), teacher.adaptation or CENTROID
        if _by_features(adaptation) is not None:
            headless(teacher, module)
        module = compact(module.to(ctx.device)).requires_grad_(False)
        if value.signature.preprocessing != teacher.signature.preprocessing:
            raise DomainError(
                "teacher and student prepare their input differently",
                where="distill.meta: teacher",
                hint="give them networks of one preprocessing",
            )

        def loss(learner: Learner, inputs: Tensor, task: Task, step: int) -> Tensor:
            with torch.no_grad():
                goal, _, known = self._answers(module, adaptation, inputs, task)
            if not bool(goal.isfinite().all()):
                raise DomainError(
                    "the teacher's answers are not finite",
                    where="distill.meta: teacher",
                    hint="evaluate the teacher first",
                )
            path, labels, embedding = self._answers(learner.network, learner.adaptation, inputs, task)
            loss = self._compared(path, goal, labels)
            if embedding is not None and known is not None:
                loss = loss + self.features * distances(embedding, known)
            return loss

        return loss

    def _answers(
        self, module: nn.Module, adaptation: Adaptation, inputs: Tensor, task: Task
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Scores (K, N, ways), labels (N,), and the embeddings (B · (S + Q), D) where they are compared."""
        from mapsto.nn.meta.query_loss import adapted_path
        from mapsto.nn.network.head import embed
        from mapsto.nn.network.layer_calls import watching
        from mapsto.nn.train.batches import scores_and_labels

        if _by_features(adaptation) is None:
            path = adapted_path(module, adaptation, inputs, task).flatten(1, 2)
            return path, _labels(task, inputs), embed(module, inputs.flatten(0, 1)) if self.features else None
        seen: list[Tensor] = []

        with watching({"": module}, lambda _, __, output: seen.append(output)):
            if self.leave_one_out:
                scores, labels = scores_and_labels(module, inputs.flatten(0, 1), task, adaptation, leave_one_out=True)
            else:
                scores, labels = adapted_path(module, adaptation, inputs, task)[0].flatten(0, 1), _labels(task, inputs)
        return scores.unsqueeze(0), labels, seen[0] if self.features else None

    def _compared(self, path: Tensor, goal: Tensor, labels: Tensor) -> Tensor:
        import torch
        from torch.nn.functional import mse_loss

        from mapsto.nn.distill.divergences import difference
        from mapsto.nn.meta.inner_loop import loss_of

        def differ(ours: Tensor, theirs: Tensor) -> Tensor:
            if labels.is_floating_point() and self.difference != "cosine":
                return mse_loss(ours, theirs)  # softmax says nothing of values, and of a single one it is constant
            return difference(self.difference, ours, theirs, temperature=self.temperature)

        last = len(path) - 1
        steps = range(1, last + 1) if self.path and last else [last]
        soft = [differ(path[step], goal[round(step * (len(goal) - 1) / last) if last else -1]) for step in steps]
        return self.alpha * torch.stack(soft).mean() + (1 - self.alpha) * loss_of(path[last], labels)


def _labels(task: Task, inputs: Tensor) -> Tensor:
    import torch

    return torch.as_tensor(task.query_labels, device=inputs.device).flatten(0, 1)


def _by_features(adaptation: Adaptation) -> object | None:
    """What it adapts by, if by embeddings alone."""
    from mapsto.nn.meta.adaptation_methods import feature_method

    return feature_method(adaptation.method)

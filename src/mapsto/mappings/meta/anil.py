"""Learn an embedding over which a few gradient steps on a linear head are enough: MAML whose inner loop moves the head alone.

``min_{θ,W} Σ_t L_query(θ, W − α ∇_W L_support(θ, W))``, the inner gradient in closed form, so that each sample is embedded once and all
tasks adapt together (Raghu, Raghu, Bengio and Vinyals, "Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness
of MAML", 2020).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Adaptation, Network, Signature
from mapsto.nn.meta.outer_loop import Episodic

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.kinds import Edit
    from mapsto.nn.meta.learner_module import Learner

__all__ = ["Anil"]


class Anil(Episodic):
    """A learner: an embedding, and a linear head over it that adapts to a task by gradient descent.

    Batch norms take the statistics of all tasks of a step in training and the running ones in use, as in ProtoNet: a sample's
    embedding depends on nothing else, and adaptation can leave this library.

    >>> from mapsto import datasets, evaluate, networks
    >>> digits = datasets.digits(size=16)
    >>> tasks = datasets.episodes(data=digits, ways=3, shots=1, queries=5)
    >>> network = networks.conv4(data=digits, width=8)(seed=0)
    >>> learner = Anil(tasks=tasks, steps=40, learning_rate=0.005, head="zero")(network)
    >>> learner.adaptation.method
    'head_gradient'
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=5, shots=5, queries=5, seed=1), episodes=20)
    >>> bool(new(learner).metrics["accuracy"].value > 50)
    True
    """

    version: ClassVar[int] = 3

    inner_steps: int = Field(default=5, ge=1)
    """Inner steps in training; 5 in Raghu et al."""
    test_steps: int | None = Field(default=None, ge=1)
    """Inner steps in use; None for as many as in training."""
    inner_rate: float = Field(default=0.1, gt=0)
    """α, the inner learning rate; 0.1 for Omniglot in Raghu et al. Embeddings of many numbers want a smaller one."""
    head: Literal["learned", "zero"] = "learned"
    """`learned`: trained, for one number of ways; `zero`: it begins at 0 in each task, for any number."""
    first_order: bool = False
    """Whether inner gradients count as constants in the outer gradient."""

    def adaptation(self, value: Network, learner: Learner | None) -> Adaptation:
        from mapsto.nn.meta.adaptation.head_gradient import settings_of

        steps = self.inner_steps if learner is None else self.test_steps or self.inner_steps
        settings = settings_of(steps=steps, rate=self.inner_rate, head=self.head, first_order=self.first_order)
        tensors = {} if learner is None else learner.detached()
        return Adaptation(method="head_gradient", settings=settings, tensors=tensors)

    def predicts_values(self) -> bool:
        return True

    def learner(self, value: Network, ctx: Context) -> tuple[Learner, tuple[Edit, ...], Signature]:
        from mapsto.nn.meta.learner_module import Learner

        learner, edits, signature = super().learner(value, ctx)
        if self.head == "zero":
            return learner, edits, signature
        size, episodes = signature.outputs[0].shape[1], ctx.tasks(self.tasks)
        if not isinstance(size, int):
            raise DomainError(
                f"the embedding's size is {size!r}", where=self.name, hint="give a fixed size, or head: zero"
            )
        tensors = self._first_head(value, episodes.ways or episodes[0].outputs, size)
        adaptation = dataclasses.replace(learner.adaptation, tensors=tensors)
        return Learner(learner.network, adaptation), edits, signature

    def _first_head(self, value: Network, ways: int, size: int) -> dict[str, Tensor]:
        """The head of `value` where that is such a learner already, else zeros: which class has which place is chance, and a drawn
        head has to be unlearnt first.
        """
        import torch

        from mapsto.nn.meta.adaptation.head_gradient import BIAS, WEIGHT

        before = value.adaptation
        known = before.tensors.get(WEIGHT) if before is not None and before.method == "head_gradient" else None
        if before is not None and known is not None and tuple(known.shape) == (ways, size):
            return dict(before.tensors)
        return {WEIGHT: torch.zeros(ways, size), BIAS: torch.zeros(ways)}

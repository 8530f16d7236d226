"""Learn first weights near which every task's solution lies, the outer gradient from the solution alone and not from the way to it.

``φ_t = argmin_φ L_support(φ) + λ/2 ‖φ − θ‖²`` gives ``dφ/dθ = (I + ∇²L_support(φ)/λ)⁻¹``, whose product with ∇L_query(φ) a few steps of
conjugate gradients find, in memory that does not grow with the inner steps (Rajeswaran, Finn, Kakade and Levine, "Meta-Learning with
Implicit Gradients", 2019).
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.nn.meta.gradient_based import GradientBased

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.meta.batch_norm import Record
    from mapsto.nn.meta.inner_loop import FunctionalModule, Inner, Point
    from mapsto.nn.meta.learner_module import Learner

__all__ = ["Imaml"]


class Imaml(GradientBased):
    """A learner whose parameters all adapt to a task by gradient descent, held near where they began.

    >>> from mapsto import datasets, evaluate, networks
    >>> digits = datasets.digits(size=16)
    >>> tasks = datasets.episodes(data=digits, ways=3, shots=1, queries=5)
    >>> network = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> learner = Imaml(tasks=tasks, steps=10, inner_steps=8, solver_steps=2, engine="threads")(network)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=3, shots=1, queries=5, seed=1), episodes=20)
    >>> bool(new(learner).metrics["accuracy"].value > 50)
    True
    """

    contract: ClassVar[dict[str, Any]] = {"engine": "loop", "inner_steps": 2}

    inner_steps: int = Field(default=16, ge=1)
    """Inner steps in training; 16 for 5 ways, 25 for 20 in the paper."""
    inner_rate: float = Field(default=0.05, gt=0)
    """α, the inner learning rate; it has to be below 2 / (λ + the loss's greatest curvature), with batch norms some tens."""
    proximal: float = Field(default=2.0, gt=0)
    """λ, how strongly adapted parameters are held near; 2 in the paper."""
    solver_steps: int = Field(default=5, ge=1)
    """Steps of conjugate gradients; 5 in the paper."""
    damping: float = Field(default=10.0, ge=0)
    """Added to λ in the linear system alone, where inner steps end before the solution and the curvature may be negative; 10 as in
    the authors' code, 0 for the exact implicit gradient."""
    adapts: Literal["all"] = "all"
    """What the inner steps change."""
    first_order: Literal[False] = False
    """The outer gradient is implicit: it has the curvature at the solution in it."""
    checkpointing: Literal[False] = False
    """The inner steps are never gone back through."""

    def inner(self) -> Inner:
        return dataclasses.replace(super().inner(), proximal=self.proximal)

    def task_loss(
        self,
        learner: Learner,
        at: Mapping[str, Tensor],
        task: Sequence[Tensor],
        ways: int,
        step: int,
        *,
        functional: bool = False,
        record: Record | None = None,
    ) -> Tensor:
        """A number whose gradient is the implicit one, and whose value is the queries' loss at φ."""
        import torch

        from mapsto.nn.meta import inner_loop
        from mapsto.nn.meta.conjugate_gradient import conjugate_gradient

        start, tensors = learner.split(at)
        call = inner_loop.FunctionalModule(learner.module, self.inner(), tensors, record=record, functional=functional)
        origin = inner_loop.as_leaves(start, functional=functional)
        points = inner_loop.inner_path(
            call, origin, task[0], task[1], ways, steps=self.inner_steps, functional=functional
        )
        found = {name: value.detach() for name, value in deque(points, 1)[0].items()}
        loss, right, curvature = self._at(call, found, task, functional=functional)

        def product(vector: Point) -> Point:
            bent = curvature(vector)
            return {name: value + bent[name] / (self.proximal + self.damping) for name, value in vector.items()}

        solved = conjugate_gradient(product, right, self.solver_steps)
        linear = torch.stack([(value * solved[name].detach()).sum() for name, value in start.items()]).sum()
        return loss + linear - linear.detach()

    def _at(
        self, call: FunctionalModule, point: Point, task: Sequence[Tensor], *, functional: bool
    ) -> tuple[Tensor, Point, Any]:
        """At a solution: the queries' loss, its gradient, and the support loss's Hessian as a function of vectors."""
        import torch

        from mapsto.nn.meta.inner_loop import loss_of, query_scores

        support, support_labels, query, query_labels = task

        def outer(moved: Point) -> Tensor:
            return loss_of(query_scores(call, moved, support, query, self.inner_steps), query_labels)

        def inner(moved: Point) -> Tensor:
            return loss_of(call(moved, support, self.inner_steps), support_labels)

        if functional:
            right, loss = torch.func.grad_and_value(outer)(point)
            slope = torch.func.grad(inner)

            def along(vector: Point) -> Any:
                def slope_along(moved: Point) -> Tensor:
                    return _dot(slope(moved), vector)

                return torch.func.grad(slope_along)(point)

            return loss.detach(), right, along
        point = {name: value.requires_grad_() for name, value in point.items()}
        names, values = list(point), list(point.values())
        loss = outer(point)
        right = dict(zip(names, torch.autograd.grad(loss, values, materialize_grads=True), strict=True))
        slopes = torch.autograd.grad(inner(point), values, create_graph=True, materialize_grads=True)

        def product(vector: Point) -> Point:
            given = [vector[name] for name in names]
            bent = torch.autograd.grad(slopes, values, given, retain_graph=True, materialize_grads=True)
            return dict(zip(names, bent, strict=True))

        return loss.detach(), right, product


def _dot(a: Point, b: Point) -> Tensor:
    import torch

    return torch.stack([(a[name] * b[name]).sum() for name in b]).sum()

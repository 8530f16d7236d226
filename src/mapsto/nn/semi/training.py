"""Training on labelled examples and a pool: the loss of both, what is counted on the way, and the state that a rule adds to the loop's.

``loss = CE(f(w(x)), y) + λ · rule(f(w(u)), f(s(u)))`` with w a weak and s a strong random change. The answers to w(u) are targets and get
no gradient. Where the pool is not used, labelled examples are changed weakly and strongly instead: supervised training with the same
augmentations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mapsto.context import Context
from mapsto.data.augment import Augmentation
from mapsto.kinds import Preprocessing
from mapsto.nn.network.inference import evaluating
from mapsto.nn.semi.batches import Both
from mapsto.nn.semi.rules import Answers, Rule
from mapsto.nn.train.augmenter import Augmenter
from mapsto.nn.train.batches import Batch
from mapsto.nn.train.loop import Training
from mapsto.process import Rows, State
from mapsto_runtime.shown import few, short

__all__ = ["Objective", "PoolTraining"]


class Objective:
    """The loss of a step, and counts of what passed the rule's threshold since the pool was last begun.

    Parameters
    ----------
    rule
        For the pool; None where it is not used.
    weight
        λ.
    weak, strong
        Augmentations; an empty `strong` stands for the weak ones once more.
    preprocessing, classes
        Of the network.
    steps, per_epoch
        Steps in all, and those in which the pool is gone through once.
    quiet
        Whether nothing is noted at the end.
    """

    def __init__(
        self,
        rule: Rule | None,
        weight: float,
        weak: tuple[Augmentation, ...],
        strong: tuple[Augmentation, ...],
        preprocessing: Preprocessing,
        classes: Sequence[str],
        steps: int,
        per_epoch: int,
        ctx: Context,
        *,
        quiet: bool = False,
    ) -> None:
        self._rule, self._weight, self._preprocessing = rule, weight, preprocessing
        self._weak, self._strong = (Augmenter(each, ctx, classes=len(classes)) for each in (weak, strong or weak))
        self._steps, self._per_epoch, self._classes = steps, per_epoch, classes
        self._say = None if quiet else ctx.note
        self._guessed = torch.zeros(len(classes), dtype=torch.int64)
        self._seen = 0
        self._last: dict[str, float] = {}
        self.teacher: Callable[[], nn.Module | None] = lambda: None
        """Gives the average of the weights."""

    def __call__(self, call: nn.Module, item: Both) -> Tensor:
        step = item.labelled.step
        if step % self._per_epoch == 0:
            self._guessed, self._seen = torch.zeros_like(self._guessed), 0
        labelled = self._changed(self._weak, item.labelled, 3 * step)
        targets = torch.as_tensor(item.labelled.labels, device=labelled.device)
        if self._rule is None or item.pool is None:
            twice = torch.cat([labelled, self._changed(self._strong, item.labelled, 3 * step + 2)])
            return cross_entropy(call(twice), targets.repeat(2))
        weak = self._answers(call, self._changed(self._weak, item.pool, 3 * step + 1))
        together = torch.cat([labelled, self._changed(self._strong, item.pool, 3 * step + 2)])
        known, strong = call(together).split([len(labelled), len(weak)])
        verdict = self._rule.judge(Answers(weak, strong, item.pool.labels, step / self._steps))
        self._count(verdict.guessed, verdict.passed)
        supervised = cross_entropy(known, targets)
        self._last |= {"labelled_loss": float(supervised.detach()), "pool_loss": float(verdict.loss.detach())}
        return supervised + self._weight * verdict.loss

    def metrics(self) -> dict[str, float]:
        """Of the last step; nothing where the pool is not used."""
        return dict(self._last)

    def account(self) -> dict[str, Any]:
        """How many samples of the pool passed since it was last begun, of how many, and how many were taken for each class."""
        return {"seen": self._seen, "passed": int(self._guessed.sum()), "guessed": self._guessed.tolist()}

    def end(self) -> None:
        """Note what passed in the last pass over the pool."""
        if self._say is None or not self._seen:
            return
        counts: list[int] = self._guessed.tolist()
        passed = sum(counts)
        order = sorted(range(len(counts)), key=lambda place: -counts[place])
        taken = few([f"'{short(self._classes[place])}' {counts[place]}" for place in order])
        self._say(
            f"{passed} of {self._seen} samples of the pool ({100 * passed / self._seen:.0f} %) passed the threshold in the last pass over "
            f"it, taken for {taken}"
        )

    def state(self) -> State:
        return {
            "guessed": self._guessed.clone(),
            "seen": self._seen,
            "rule": {} if self._rule is None else {name: each.clone() for name, each in self._rule.state().items()},
        }

    def restore(self, state: State) -> None:
        self._guessed, self._seen = state["guessed"].clone(), int(state["seen"])
        if self._rule is not None:
            self._rule.restore({name: each.clone() for name, each in state["rule"].items()})

    def _changed(self, augmenter: Augmenter, batch: Batch, item: int) -> Tensor:
        return augmenter(batch.inputs, batch.labels, item, self._preprocessing).x

    def _answers(self, call: nn.Module, inputs: Tensor) -> Tensor:
        """Answers that are taken for targets, (n, K)."""
        teacher = self.teacher() if self._rule is not None and self._rule.teacher else None
        with torch.no_grad():
            if teacher is None:
                return call(inputs)
            with evaluating(teacher):
                return teacher(inputs)

    def _count(self, guessed: Tensor, passed: Tensor) -> None:
        taken = guessed[passed].cpu()
        self._guessed = self._guessed + torch.bincount(taken, minlength=len(self._guessed))
        self._seen += len(passed)
        self._last = {"passed": float(passed.float().mean())}


class PoolTraining(Training):
    """The one loop, with an objective that has a memory; the other arguments are those of `Training`."""

    def __init__(self, module: nn.Module, state: State | None, *, objective: Objective, **loop: Any) -> None:
        super().__init__(module, state, loss=objective, **loop)
        self._objective = objective
        objective.teacher = lambda: self._average
        if state is not None:
            objective.restore(state["pool"])

    def advance(self, item: Any) -> Rows:
        rows = [(step, {**metrics, **self._objective.metrics()}) for step, metrics in super().advance(item)]
        if self.done:
            self._objective.end()
        return rows

    def snapshot(self) -> State:
        return {**super().snapshot(), "pool": self._objective.state()}

    def account(self) -> dict[str, Any]:
        return self._objective.account()

"""Trainings on the examples outside each fold, side by side with one on all: they say when it is best to stop, without a held-out set.

After each epoch of the training on all examples, each of them goes through its own once, at the same rate; together they are judged on
the examples that each was not trained on (Stone, "Cross-Validatory Choice and Assessment of Statistical Predictions", 1974).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mapsto.data.stratify import fold_of_each
from mapsto.kinds import Preprocessing, Samples
from mapsto.nn.network.inference import forward
from mapsto.nn.train.batches import Batches
from mapsto.nn.train.loop import Training
from mapsto.nn.train.metrics import target_metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.process import State

__all__ = ["ENOUGH", "FoldTraining", "FoldTrainings", "folds_to_train"]

ENOUGH: Final = 200
"""Held-out examples that are enough to judge by; of more examples not every fold is trained."""


def folds_to_train(labels: NDArray[Any], folds: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Places to learn from and to judge by, of one fold after another until `ENOUGH` are judged; no fold where no class has two.

    An example that is alone in its class is in no fold: it is always learnt from.

    >>> [(len(learn), len(judge)) for learn, judge in folds_to_train(np.repeat([0, 1], 6), 3)]
    [(8, 4), (8, 4), (8, 4)]
    >>> [(len(learn), len(judge)) for learn, judge in folds_to_train(np.repeat([0, 1], 500), 3)]
    [(666, 334)]
    >>> folds_to_train(np.array([0, 1, 2]), 3)
    []
    """
    counts = np.bincount(labels)
    fold = np.where(counts[labels] > 1, fold_of_each(labels, folds, 0), -1)
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for number in range(folds):
        if np.any(fold == number) and sum(len(judge) for _, judge in found) < ENOUGH:
            found.append((np.flatnonzero(fold != number), np.flatnonzero(fold == number)))
    return found


@dataclass(frozen=True)
class FoldTraining:
    """A training on what lies outside a fold."""

    training: Training
    batches: Batches
    judge: Samples
    """The fold."""


class FoldTrainings:
    """What follows a training: `leader`, once that is there."""

    def __init__(
        self, parts: Sequence[FoldTraining], preprocessing: Preprocessing, best: Sequence[State] | None = None
    ) -> None:
        self._parts, self._preprocessing = parts, preprocessing
        self._best = list(best or [])
        """What each was at the leader's best epoch."""
        self.leader: Training | None = None

    def validate(self, module: object) -> dict[str, float]:
        """Loss and accuracy on the examples of all folds, after one more epoch where there is a leader, which has just ended one.

        `module`, the leader's own, has learnt from all of them, and is not asked.
        """
        if self.leader is not None:
            self._advance(self.leader)
        outputs: list[torch.Tensor] = []
        for part in self._parts:
            training = part.training
            device = next(training.judged.parameters()).device
            outputs.append(forward(training.judged, part.judge.inputs, self._preprocessing, device=device))
        labels = torch.as_tensor(np.concatenate([part.judge.labels for part in self._parts]))
        return target_metrics("classification", torch.cat(outputs), labels)

    def _advance(self, leader: Training) -> None:
        """One epoch of each, from where the leader's began: if that went back to its best epoch, so do they."""
        before = math.ceil(leader.step / leader.epoch) - 1
        if leader.figures.get("epoch") == before:
            self._best = [part.training.held() for part in self._parts]
        for place, part in enumerate(self._parts):
            training, steps = part.training, part.batches.per_epoch
            if leader.went_back and self._best:
                training.take_up(self._best[place])
            training.follow(leader.lowered)
            end = (math.ceil(training.step / steps) + 1) * steps
            while not training.done and training.step < end:
                training.advance(part.batches[training.step])

    def snapshot(self) -> dict[str, list[State]]:
        """The state of each, now and at the best epoch."""
        return {"parts": [part.training.snapshot() for part in self._parts], "best": self._best}

    def __str__(self) -> str:
        examples = sum(len(part.judge) for part in self._parts)
        return f"cross-validation ({len(self._parts)} fold{'s' if len(self._parts) > 1 else ''}, {examples} examples)"

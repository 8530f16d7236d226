"""What several learners say of an event as one answer, by mixtures that learn whom to follow.

Of classes four log-linear mixtures ``p ∝ exp Σ w_m log p_m``, whose weights go down the gradient of their log loss (Mattern, "Linear and
Geometric Mixtures", 2013), and three pools that weigh by discounted counts of right answers; the answer weighs those seven by how often
each was right lately. Of values two linear mixtures by normalised gradient descent and two pools by discounted squared errors. These are
the mixtures of `online.tabular`, for members that come and go; how sharply they follow was chosen on ten streams that no benchmark has.
"""

from __future__ import annotations

import ctypes
from abc import abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mapsto.native.tabular import learner_library

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Task

__all__ = ["Mixture", "mixture_of", "softmax"]

_POOL_RATES = np.array([0.3, 1.0, 3.0])
_LAST_RATE = 1.0
"""As in ``native/csrc/select_learner.cpp``."""
_VALUE_STEPS = np.array([0.003, 0.03])
_VALUE_RATES, _VALUE_MEMORY = np.array([1.0, 4.0]), np.array([0.998, 0.99])
_VALUE_LAST_RATE, _VALUE_LAST_MEMORY = 1.0, 0.998
_FAR = 4.0
"""An error counts up to here, in standard deviations of the target."""


class Mixture:
    """Mixtures of M members. `there` (M,) says which of them have answered; the others have no part."""

    @abstractmethod
    def run(self, said: NDArray[np.float64], there: NDArray[np.bool_], labels: NDArray[Any]) -> NDArray[np.float64]:
        """Answer n events one after the other, and learn those that have a label.

        Parameters
        ----------
        said
            (n, M, K), what members say of each.
        there
            (n, M).
        labels
            (n,), int32 numbers of classes, -1 without a label; or values, NaN without one.

        Returns
        -------
        NDArray
            (n, K), each from before its label; 0 where no member has answered.
        """

    def answer(self, said: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The answer (K,) of what the members say of an event (M, K). Changes nothing."""
        return self.run(said[None], there[None], self.unlabelled)[0]

    unlabelled: ClassVar[NDArray[Any]]
    """The label of one event that has none."""

    @abstractmethod
    def shares(self, there: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Shares (M,) of the answer at present, which sum to 1."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from another's state. Raises `ValueError` or `LookupError` where it is of other members."""


class _Learnt(ctypes.Structure):
    """As in ``native/csrc/select_learner.cpp``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "right", "good", "events")),
        ("members", ctypes.c_int32),
    )


@cache
def _library() -> ctypes.CDLL:
    """Raises `DomainError` where it is neither prebuilt for this machine nor can be compiled."""
    library = ctypes.CDLL(str(learner_library("select_learner")))
    library.mapsto_select_run.restype = None
    library.mapsto_select_run.argtypes = (
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int32,
        *(ctypes.c_void_p,) * 4,
    )
    return library


def mixture_of(task: Task, members: int) -> Mixture:
    """Mixtures of so many members, for such labels."""
    return _ClassMixture(members) if task == "classes" else _ValueMixture(members)


class _Flat(Mixture):
    """A state of named arrays of fixed shapes."""

    def __init__(self, **parts: NDArray[np.float64]) -> None:
        self._state = parts

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: array.copy() for name, array in self._state.items()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name, array in self._state.items():
            if arrays[name].shape != array.shape or not np.isfinite(arrays[name]).all():
                raise ValueError(f"a mixture's {name} of shape {arrays[name].shape}, or NaN in it")
        self._state = {name: arrays[name].copy() for name in self._state}


class _ClassMixture(_Flat):
    """Of classes, in C++.

    >>> mixture = _ClassMixture(2)
    >>> said, there = np.array([[[0.9, 0.1], [0.4, 0.6]]]), np.ones((1, 2), bool)
    >>> for _ in range(50):
    ...     answer = mixture.run(said, there, np.array([1], np.int32))
    >>> mixture.shares(there[0]).round(1).tolist(), int(answer[0].argmax())
    ([0.0, 1.0], 1)
    """

    unlabelled = np.array([-1], np.int32)

    def __init__(self, members: int) -> None:
        self._run = _library().mapsto_select_run
        super().__init__(
            weights=np.full((4, members), 1.0 / members),
            right=np.zeros((3, members)),
            good=np.zeros(7),
            learnt=np.zeros(1),
        )

    def run(self, said: NDArray[np.float64], there: NDArray[np.bool_], labels: NDArray[Any]) -> NDArray[np.float64]:
        state = self._state
        said, there = np.ascontiguousarray(said), np.ascontiguousarray(there)
        labels = np.ascontiguousarray(labels, np.int32)
        answers = np.empty((said.shape[0], said.shape[2]))
        at = (state[name].ctypes.data for name in ("weights", "right", "good", "learnt"))
        learnt = _Learnt(*at, said.shape[1])
        self._run(
            ctypes.byref(learnt),
            said.shape[0],
            said.shape[2],
            said.ctypes.data,
            there.ctypes.data,
            labels.ctypes.data,
            answers.ctypes.data,
        )
        return answers

    def shares(self, there: NDArray[np.bool_]) -> NDArray[np.float64]:
        present = np.flatnonzero(there)
        weights = np.maximum(self._state["weights"][:, present], 0.0) + 1e-300
        pools = softmax(_POOL_RATES[:, None] * self._state["right"][:, present])
        parts = np.concatenate([weights / weights.sum(1, keepdims=True), pools])
        shares = np.zeros(len(there))
        shares[present] = softmax(_LAST_RATE * self._state["good"]).dot(parts)
        return shares


class _ValueMixture(_Flat):
    """Of values, which it scales by the targets met so far.

    >>> mixture, there = _ValueMixture(2), np.ones(2, bool)
    >>> for target in (1.0, 2.0, 3.0, 1.5) * 20:
    ...     _ = mixture.run(np.array([[[target], [9.0]]]), there[None], np.array([target]))
    >>> bool(abs(mixture.answer(np.array([[2.0], [9.0]]), there)[0] - 2.0) < 0.1)
    True
    """

    unlabelled = np.array([np.nan])

    def __init__(self, members: int) -> None:
        super().__init__(
            weights=np.full((2, members), 1.0 / members),
            losses=np.zeros((2, members)),
            totals=np.zeros(4),
            target=np.zeros(3),
        )

    def run(self, said: NDArray[np.float64], there: NDArray[np.bool_], labels: NDArray[Any]) -> NDArray[np.float64]:
        answers = np.zeros((len(said), 1))
        for event, label in enumerate(labels.tolist()):
            own, present = said[event], there[event]
            if present.any():
                mean, scale = self._scale()
                weights = softmax(-_VALUE_LAST_RATE * self._state["totals"])
                answers[event, 0] = (weights * self._mixed(own, present)).sum() * scale + mean
                if label == label:  # noqa: PLR0124 - NaN
                    self._learn(own, present, label)
        return answers

    def _learn(self, said: NDArray[np.float64], there: NDArray[np.bool_], label: float) -> None:
        state = self._state
        mean, scale = self._scale()
        present = np.flatnonzero(there)
        own, target = (said[present, 0] - mean) / scale, (label - mean) / scale
        mixed = self._mixed(said, there)
        errors = np.clip(mixed[:2] - target, -_FAR, _FAR)
        state["weights"][:, present] -= (_VALUE_STEPS * errors)[:, None] * own / (1e-3 + (own * own).sum())
        losses = state["losses"][:, present] * _VALUE_MEMORY[:, None]
        state["losses"][:, present] = losses + np.clip(own - target, -_FAR, _FAR) ** 2
        state["totals"] *= _VALUE_LAST_MEMORY
        state["totals"] += np.clip(mixed - target, -_FAR, _FAR) ** 2
        count, middle, spread = state["target"].tolist()
        away = label - middle
        middle += away / (count + 1.0)
        state["target"][:] = count + 1.0, middle, spread + away * (label - middle)

    def shares(self, there: NDArray[np.bool_]) -> NDArray[np.float64]:
        present = np.flatnonzero(there)
        weights = np.maximum(self._state["weights"][:, present], 0.0) + 1e-300
        parts = np.concatenate([weights / weights.sum(1, keepdims=True), self._pools(present)])
        shares = np.zeros(len(there))
        shares[present] = (softmax(-_VALUE_LAST_RATE * self._state["totals"])[:, None] * parts).sum(0)
        return shares

    def _scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the targets so far."""
        count, mean, spread = self._state["target"].tolist()
        return mean, (spread / count) ** 0.5 if count > 1 and spread > 0 else 1.0

    def _mixed(self, said: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
        mean, scale = self._scale()
        present = np.flatnonzero(there)
        own = (said[present, 0] - mean) / scale
        # a mixture of members that are not all there keeps its sum of weights
        weights = self._state["weights"]
        part = weights[:, present]
        kept = part.sum(1, keepdims=True)
        whole = weights.sum(1, keepdims=True)
        linear = np.where(np.abs(kept) > 1e-9, part * (whole / np.where(kept == 0, 1.0, kept)), 1.0 / len(present))
        return np.concatenate([(linear * own).sum(1), (self._pools(present) * own).sum(1)])

    def _pools(self, present: NDArray[np.int64]) -> NDArray[np.float64]:
        return softmax(-_VALUE_RATES[:, None] * self._state["losses"][:, present])


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last dimension."""
    raised = np.exp(logits - np.maximum.reduce(logits, -1, keepdims=True))
    raised /= np.add.reduce(raised, -1, keepdims=True)
    return raised

"""What several learners say of an event as one answer, by mixtures that learn whom to follow.

Of classes four log-linear mixtures ``p ∝ exp Σ w_m log p_m``, whose weights go down the gradient of their log loss (Mattern, "Linear and
Geometric Mixtures", 2013), and two pools that weigh by discounted counts of right answers; the answer weighs those six by how often each
was right lately. Of values two linear mixtures by normalised gradient descent and two pools by discounted squared errors. These are the
mixtures of `online.tabular`, for members that come and go.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Task

__all__ = ["Mixture", "mixture_of"]

_UNIFORM = 0.02
"""Share of the uniform distribution in what a member says, so that no logarithm is large."""
_RATES, _FADING_RATES = np.array([0.1, 0.3, 0.0, 0.0]), np.array([0.0, 0.0, 0.3, 1.0])
"""Of the log-linear mixtures, each divided by the members; the last two fade as ``1 / √(1 + t / 100)``."""
_POOL_RATES, _POOL_MEMORY = np.array([0.3, 1.0]), np.array([0.998, 0.999])
_LAST_RATE, _LAST_MEMORY = 0.3, 0.998
_VALUE_STEPS = np.array([0.003, 0.03])
_VALUE_RATES, _VALUE_MEMORY = np.array([1.0, 4.0]), np.array([0.998, 0.99])
_VALUE_LAST_RATE, _VALUE_LAST_MEMORY = 1.0, 0.998
_FAR = 4.0
"""An error counts up to here, in standard deviations of the target."""


class Mixture:
    """Mixtures of M members. `there` (M,) says which of them have answered; the others have no part."""

    @abstractmethod
    def answer(self, said: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The answer (K,) of what the members say (M, K). Changes nothing."""

    @abstractmethod
    def learn(self, said: NDArray[np.float64], there: NDArray[np.bool_], label: float) -> None:
        """Learn what they said, and what was right: the number of a class, or a value."""

    @abstractmethod
    def shares(self, there: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Shares (M,) of the answer at present, which sum to 1."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from another's state. Raises `ValueError` or `LookupError` where it is of other members."""


def mixture_of(task: Task, members: int) -> Mixture:
    """Mixtures of so many members, for such labels."""
    return _ClassMixture(members) if task == "classes" else _ValueMixture(members)


class _Mixed(NamedTuple):
    """Of an event: what the six mixtures say (6, K), the logarithms of what members say (m, K), and which these are; None for all."""

    mixed: NDArray[np.float64]
    logs: NDArray[np.float64]
    present: NDArray[np.int64] | None


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
    """Of classes.

    >>> mixture = _ClassMixture(2)
    >>> said, there = np.array([[0.9, 0.1], [0.4, 0.6]]), np.ones(2, bool)
    >>> for _ in range(50):
    ...     mixture.learn(said, there, 1)
    >>> mixture.shares(there).round(1).tolist(), int(mixture.answer(said, there).argmax())
    ([0.0, 1.0], 1)
    """

    def __init__(self, members: int) -> None:
        super().__init__(
            weights=np.full((4, members), 1.0 / members),
            right=np.zeros((2, members)),
            good=np.zeros(6),
            learnt=np.zeros(1),
        )
        self._last: tuple[NDArray[np.float64], _Mixed] | None = None
        """What members said of the event that was answered last, and the mixtures of it."""

    def answer(self, said: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
        mixed, _, _ = self._mixed(said, there)
        return _softmax(_LAST_RATE * self._state["good"]).dot(mixed)

    def learn(self, said: NDArray[np.float64], there: NDArray[np.bool_], label: float) -> None:
        state, number = self._state, int(label)
        mixed, logs, present = self._mixed(said, there)
        self._last = None
        state["learnt"] += 1.0
        fading = 1.0 / (1.0 + state["learnt"].item() / 100.0) ** 0.5
        rates = (_RATES + _FADING_RATES * fading) / len(logs)
        slopes = mixed[:4].dot(logs.T)
        slopes -= logs[:, number]
        slopes *= rates[:, None]
        own = said if present is None else said[present]
        hits = own.argmax(1) == number
        if present is None:
            state["weights"] -= slopes
            state["right"] *= _POOL_MEMORY[:, None]
            state["right"] += hits
        else:
            state["weights"][:, present] -= slopes
            # those that rest keep what they had
            state["right"][:, present] = state["right"][:, present] * _POOL_MEMORY[:, None] + hits
        state["good"] *= _LAST_MEMORY
        state["good"] += mixed.argmax(1) == number

    def shares(self, there: NDArray[np.bool_]) -> NDArray[np.float64]:
        present = np.flatnonzero(there)
        weights = np.maximum(self._state["weights"][:, present], 0.0) + 1e-300
        parts = np.concatenate([weights / weights.sum(1, keepdims=True), self._pools(present)])
        shares = np.zeros(len(there))
        shares[present] = _softmax(_LAST_RATE * self._state["good"]).dot(parts)
        return shares

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().restore(arrays)
        self._last = None

    def _mixed(self, said: NDArray[np.float64], there: NDArray[np.bool_]) -> _Mixed:
        """What the mixtures say of an event; of the event that was answered last it is known."""
        if self._last is not None and self._last[0] is said:
            return self._last[1]
        present = None if there.all() else np.flatnonzero(there)
        own = said if present is None else said[present]
        logs = np.log((1.0 - _UNIFORM) * own + _UNIFORM / own.shape[1])
        weights = self._state["weights"] if present is None else self._state["weights"][:, present]
        mixed = np.empty((6, own.shape[1]))
        mixed[:4] = _softmax(weights.dot(logs))
        mixed[4:] = self._pools(present).dot(own)
        found = _Mixed(mixed, logs, present)
        self._last = (said, found)
        return found

    def _pools(self, present: NDArray[np.int64] | None) -> NDArray[np.float64]:
        right = self._state["right"] if present is None else self._state["right"][:, present]
        return _softmax(_POOL_RATES[:, None] * right)


class _ValueMixture(_Flat):
    """Of values, which it scales by the targets met so far.

    >>> mixture, there = _ValueMixture(2), np.ones(2, bool)
    >>> for target in (1.0, 2.0, 3.0, 1.5) * 20:
    ...     mixture.learn(np.array([[target], [9.0]]), there, target)
    >>> bool(abs(mixture.answer(np.array([[2.0], [9.0]]), there)[0] - 2.0) < 0.1)
    True
    """

    def __init__(self, members: int) -> None:
        super().__init__(
            weights=np.full((2, members), 1.0 / members),
            losses=np.zeros((2, members)),
            totals=np.zeros(4),
            target=np.zeros(3),
        )

    def answer(self, said: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
        mean, scale = self._scale()
        weights = _softmax(-_VALUE_LAST_RATE * self._state["totals"])
        return (weights * self._mixed(said, there)).sum(keepdims=True) * scale + mean

    def learn(self, said: NDArray[np.float64], there: NDArray[np.bool_], label: float) -> None:
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
        shares[present] = (_softmax(-_VALUE_LAST_RATE * self._state["totals"])[:, None] * parts).sum(0)
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
        return _softmax(-_VALUE_RATES[:, None] * self._state["losses"][:, present])


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last dimension."""
    raised = np.exp(logits - np.maximum.reduce(logits, -1, keepdims=True))
    raised /= np.add.reduce(raised, -1, keepdims=True)
    return raised

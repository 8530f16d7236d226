"""The rules of training with a pool: which answers count, and what is done with them; see `mapsto.nn.semi.rules`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mapsto.nn.semi.rules import Answers, Rule, Verdict, masked_cross_entropy, ramp

__all__ = ["Averaged", "Fixed", "Flexible", "Free"]


class Fixed(Rule):
    """One threshold, always; with `rising` the loss counts nothing up to the first share of the training, and wholly from the second on."""

    teacher = False

    def __init__(self, threshold: float, rising: tuple[float, float] | None = None) -> None:
        self._threshold, self._rising = threshold, rising

    def judge(self, answers: Answers) -> Verdict:
        sure, guessed = answers.weak.softmax(1).max(1)
        passed = sure >= self._threshold
        counts = 1.0
        if self._rising is not None:
            start, end = self._rising
            counts = min(max((answers.progress - start) / (end - start), 0.0), 1.0)
        return Verdict(counts * masked_cross_entropy(answers.strong, guessed, passed), guessed, passed)


class Flexible(Rule):
    """A threshold a class that falls with how few samples of the pool are taken for it at the highest one."""

    teacher = False

    def __init__(self, threshold: float, classes: int, pool: int) -> None:
        self._threshold, self._classes = threshold, classes
        self._taken = torch.full((pool,), -1, dtype=torch.int64)
        """What each sample of the pool was last surely taken for; −1: nothing yet."""

    def judge(self, answers: Answers) -> Verdict:
        sure, guessed = answers.weak.softmax(1).max(1)
        passed = sure >= self.thresholds().to(sure.device)[guessed]
        certain = (sure >= self._threshold).cpu()
        self._taken = self._taken.clone()
        self._taken[torch.as_tensor(answers.places)[certain]] = guessed.cpu()[certain]
        return Verdict(masked_cross_entropy(answers.strong, guessed, passed), guessed, passed)

    def thresholds(self) -> Tensor:
        """One a class, shape (K,)."""
        counts = torch.bincount(self._taken + 1, minlength=self._classes + 1)
        unused, taken = int(counts[0]), counts[1:].float()
        share = taken / max(unused, float(taken.max()), 1.0)
        return self._threshold * share / (2 - share)

    def state(self) -> dict[str, Tensor]:
        return {"taken": self._taken}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._taken = state["taken"]


class Free(Rule):
    """Thresholds that follow the mean sureness and the mean answers, and the fairness term."""

    teacher = False

    def __init__(self, decay: float, fairness: float, classes: int) -> None:
        self._decay, self._fairness = decay, fairness
        self._seen = torch.zeros(())
        self._sure = torch.full((), 1 / classes)
        self._answered, self._frequency = torch.full((2, classes), 1 / classes)

    def judge(self, answers: Answers) -> Verdict:
        shares = answers.weak.softmax(1)
        sure, guessed = shares.max(1)
        self._learn(shares.cpu(), sure.cpu(), guessed.cpu())
        passed = sure >= self.thresholds().to(sure.device)[guessed]
        loss = masked_cross_entropy(answers.strong, guessed, passed)
        if self._fairness and bool(passed.any()):
            loss = loss + self._fairness * self._unfair(answers.strong[passed])
        return Verdict(loss, guessed, passed)

    def thresholds(self) -> Tensor:
        """One a class, shape (K,)."""
        return self._sure * self._answered / self._answered.max()

    def state(self) -> dict[str, Tensor]:
        return {
            "seen": self._seen,
            "sure": self._sure,
            "answered": self._answered,
            "frequency": self._frequency,
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        self._seen, self._sure = state["seen"], state["sure"]
        self._answered, self._frequency = state["answered"], state["frequency"]

    def _learn(self, shares: Tensor, sure: Tensor, guessed: Tensor) -> None:
        seen = float(self._seen)
        anew = 1 - min(self._decay, (1 + seen) / (10 + seen))
        frequency = one_hot(guessed, shares.shape[1]).float().mean(0)
        self._seen = self._seen + 1
        self._sure = self._sure.lerp(sure.mean(), anew)
        self._answered = self._answered.lerp(shares.mean(0), anew)
        self._frequency = self._frequency.lerp(frequency, anew)

    def _unfair(self, strong: Tensor) -> Tensor:
        """``Σ q log r``: lower where the answers to this batch go to the classes that were answered less."""
        shares = strong.softmax(1)
        frequency = one_hot(shares.argmax(1), shares.shape[1]).float().mean(0)
        before = _evened(self._answered.to(strong.device), self._frequency.to(strong.device))
        return (before * (_evened(shares.mean(0), frequency) + 1e-12).log()).sum()


class Averaged(Rule):
    """The squared distance to the answers of the average of the weights; every sample counts."""

    teacher = True

    def __init__(self, rising: float) -> None:
        self._rising = rising

    def judge(self, answers: Answers) -> Verdict:
        wanted = answers.weak.softmax(1)
        apart = (answers.strong.softmax(1) - wanted).square().mean()
        guessed = wanted.argmax(1)
        return Verdict(
            ramp(answers.progress, self._rising) * apart, guessed, torch.ones_like(guessed, dtype=torch.bool)
        )


def _evened(shares: Tensor, frequency: Tensor) -> Tensor:
    """Mean shares divided by how often each class is answered, normalised; a class that never is counts nothing."""
    weighted = torch.where(frequency > 0, shares / frequency.clamp_min(1e-12), torch.zeros_like(shares))
    return weighted / weighted.sum().clamp_min(1e-12)

"""What a rule for samples without labels is: from the network's answers to two changed copies of each, a loss, and which of them count."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Answers", "Rule", "Verdict", "masked_cross_entropy", "ramp"]


class Answers(NamedTuple):
    """Of a batch of n samples of the pool."""

    weak: Tensor
    """Logits (n, K) of their slightly changed copies, without a gradient."""
    strong: Tensor
    """Logits (n, K) of their strongly changed copies."""
    places: NDArray[Any]
    """Where in the pool they stand, (n,)."""
    progress: float
    """Share of the training that is done, 0 to 1."""


class Verdict(NamedTuple):
    """What a rule makes of a batch."""

    loss: Tensor
    """A scalar, to be added to that of the labelled examples."""
    guessed: Tensor
    """The likeliest class of each sample, (n,)."""
    passed: Tensor
    """Which of them count, (n,), bool."""


class Rule(Protocol):
    """Stateful: what it has seen decides its thresholds, and is in the state of the training."""

    teacher: bool
    """Whether `weak` is answered by the average of the weights instead of the network."""

    @abstractmethod
    def judge(self, answers: Answers) -> Verdict:
        """The loss of a batch, and what passed."""

    def state(self) -> dict[str, Tensor]:
        """Its memory; empty where it has none."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state`."""


def masked_cross_entropy(strong: Tensor, guessed: Tensor, passed: Tensor) -> Tensor:
    """``(1/n) Σ_passed −log softmax(strong)[guessed]``: what did not pass counts as a loss of 0.

    >>> import torch
    >>> loss = masked_cross_entropy(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([True, False]))
    >>> round(float(loss), 4)
    0.3466
    """
    from torch.nn.functional import cross_entropy

    return (cross_entropy(strong, guessed, reduction="none") * passed).mean()


def ramp(progress: float, over: float) -> float:
    """``exp(−5 (1 − t)²)`` with t the progress as a share of `over`, at most 1 (Laine and Aila, "Temporal Ensembling", 2017).

    >>> [round(ramp(progress, 0.5), 3) for progress in (0.0, 0.25, 0.5, 1.0)]
    [0.007, 0.287, 1.0, 1.0]
    """
    import math

    share = min(progress / over, 1.0) if over > 0 else 1.0
    return math.exp(-5 * (1 - share) ** 2)

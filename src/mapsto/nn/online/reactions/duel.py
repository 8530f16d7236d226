"""Two learners judged on the same events: a sign test on those where one was better than the other.

``z = (b - c) / √(b + c)``, where the second was better b times and worse c times (McNemar, 1947; of values the sign test).
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Duel"]

_LEAST = 8
"""Events on which the two differ, at least, before one is said to be better."""


class Duel:
    """The count of a duel.

    >>> duel = Duel()
    >>> for _ in range(12):
    ...     duel.see(1.0, 0.0)
    >>> duel.z > 3, duel.is_better(2.5)
    (True, True)
    """

    def __init__(self, counts: Sequence[int] = (0, 0, 0)) -> None:
        self.events, self.better, self.worse = (int(count) for count in counts)

    def see(self, first: float, second: float) -> None:
        """Take in the errors of both on an event."""
        self.events += 1
        self.better += second < first
        self.worse += second > first

    @property
    def z(self) -> float:
        differing = self.better + self.worse
        return (self.better - self.worse) / differing**0.5 if differing else 0.0

    def is_better(self, least: float) -> bool:
        """Whether the second is better, by so many standard deviations at least."""
        return self.better + self.worse >= _LEAST and self.z >= least

    @property
    def counts(self) -> list[int]:
        """The state."""
        return [self.events, self.better, self.worse]

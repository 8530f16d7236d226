"""Regression tasks: a sine wave from a few of its points, the waves differing in amplitude and phase.

``y = A sin(x + φ)`` with A and φ uniform over tasks and x uniform (Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast
Adaptation of Deep Networks", 2017, section 5.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.kinds import Episode, Episodes, Tasks

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Sinusoids"]


class Sinusoids(Tasks):
    """Sine waves, each a task of `shots` points to learn from and `queries` to predict.

    >>> wave = Sinusoids(shots=5, queries=10).open()[0]
    >>> wave.support.shape, wave.query_labels.shape, wave.classes
    ((5, 1), (10, 1), ())
    """

    shots: int = Field(default=10, ge=1)
    """Points to learn from; 5, 10 or 20 in the paper."""
    queries: int = Field(default=10, ge=1)
    """Points to predict; as many as shots in the paper's training."""
    amplitude: tuple[float, float] = (0.1, 5.0)
    """Lowest and highest A."""
    phase: tuple[float, float] = (0.0, 3.141592653589793)
    """Lowest and highest φ, in radians; 0 to π in the paper."""
    extent: tuple[float, float] = (-5.0, 5.0)
    """Lowest and highest x."""
    noise: float = Field(default=0.0, ge=0)
    """Standard deviation of Gaussian noise of the support's y; none in the paper."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides every task."""

    def __post_init__(self) -> None:
        from mapsto.errors import SpecError

        for name in ("amplitude", "phase", "extent"):
            lowest, highest = getattr(self, name)
            if lowest > highest:
                raise SpecError(
                    f"{name} is from {lowest} to {highest}",
                    where=f"sinusoids.{name}",
                    hint="give the lowest value first",
                )

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def open(self) -> Episodes:
        from mapsto.data.tasks.generated import MadeEpisodes

        return MadeEpisodes(self._task, ways=0, shots=self.shots, queries=self.queries, seed=self.seed)

    def _task(self, random: np.random.Generator) -> Episode:
        import numpy as np

        from mapsto.data.tasks.generated import regression_episode

        amplitude, phase = random.uniform(*self.amplitude), random.uniform(*self.phase)
        x = random.uniform(*self.extent, (self.shots + self.queries, 1))
        y = amplitude * np.sin(x + phase)
        y[: self.shots] += self.noise * random.standard_normal((self.shots, 1))
        return regression_episode(x, y, self.shots, ("y",))

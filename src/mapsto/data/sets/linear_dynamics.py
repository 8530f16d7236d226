"""Regression tasks: the next state of a linear system from its state, the systems being drawn at random and stable.

``x' = A x + ε`` with A a random matrix scaled to a spectral radius below 1 (as in the system identification of Oymak and Ozay,
"Non-asymptotic Identification of LTI Systems from a Single Trajectory", 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.kinds import Episode, Episodes, Tasks

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LinearDynamics"]


class LinearDynamics(Tasks):
    """Linear systems, each a task of `shots` transitions to learn from and `queries` to predict.

    States are drawn from a standard normal distribution, A has normal entries and a spectral radius drawn from `radius`.

    >>> system = LinearDynamics(size=3, shots=8).open()[0]
    >>> system.support.shape, system.support_labels.shape
    ((8, 3), (8, 3))
    """

    size: int = Field(default=4, ge=1, le=256)
    """Numbers of a state."""
    shots: int = Field(default=8, ge=1)
    """Transitions to learn from; `size` of them determine A where there is no noise."""
    queries: int = Field(default=16, ge=1)
    """Transitions to predict."""
    radius: tuple[float, float] = (0.5, 0.95)
    """Lowest and highest spectral radius; below 1 a system is stable."""
    noise: float = Field(default=0.05, ge=0)
    """Standard deviation of ε, in support and queries."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides every task."""

    def __post_init__(self) -> None:
        from mapsto.errors import SpecError

        if not 0 <= self.radius[0] <= self.radius[1] < 1:
            raise SpecError(
                f"radius is from {self.radius[0]} to {self.radius[1]}",
                where="linear_dynamics.radius",
                hint="give the lower first, both from 0 to below 1",
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

        matrix = random.standard_normal((self.size, self.size))
        matrix *= random.uniform(*self.radius) / max(float(np.abs(np.linalg.eigvals(matrix)).max()), 1e-9)
        state = random.standard_normal((self.shots + self.queries, self.size))
        after = state @ matrix.T + self.noise * random.standard_normal(state.shape)
        return regression_episode(state, after, self.shots, tuple(f"x{number}" for number in range(self.size)))

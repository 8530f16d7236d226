"""What is believed of every recipe on a task, brought up to date by each trial; and which recipe to try next.

A Gaussian process over the recipes of the space whose mean is the surrogate's: ``y_r = a + s (m_r + e_r) + noise`` with the points y of a
trial, the surrogate's z-scores m, the points s that one is, a level a of which nothing is known, and errors e that go together as far as
recipes are alike: ``cov(e_r, e_q) = σ² Π_h κ_h`` over the holes h in which they differ (Rasmussen and Williams, "Gaussian Processes for
Machine Learning", 2006; a prior mean from other tasks: Feurer et al., "Initializing Bayesian Hyperparameter Optimization via
Meta-learning", 2015). κ_h is how the surrogate's errors on known tasks go together. The next trial is that of the largest expected
improvement (Jones, Schonlau and Welch, "Efficient Global Optimization of Expensive Black-box Functions", 1998).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mapsto.errors import SpecError
from mapsto.search.advisor import space
from mapsto.search.advisor.surrogate import Prediction, Surrogate

__all__ = ["Beliefs", "together"]

_LEVEL = 1e4
"""The variance of a, in squared points: of the level nothing is known."""
_LEAST = 0.3
"""The least standard deviation of a trial's points."""
_USUAL = 0.7
"""κ of a hole on which there are too few errors to tell."""


def together(surrogate: Surrogate) -> dict[str, float]:
    """κ of each hole: the correlation of the errors of two recipes that differ in it alone, over the known tasks."""
    recipes = surrogate.encoding.recipes
    known = space.holes_of(surrogate.kind)
    numbers = np.array([[known[hole].index(each[hole]) for hole in known] for each in recipes])
    differ = numbers[:, None, :] != numbers[None, :, :]
    found: dict[str, float] = {}
    for at, hole in enumerate(known):
        one, other = np.nonzero(np.triu(differ[..., at] & (differ.sum(2) == 1)))
        products = surrogate.kept[:, one] * surrogate.kept[:, other]
        squares = (np.square(surrogate.kept[:, one]) + np.square(surrogate.kept[:, other])) / 2
        there = ~np.isnan(products)
        if there.sum() < 10:
            found[hole] = _USUAL
            continue
        found[hole] = float(np.clip(products[there].sum() / max(squares[there].sum(), 1e-12), 0.05, 0.98))
    return found


@dataclass(kw_only=True)
class Beliefs:
    """Of one task. `observe` brings it up to date."""

    prediction: Prediction
    recipes: list[dict[str, str]]
    kappa: Mapping[str, float]
    trials: list[tuple[int, float, float]] = field(default_factory=list[tuple[int, float, float]])
    """(recipe, points, variance of the points)."""

    @classmethod
    def of(cls, surrogate: Surrogate, prediction: Prediction) -> Beliefs:
        """Before any trial."""
        return cls(prediction=prediction, recipes=surrogate.encoding.recipes, kappa=together(surrogate))

    def observe(self, recipe: int, points: float, *, accuracy: float = 50.0, count: int = 0) -> None:
        """A trial has come to its end. Of a failed one give the points of the worst.

        Parameters
        ----------
        accuracy, count
            Percent right, and of how many examples: how far off the points may be by chance.
        """
        if not 0 <= recipe < len(self.recipes) or not math.isfinite(points):
            raise SpecError(
                f"trial of recipe {recipe} with {points} points", hint=f"recipes are 0 to {len(self.recipes) - 1}"
            )
        share = min(max(accuracy / 100, 0.02), 0.98)
        variance = 1e4 * share * (1 - share) / count if count else 0.0
        self.trials.append((recipe, points, variance + _LEAST**2))

    def posterior(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean points and covariance of all recipes; without a trial the level is 0."""
        scale = self.prediction.scale
        mean = scale * self.prediction.score
        inner = (scale * self.prediction.spread) ** 2 * self._alike()
        if not self.trials:
            return mean, inner
        covariance = inner + _LEVEL
        at = np.array([recipe for recipe, *_ in self.trials])
        seen = np.array([points for _, points, _ in self.trials])
        noise = np.diag([variance for *_, variance in self.trials])
        gain = np.linalg.solve(covariance[np.ix_(at, at)] + noise, covariance[at]).T
        return mean + gain @ (seen - mean[at]), covariance - gain @ covariance[at]

    def next(self, *, exclude: bool = True) -> int:
        """The recipe to try next: before the first trial the one of the best mean, then that of the largest expected improvement."""
        mean, covariance = self.posterior()
        tried = {recipe for recipe, *_ in self.trials}
        worth = mean if not tried else self._improvement(mean, covariance, mean[list(tried)].max())
        order = np.argsort(-worth, kind="stable")
        return int(next((at for at in order if not exclude or int(at) not in tried), order[0]))

    def best(self) -> int:
        """The recipe to take: of those that were tried the one of the best mean, before a trial the first proposal."""
        mean, _ = self.posterior()
        tried = sorted({recipe for recipe, *_ in self.trials})
        return max(tried, key=lambda recipe: mean[recipe]) if tried else self.next()

    def _improvement(
        self, mean: NDArray[np.float64], covariance: NDArray[np.float64], best: float
    ) -> NDArray[np.float64]:
        from scipy.stats import norm

        spread = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
        ahead = (mean - best) / spread
        return spread * (ahead * norm.cdf(ahead) + norm.pdf(ahead))

    def _alike(self) -> NDArray[np.float64]:
        """(R, R): 1 on the diagonal, κ_h for each hole in which two differ."""
        total = np.zeros((len(self.recipes), len(self.recipes)))
        for hole, kappa in self.kappa.items():
            options = np.array([each[hole] for each in self.recipes])
            total += math.log(kappa) * (options[:, None] != options)
        return np.exp(total)

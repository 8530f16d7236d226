"""Whether a classifier's probabilities mean what they say: of answers given at 80 % four in five should be right.

``ECE = Σ_b n_b / N · |right_b − sure_b|`` over 15 bins of equal width of the highest probability (Guo et al., "On Calibration of Modern
Neural Networks", 2017); ``Brier = mean Σ_k (p_k − y_k)²`` (Brier, "Verification of Forecasts Expressed in Terms of Probability", 1950);
``NLL = −mean ln p_y``. Scores divided by one temperature T are often calibrated; T is where the NLL is least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.kinds import Metric, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BINS", "Calibration", "calibrate", "calibration", "expected_error", "fit_temperature", "softmax"]

BINS = 15
_LEAST = 1e-12
"""A probability below it counts as this: one that was rounded to zero would cost infinity."""
_DRAWS = 200
_FEWEST = 20
"""Of fewer samples no temperature is fitted."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far probabilities can be trusted."""

    metrics: dict[str, Metric]
    """``ece`` (%), ``nll``, ``brier``, ``confidence`` (mean highest probability, %); and ``ece_by_chance``, the expected calibration error
    that perfect probabilities would show on so many samples, with the 95 % range of it (Bröcker and Smith, "Increasing the Reliability of
    Reliability Diagrams", 2007)."""
    bins: Table
    """The reliability diagram: from, to, samples, mean confidence and accuracy (%) of each bin that has a sample."""


def softmax(scores: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (N, K) of scores (N, K).

    >>> softmax(np.array([[0.0, np.log(3)]])).round(6).tolist()
    [[0.25, 0.75]]
    """
    scaled = np.asarray(scores, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def expected_error(sure: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> float:
    """The expected calibration error as a share, of confidences (N,) in 0 to 1 and whether each answer is right (N,).

    >>> round(expected_error(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False])), 6)
    0.1
    """
    place = _bin_of(sure, bins)
    gap = np.bincount(place, right, bins) - np.bincount(place, sure, bins)
    return float(np.abs(gap).sum() / len(sure))


def calibration(probabilities: NDArray[np.float64], labels: NDArray[np.int64], *, bins: int = BINS) -> Calibration:
    """What probabilities (N, K) are worth, by the classes (N,) that are right."""
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    n = len(labels)
    of_label = np.maximum(probabilities[np.arange(n), labels], _LEAST)
    losses = -np.log(of_label)
    squares = (probabilities**2).sum(1) - 2 * probabilities[np.arange(n), labels] + 1
    metrics = {
        "ece": Metric(value=100 * expected_error(sure, right, bins), unit="%", n=n),
        "ece_by_chance": _error_by_chance(sure, bins),
        "nll": _mean(losses),
        "brier": _mean(squares),
        "confidence": _mean(100 * sure, unit="%"),
    }
    return Calibration(metrics=metrics, bins=_table(sure, right, bins))


def fit_temperature(scores: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """The temperature, 0.05 to 20, by which scores (N, K) are divided for the least NLL.

    >>> round(fit_temperature(np.array([[4.0, 0.0]] * 3 + [[0.0, 4.0]]), np.zeros(4, int)), 2)  # right at 75 %: ln 3 / 4
    3.64
    """
    given = np.asarray(scores, np.float64)
    rows = np.arange(len(labels))

    def loss(log: float) -> float:
        scaled = given * np.exp(-log)
        top = scaled.max(1)
        return float(np.mean(np.log(np.exp(scaled - top[:, None]).sum(1)) + top - scaled[rows, labels]))

    low, high = np.log(0.05), np.log(20.0)
    golden = (np.sqrt(5) - 1) / 2
    a, b = high - golden * (high - low), low + golden * (high - low)
    at_a, at_b = loss(a), loss(b)
    for _ in range(40):  # NLL is convex in 1 / T, so that it has one valley along ln T
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - golden * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + golden * (high - low)
            at_b = loss(b)
    return float(np.exp((low + high) / 2))


def calibrate(scores: NDArray[Any], labels: NDArray[np.int64], *, bins: int = BINS) -> dict[str, Metric]:
    """A temperature for these scores (N, K), and what it is worth on samples that it was not fitted to: ``ece`` and ``nll`` after it.

    Each half of the samples is divided by the temperature of the other half. Empty for fewer than 20 samples.
    """
    n = len(labels)
    if n < _FEWEST:
        return {}
    half = np.random.default_rng(0).permutation(n) % 2 == 0
    probabilities = np.empty(np.shape(scores), np.float64)
    for part in (half, ~half):
        probabilities[part] = softmax(scores[part], fit_temperature(scores[~part], labels[~part]))
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    of_label = np.maximum(probabilities[np.arange(n), labels], _LEAST)
    return {
        "temperature": Metric(value=fit_temperature(scores, labels), n=n),
        "ece": Metric(value=100 * expected_error(sure, right, bins), unit="%", n=n),
        "nll": Metric(value=float(-np.log(of_label).mean()), n=n),
    }


def _bin_of(sure: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Bins are open at their lower end: 1 is in the last one."""
    return np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)


def _error_by_chance(sure: NDArray[np.float64], bins: int) -> Metric:
    """The error that answers as sure as these show where each is right with just that probability: few samples never fit exactly."""
    generator = np.random.default_rng(0)
    drawn = [100 * expected_error(sure, generator.random(len(sure)) < sure, bins) for _ in range(_DRAWS)]
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    return Metric(value=float(np.mean(drawn)), unit="%", ci95=(high - low) / 2, n=len(sure), low=low, high=high)


def _mean(values: NDArray[np.float64], unit: str = "") -> Metric:
    n = len(values)
    half = 1.959964 * float(values.std(ddof=1)) / n**0.5 if n > 1 else None
    return Metric(value=float(values.mean()), unit=unit, ci95=half, n=n)


def _table(sure: NDArray[np.float64], right: NDArray[np.bool_], bins: int) -> Table:
    place = _bin_of(sure, bins)
    rows: list[tuple[float, ...]] = []
    for number in np.unique(place).tolist():
        there = place == number
        rows.append(
            (
                number / bins,
                (number + 1) / bins,
                int(there.sum()),
                100 * float(sure[there].mean()),
                100 * float(right[there].mean()),
            )
        )
    columns = ("from", "to", "samples", "confidence", "accuracy")
    return Table(columns=columns, rows=tuple(rows), units={"confidence": "%", "accuracy": "%"})

"""Whether inputs come as they did before: two-sample tests of late features against those of earlier ones.

Of the reference one half of the rows gives directions (principal components of the features), the other half is what late rows are compared
with, so that no direction fits what it is compared with. Each direction, what is left beside them, and the confidence are tested with
Kolmogorov and Smirnov's test, and p-values are corrected for their number (Holm, "A Simple Sequentially Rejective Multiple Test Procedure",
1979). A fixed threshold on a distance between histograms would misfire for few rows; a test knows how many there are.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.errors import StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEAST", "LEVEL", "REFERENCE", "WINDOW", "Reference"]

REFERENCE, WINDOW, LEAST = 1000, 500, 100
"""Rows of a reference, late rows that are compared with it, and how many of them it takes."""
LEVEL = 0.001
"""Corrected p-value below which inputs have drifted: they are tested at every scrape, so that one in twenty would alarm each day."""
_DIRECTIONS = 6


@dataclass(frozen=True, eq=False)
class Reference:
    """Inputs as they came before."""

    mean: NDArray[np.float64]
    """(D,)."""
    axes: NDArray[np.float64]
    """(P, D), orthonormal."""
    values: NDArray[np.float64]
    """(S, N), of each statistic, sorted."""
    until: float = 0.0
    """When its last row came."""

    @staticmethod
    def of(
        features: NDArray[np.float32], confidence: NDArray[np.float64] | None = None, *, until: float = 0.0
    ) -> Reference:
        """The reference of features (N, D) and, where a model gives some, confidences (N,) by its own head."""
        rows = features.astype(np.float64)
        first, second = rows[::2], rows[1::2]
        mean = first.mean(0)
        count = min(_DIRECTIONS, rows.shape[1], len(first) - 1)
        axes = np.linalg.svd(first - mean, full_matrices=False)[2][:count]
        reference = Reference(mean, axes, np.zeros((0, 0)))
        values = reference.statistics(second, None if confidence is None else confidence[1::2])
        return Reference(mean, axes, np.sort(values, axis=1), until)

    @property
    def names(self) -> list[str]:
        """Of the statistics."""
        count = len(self.axes)
        return [*(f"component_{number + 1}" for number in range(count)), "residual", "confidence"][: len(self.values)]

    def statistics(self, features: NDArray[np.floating], confidence: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """(S, N): places along the directions, distance from their space, and confidence."""
        centred = features.astype(np.float64) - self.mean
        along = centred @ self.axes.T
        square = np.maximum((centred**2).sum(1) - (along**2).sum(1), 0)
        # where the directions span the whole space, what is left is rounding
        residual = np.where(square > 1e-9 * (centred**2).sum(1), np.sqrt(square), 0.0)
        rows = [*along.T, residual]
        return np.array(rows if confidence is None else [*rows, confidence])

    def p_values(self, features: NDArray[np.floating], confidence: NDArray[np.float64] | None) -> dict[str, float]:
        """Of each statistic the corrected p-value, 0 to 1, for rows (N, D) being as the reference is.

        >>> rng = np.random.default_rng(0)
        >>> reference = Reference.of(rng.normal(size=(1000, 3)).astype(np.float32))
        >>> [min(reference.p_values(rng.normal(shift, 1, (100, 3)), None).values()) < LEVEL for shift in (0, 1)]
        [False, True]
        """
        from scipy.stats import ks_2samp

        values = self.statistics(features, confidence)
        tests: list[Any] = [
            ks_2samp(late, before, method="asymp") for late, before in zip(values, self.values, strict=True)
        ]
        raw = [float(test.pvalue) for test in tests]
        found, largest = dict.fromkeys(self.names, 1.0), 0.0
        for place, number in enumerate(np.argsort(raw).tolist()):
            largest = max(largest, min(1.0, raw[number] * (len(raw) - place)))
            found[self.names[number]] = largest
        return found

    def content(self) -> bytes:
        """As bytes, without pickle."""
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, mean=self.mean, axes=self.axes, values=self.values, until=self.until)
        return file.getvalue()

    @staticmethod
    def read(content: bytes) -> Reference:
        """What `content` gave. Raises `StoreError` where it is damaged."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as held:
                return Reference(held["mean"], held["axes"], held["values"], float(held["until"]))
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise StoreError("the reference of inputs is damaged", hint="delete it: a new one is made") from error

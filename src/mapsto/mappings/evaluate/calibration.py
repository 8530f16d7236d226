"""Whether a classifier's probabilities mean what they say: of answers given at 80 % four in five should be right.

``ECE = Σ_b n_b / N · |right_b − sure_b|`` over bins of the highest probability (Guo et al., "On Calibration of Modern Neural Networks",
2017), beside what perfect probabilities would show of it by chance (Bröcker and Smith, "Increasing the Reliability of Reliability
Diagrams", 2007); NLL, Brier score, and the temperature by which scores would have to be divided. Where the least sure answers are not
given, fewer are wrong: ``AURC``, the area under that curve (Geifman, Uziel and El-Yaniv, 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Metric, Network, Report, Series
from mapsto.mapping import DataSource, Mapping

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

__all__ = ["Calibration"]


class Calibration(Mapping[Network, Report]):
    """Expected calibration error (%), NLL, Brier score and mean confidence of a classifier; a table and a series of its bins.

    From 20 samples on also ``temperature``, and ``ece_after`` and ``nll_after``: what is left after the scores are divided by the
    temperature of `held_out`, and without that after each half of the samples is divided by the temperature of the other half. Of selective
    prediction ``aurc``, ``excess_aurc`` and ``coverage``, and a series of how many answers are wrong over the share that is given.
    """

    version: ClassVar[int] = 2

    data: DataSource
    """The labelled samples, one class each, never those it was trained on."""
    held_out: DataSource | None = None
    """Other labelled samples of the same classes, which the temperature is fitted to."""
    risk: float = Field(default=0.05, gt=0, lt=1)
    """Share of the given answers that may be wrong; ``coverage`` is how many samples can then be answered."""
    bins: int = Field(default=15, ge=2, le=1000)
    """Bins of equal width of the highest probability; 15 is usual."""
    batch_size: int = Field(default=256, ge=1)
    """Samples of a forward pass."""

    def apply(self, value: Network, ctx: Context) -> Report:
        """Raises `DomainError` where the network has no scores of such classes, `DataError` for NaN or no sample."""
        from mapsto.nn.evaluate.calibration import calibrate, calibration, softmax
        from mapsto.nn.evaluate.selective import selective

        module = value.module()
        scores, labels = self._scores(value, module, self.data, "data", ctx)
        probabilities = softmax(scores)
        found = calibration(probabilities, labels, bins=self.bins)
        if self.held_out is None:
            after = calibrate(scores, labels, bins=self.bins)
        else:
            after = self._by_held_out(scores, labels, self._scores(value, module, self.held_out, "held_out", ctx))
        chosen = selective(probabilities.max(1), probabilities.argmax(1) == labels, risk=self.risk)
        sure, right = (tuple(float(row[place]) for row in found.bins.rows) for place in (3, 4))
        curve = Series(x=sure, ys={"right": right, "perfect": sure}, x_name="confidence, %", y_name="right, %")
        renamed = {name if name == "temperature" else f"{name}_after": metric for name, metric in after.items()}
        return Report(
            metrics={**found.metrics, **renamed, **chosen.metrics},
            tables={"bins": found.bins},
            series={"reliability": curve, "risk": chosen.curve},
        )

    def _scores(
        self, value: Network, module: nn.Module, source: DataSource, field: str, ctx: Context
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Scores (N, K) and labels (N,) of a data field."""
        from mapsto.data.checks import require_finite, require_labelled, require_some
        from mapsto.nn.evaluate.class_scores import require_class_scores
        from mapsto.nn.network.inference import forward

        samples = require_some(ctx.dataset(source), where=self.name)
        labels = require_labelled(samples, where=self.name)
        require_finite(samples.inputs, where=f"{self.name}: {field}")
        require_class_scores(value, samples.classes, where=self.name)
        before = value.signature.preprocessing
        given = forward(module, samples.inputs, before, batch_size=self.batch_size, device=ctx.device)
        return given.double().numpy(), labels

    def _by_held_out(
        self,
        scores: NDArray[np.float64],
        labels: NDArray[np.int64],
        held_out: tuple[NDArray[np.float64], NDArray[np.int64]],
    ) -> dict[str, Metric]:
        """What the temperature of other samples leaves on these."""
        from mapsto.nn.evaluate.calibration import calibration, fit_temperature, softmax

        temperature = fit_temperature(*held_out)
        left = calibration(softmax(scores, temperature), labels, bins=self.bins).metrics
        return {
            "temperature": Metric(value=temperature, n=len(held_out[1])),
            "ece": left["ece"],
            "nll": left["nll"],
        }

"""Whether a classifier's probabilities mean what they say: of answers given at 80 % four in five should be right.

``ECE = Σ_b n_b / N · |right_b − sure_b|`` over bins of the highest probability (Guo et al., "On Calibration of Modern Neural Networks",
2017), beside what perfect probabilities would show of it by chance (Bröcker and Smith, "Increasing the Reliability of Reliability
Diagrams", 2007); NLL, Brier score, and the temperature by which scores would have to be divided.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network, Report, Series
from mapsto.mapping import DataSource, Mapping

__all__ = ["Calibration"]


class Calibration(Mapping[Network, Report]):
    """Expected calibration error (%), NLL, Brier score and mean confidence of a classifier; a table and a series of its bins.

    From 20 samples on also ``temperature``, and ``ece_after`` and ``nll_after``: what is left after each half of the samples is divided
    by the temperature of the other half.
    """

    data: DataSource
    """The labelled samples, one class each, never those it was trained on."""
    bins: int = Field(default=15, ge=2, le=1000)
    """Bins of equal width of the highest probability; 15 is usual."""
    batch_size: int = Field(default=256, ge=1)
    """Samples of a forward pass."""

    def apply(self, value: Network, ctx: Context) -> Report:
        """Raises `DomainError` where the network has no scores of such classes, `DataError` for NaN or no sample."""
        from mapsto.data.checks import require_alike, require_finite, require_labelled, require_some
        from mapsto.nn.evaluate.calibration import calibrate, calibration, softmax
        from mapsto.nn.network.dense_outputs import refuse_dense
        from mapsto.nn.network.inference import forward

        samples = require_some(ctx.dataset(self.data), where=self.name)
        labels = require_labelled(samples, where=self.name)
        require_finite(samples.inputs, where=f"{self.name}: data")
        signature = value.signature
        refuse_dense(signature, where=self.name)
        outputs = signature.outputs[0].shape[-1]
        if value.adaptation is not None or signature.answers != "classes" or outputs != len(samples.classes):
            raise DomainError(
                f"the network gives {outputs} numbers, not scores of {len(samples.classes)} classes",
                where=self.name,
                hint="adapt it first (adapt.centroid, adapt.linear), or give data with its classes",
            )
        require_alike(signature.classes, samples.classes, where=self.name)
        module, before = value.module(), signature.preprocessing
        given: Any = forward(module, samples.inputs, before, batch_size=self.batch_size, device=ctx.device)
        scores = given.double().numpy()
        found = calibration(softmax(scores), labels, bins=self.bins)
        after = calibrate(scores, labels, bins=self.bins)
        sure, right = (tuple(float(row[place]) for row in found.bins.rows) for place in (3, 4))
        curve = Series(x=sure, ys={"right": right, "perfect": sure}, x_name="confidence, %", y_name="right, %")
        renamed = {name if name == "temperature" else f"{name}_after": metric for name, metric in after.items()}
        return Report(metrics={**found.metrics, **renamed}, tables={"bins": found.bins}, series={"reliability": curve})

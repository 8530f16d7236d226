"""How much accuracy each layer's quantization costs by itself, and all of it together: which layer to look at first.

``drop_ℓ = accuracy(f) − accuracy(f with ℓ's quantizers alone)``, and ``Ω_ℓ = E‖f_ℓ(x) − f(x)‖² / Var f(x)``, which tells layers apart
whose drops are within the noise of few samples (Wu et al., "Integer Quantization for Deep Learning Inference: Principles and
Empirical Evaluation", 2020, section 5).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Metric, Network, Report, Table
from mapsto.mapping import DataSource, Mapping
from mapsto.nn.train.calibration_fields import CalibrationFields

__all__ = ["Quantization"]


class Quantization(CalibrationFields, Mapping[Network, Report]):
    """Accuracy in float and quantized (%), the drop (points), and a table by layer, of a network from `quantize.static`."""

    data: DataSource | None = None
    """Labelled samples that accuracy is measured on. Give this or `tasks`."""
    samples: int = Field(default=1000, ge=1)
    """How many samples (with `tasks`: queries) accuracy is measured on."""

    contract: ClassVar[dict[str, Any]] = {"data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 8}}}

    @staticmethod
    def contract_input() -> Network:
        """A quantized network, what this maps from."""
        from mapsto.nn.quantize.post_training import quantized_example

        return quantized_example()

    def apply(self, value: Network, ctx: Context) -> Report:
        from mapsto.nn.quantize.layer_sensitivity import QuantizerCosts

        at_hand = QuantizerCosts(self, value, ctx, where=self.name)
        drop, count = at_hand.drop(), len(at_hand.original.outputs)
        rows = tuple(tuple(at_hand.cost(path)) for path in ctx.track(at_hand.layers, what="layers"))
        original = at_hand.original.accuracy
        return Report(
            metrics={
                "accuracy": Metric(value=original - drop, unit="%", n=count),
                "float_accuracy": Metric(value=original, unit="%", n=count),
                "drop": Metric(value=drop, unit="points", n=count),
            },
            tables={"layers": Table(columns=("layer", "drop", "change"), rows=rows, units={"drop": "points"})},
        )

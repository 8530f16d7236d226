"""Leave in float the few layers that quantizing hurts most, until what it costs in accuracy is within a limit.

Each layer ℓ is first quantized alone: ``Ω_ℓ = E‖f_ℓ(x) − f(x)‖² / Var f(x)``. Then layers go back to float in falling order of Ω until
``accuracy(f) − accuracy(quantized f) ≤ max_drop`` on the measured samples. Every such layer costs speed: its neighbours
convert to float and back.

Wu et al., "Integer Quantization for Deep Learning Inference: Principles and Empirical Evaluation", 2020, section 5 (sensitivity
analysis, partial quantization); Dong et al., "HAWQ: Hessian AWare Quantization of Neural Networks with Mixed-Precision", 2019.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping
from mapsto.nn.train.calibration_fields import CalibrationFields

__all__ = ["Mixed"]


class Mixed(CalibrationFields, Mapping[Network, Network]):
    """The quantized network (from `quantize.static`) with fewer quantizers; the log names each layer's drop.

    `evaluate.quantization` gives the same drops as a report. Raises `SpecError` unless one of `data` and `tasks` is given,
    `DomainError` for a network without quantizers, that the data does not fit, or no layer of which can be quantized within the
    limit, and `DataError` for data without classes.

    >>> from mapsto.data.sets.digits import Digits
    >>> from mapsto.data.sets.episodes import EpisodesOf
    >>> from mapsto.mappings.evaluate.quantization import Quantization
    >>> from mapsto.mappings.networks.conv4 import Conv4
    >>> from mapsto.mappings.quantize.static import Static
    >>> tasks = EpisodesOf(data=Digits(size=16), ways=5, shots=5, queries=10)
    >>> small = Static(tasks=tasks, samples=64, bits=3)(Conv4(channels=1, size=16, width=8)())
    >>> count = lambda network: sum(quantizer.weight and quantizer.bits == 3 for quantizer in network.edits[-1].quantizers)
    >>> count(small), count(Mixed(tasks=tasks, samples=250, max_drop=100)(small))
    (3, 3)
    >>> drop = Quantization(tasks=tasks, samples=250)(small).metrics["drop"].value
    >>> 0 < count(Mixed(tasks=tasks, samples=250, max_drop=drop - 0.4)(small)) < 3
    True
    """

    data: DataSource | None = None
    """Labelled samples that accuracy is measured on, never those of the final test. Give this or `tasks`."""
    samples: int = Field(default=1000, ge=1)
    """How many samples (with `tasks`: queries) accuracy is measured on; with 1000, 0.3 points are three of them."""
    max_drop: float = Field(default=0.3, ge=0, le=100)
    """How much accuracy may be lost, percentage points."""

    contract: ClassVar[dict[str, Any]] = {"data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 8}}}

    @staticmethod
    def contract_input() -> Network:
        """A quantized network, what this maps from."""
        from mapsto.nn.quantize.post_training import quantized_example

        return quantized_example()

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.edits.quantizers import Quantizers
        from mapsto.nn.quantize.float_layers import tell, tell_again
        from mapsto.nn.quantize.layer_sensitivity import QuantizerCosts

        tell_again(value, ctx, where=self.name)
        at_hand = QuantizerCosts(self, value, ctx, where=self.name)
        drop = at_hand.drop()
        ctx.log(f"all {len(at_hand.layers)} layers quantized: {drop:+.2f} points lost")
        if drop <= self.max_drop:
            return value
        costs = [at_hand.cost(path) for path in ctx.track(at_hand.layers, what="layers")]
        costs.sort(key=lambda cost: -cost.change)
        floats: list[str] = []
        for cost in costs[:-1]:
            floats.append(cost.path)
            drop = at_hand.drop(floats)
            ctx.log(f"{cost.path} (alone {cost.drop:+.2f}, Ω {cost.change:.2g}) in float: {drop:+.2f} points lost")
            if drop <= self.max_drop:
                why = f"quantized too, more than max_drop {self.max_drop} points are lost"
                tell(dict.fromkeys(floats, why), ctx, count=len(costs) - len(floats), asked=(why,))
                edit = Quantizers(quantizers=at_hand.quantizers(floats))
                return dataclasses.replace(value, edits=(*value.edits[:-1], edit))
        raise DomainError(
            f"with one layer quantized, {drop:.2f} points are still lost, more than max_drop {self.max_drop}",
            where=self.name,
            hint="allow more, use more bits, or correct the network by quantize.adaround or quantize.aware instead",
        )

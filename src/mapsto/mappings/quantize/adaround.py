"""Learn for each weight whether to round it up or down, layer by layer, so that the layer's output stays what it was.

``min_V E‖f(W x) − f(Ŵ x̂)‖² + λ Σ 1 − |2 h(V) − 1|^β`` with ``Ŵ = s · clamp(⌊W/s⌋ + h(V))``, the float layer's input x, the quantized
network's x̂, f the rectifier that follows, if one does; β falls from 20 to 2, which drives h to 0 or 1. The nearest step is not the
best one where errors of a channel's weights add up; below 8 bits that decides. Labels are not used.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.train.calibration_fields import CalibrationFields
from mapsto.process import Items, Live, Process, Rows, State

if TYPE_CHECKING:
    import torch

    from mapsto.nn.quantize.adaround import LayerRounding, QuantizedLayer

__all__ = ["Adaround"]


class Adaround(CalibrationFields, Process[Network, Network]):
    """The quantized network (from `quantize.static` or `quantize.mixed`) with its weights on the better of their two steps.

    Raises `SpecError` unless one of `data` and `tasks` is given, `DomainError` for a network without quantizers, whose weights are not
    finite, or that the data does not fit, and `DataError` for fewer than 8 samples.

    >>> from mapsto.data.sets.digits import Digits
    >>> from mapsto.mappings.networks.conv4 import Conv4
    >>> from mapsto.mappings.quantize.static import Static
    >>> from mapsto.nn.network.inference import forward
    >>> data = Digits(size=16)
    >>> network = Conv4(channels=1, size=16, width=8, classes=10)()
    >>> small = Static(data=data, samples=64, bits=3)(network)
    >>> better = Adaround(data=data, samples=64, steps=60, learning_rate=0.05)(small)
    >>> outputs = [forward(n.module(), data.open().inputs[:200], n.signature.preprocessing) for n in (network, small, better)]
    >>> error = [float((output - outputs[0]).square().mean()) for output in outputs]
    >>> error[2] < error[1]
    True
    """

    steps: int = Field(default=1000, ge=1)
    """Gradient steps for each layer; the paper takes 10,000, most is gained in the first few hundred."""
    batch_size: int = Field(default=32, ge=1)
    """Samples of a step; 32 in the paper."""
    learning_rate: float = Field(default=1e-2, gt=0)
    """Of Adam, for V."""
    regularisation: float = Field(default=0.01, ge=0)
    """λ, the weight of the term that drives h to 0 or 1; 0.01 in the paper's own code."""
    warmup: float = Field(default=0.2, ge=0, lt=1)
    """Share of the steps before that term sets in."""
    beta: tuple[float, float] = (20.0, 2.0)
    """β at first and at the end, both above 0: high leaves V free in the middle, low pulls it apart."""

    contract: ClassVar[dict[str, Any]] = {
        "data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 8}},
        "warmup": 0.2,
    }

    @staticmethod
    def contract_input() -> Network:
        """A quantized network, what this maps from."""
        from mapsto.nn.quantize.post_training import quantized_example

        return quantized_example()

    def items(self, value: Network, ctx: Context) -> Items:
        return range(self.steps * len(self._layers(value)))

    def open(self, value: Network, state: State | None, ctx: Context) -> Live[Network]:
        self._layers(value)
        return _Rounding(self, value, state, ctx)

    def _layers(self, value: Network) -> list[str]:
        """Paths of the layers to round. Raises `DomainError` where there is none."""
        from mapsto.nn.quantize.adaround import quantized_layers
        from mapsto.nn.quantize.post_training import quantized_edit

        quantized_edit(value, where=self.name)
        found = [layer.path for layer in quantized_layers(value.module())]
        if not found:
            raise DomainError(
                "no convolution or linear layer is quantized", where=self.name, hint="skip fewer modules before"
            )
        return found


class _Rounding(Live[Network]):
    def __init__(self, mapping: Adaround, value: Network, state: State | None, ctx: Context) -> None:
        from mapsto.nn.quantize.adaround import layer_runs, quantized_layers, rectified_layers
        from mapsto.nn.quantize.post_training import without_quantizers

        self._mapping, self._value, self._ctx = mapping, value, ctx
        state, device = state or {}, _device(ctx)
        self._batches = [batch.to(device) for batch in mapping.batches(value, ctx, where=mapping.name)]
        self._float = without_quantizers(value).to(device)
        self._module = value.module(device=device)
        if "tensors" in state:
            self._module.load_state_dict(state["tensors"])
        self._layers = quantized_layers(self._module)
        self._rectified = rectified_layers(self._float, self._batches[0][:2])
        self._runs = layer_runs(self._float, self._batches[0][:2])
        self._saved: State = state.get("rounding", {})
        self._current: LayerRounding | None = None
        self.step: int = state.get("step", 0)
        self.total: int | None = mapping.steps * len(self._layers)
        self.done = self.step >= mapping.steps * len(self._layers)

    def advance(self, item: Any) -> Rows:
        import torch

        number, within = divmod(self.step, self._mapping.steps)
        if self._current is None:
            self._current = self._opened(self._layers[number])
            self._current.restore(self._saved)
        chosen = torch.randint(len(self._current.inputs), (self._mapping.batch_size,))
        loss = self._current.advance(chosen, within / self._mapping.steps)
        if not math.isfinite(loss):
            raise DomainError(
                f"the error of layer '{self._layers[number].path}' is {loss}",
                where=self._mapping.name,
                hint="lower learning_rate, or check the weights and the calibration data",
            )
        if within == self._mapping.steps - 1:
            self._current.harden()
            self._current, self._saved = None, {}
        self.step += 1
        self.done = self.step >= (self.total or 0)
        return [(self.step, {"train_loss": loss, "layer": float(number + 1)})]

    def snapshot(self) -> State:
        state: State = {"step": self.step, "tensors": self._module.state_dict()}
        if self._current is not None:
            state["rounding"] = self._current.saved()
        return state

    def result(self) -> Network:
        from mapsto.nn.quantize.float_layers import tell_again

        tell_again(self._value, self._ctx, where=self._mapping.name)
        module = self._value.module()
        module.load_state_dict(self._module.state_dict())
        return self._value.with_module(module)

    def _opened(self, layer: QuantizedLayer) -> LayerRounding:
        import torch

        from mapsto.nn.quantize.adaround import LayerRounding, captured

        path, runs = layer.path, self._runs[layer.path]
        taken = [captured(self._module, batch, [path], runs=runs) for batch in self._batches]
        given = [captured(self._float, batch, [path], output=True, runs=runs) for batch in self._batches]
        inputs, targets = torch.cat([part[path] for part in taken]), torch.cat([part[path] for part in given])
        return LayerRounding(
            layer,
            inputs,
            targets,
            rectified=path in self._rectified,
            learning_rate=self._mapping.learning_rate,
            regularisation=self._mapping.regularisation,
            warmup=self._mapping.warmup,
            beta=self._mapping.beta,
        )


def _device(ctx: Context) -> torch.device:
    """Where to work; on a CPU without Fabric, whose import takes longer than a small network."""
    import torch

    return torch.device("cpu") if ctx.numerics.device == "cpu" else ctx.device

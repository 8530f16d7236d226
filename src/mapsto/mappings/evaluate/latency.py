"""Time one image at a time, and against other networks: median and 99th percentile, one thread and all threads.

Candidates take turns within each round, and a speed-up is the median over rounds of the ratio of their medians in that round:
whatever else runs on the machine slows both sides of a ratio alike. A network is timed in either, a package in ONNX Runtime, a
baseline in both (there in float32, unless it is quantized itself).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from mapsto.kinds import Metric, Network, Package, Report, Signature, Table
from mapsto.mapping import Context, Mapping, NetworkSource

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.timing import Timing

__all__ = ["Latency"]

_Calls: TypeAlias = "dict[str, Callable[[], object]]"


class Latency(Mapping[Network | Package, Report]):
    """p50 and p99 in milliseconds for one sample, and speed-ups over baselines, all measured."""

    baselines: dict[str, NetworkSource] = Field(default_factory=dict)
    """Name → a network to be compared with, timed in PyTorch and in ONNX Runtime."""
    rounds: int = Field(default=5, ge=1)
    """How often each candidate gets its turn."""
    seconds: float = Field(default=0.2, gt=0)
    """Length of one turn; at least 10 calls."""
    all_threads: bool = True
    """Measure with all threads of this run too."""
    runtime: Literal["pytorch", "onnxruntime"] = "pytorch"
    """What a network itself is timed in; a package is always timed in ONNX Runtime."""

    def apply(self, value: Network | Package, ctx: Context) -> Report:
        from mapsto.nn.onnx_export import to_onnx
        from mapsto.nn.timing import interleaved, torch_threads

        networks = {name: ctx.network(source) for name, source in self.baselines.items()}
        models = {name: to_onnx(network) for name, network in networks.items()}
        metrics: dict[str, Metric] = {}
        tables: dict[str, Table] = {}
        counts = {"": 1, "_all_threads": ctx.numerics.threads}
        if not self.all_threads or ctx.numerics.threads == 1:
            del counts["_all_threads"]
        for suffix, threads in counts.items():
            calls: _Calls = {"value": self._call(value, threads)}
            for name, network in networks.items():
                calls[f"{name}_pytorch"] = _in_pytorch(network)
                calls[f"{name}_ort"] = _in_onnx_runtime(models[name], network.signature, threads)
            with torch_threads(threads):
                timings = interleaved(calls, rounds=self.rounds, seconds=self.seconds)
            metrics |= dict(_metrics(timings, suffix))
            tables[f"latency{suffix}"] = _table(timings)
        return Report(metrics=metrics, tables=tables)

    def _call(self, value: Network | Package, threads: int) -> Callable[[], object]:
        from mapsto.kinds import Signature
        from mapsto.nn.onnx_export import to_onnx

        if isinstance(value, Network):
            if self.runtime == "pytorch":
                return _in_pytorch(value)
            return _in_onnx_runtime(to_onnx(value), value.signature, threads)
        manifest = value.manifest()
        model = value.files[manifest["model"]].read_bytes()
        return _in_onnx_runtime(model, Signature.from_plain(manifest["signature"]), threads)


def _example(signature: Signature) -> tuple[Tensor, ...]:
    from mapsto.nn.onnx_export import example_inputs

    return example_inputs(signature, 1)


def _in_pytorch(network: Network) -> Callable[[], object]:
    import torch

    module, inputs = network.module(), _example(network.signature)

    def call() -> object:
        with torch.inference_mode():
            return module(*inputs)

    return call


def _in_onnx_runtime(model: bytes, signature: Signature, threads: int) -> Callable[[], object]:
    from mapsto.nn.onnx_export import runner

    run = runner(model, threads=threads)
    inputs = [tensor.numpy() for tensor in _example(signature)]
    return lambda: run(*inputs)


def _metrics(timings: dict[str, Timing], suffix: str) -> Iterator[tuple[str, Metric]]:
    from mapsto.nn.timing import speedup

    for name, timing in timings.items():
        prefix = "" if name == "value" else f"{name}_"
        rounds = len(timing.rounds)
        yield f"{prefix}p50{suffix}", Metric(value=timing.p50, unit="ms", n=rounds, measured=True)
        yield f"{prefix}p99{suffix}", Metric(value=timing.p99, unit="ms", n=rounds, measured=True)
        if prefix:
            ratio, _, _ = speedup(timing, timings["value"])
            yield f"speedup_vs_{name}{suffix}", Metric(value=ratio, unit="×", n=rounds, measured=True)


def _table(timings: dict[str, Timing]) -> Table:
    from mapsto.nn.timing import speedup

    rows: list[tuple[str | float, ...]] = []
    columns = ("what", "p50", "p99", "mean", "least median", "most median", "speed-up", "least", "most")
    units: dict[str, str] = {name: "ms" if number < 6 else "×" for number, name in enumerate(columns) if number}
    for name, timing in timings.items():
        ratios = speedup(timing, timings["value"])
        rows.append((name, timing.p50, timing.p99, timing.mean, min(timing.medians), max(timing.medians), *ratios))
    return Table(
        columns=columns,
        rows=tuple(rows),
        units=units,
        measured=True,
    )

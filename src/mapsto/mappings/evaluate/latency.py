"""Time one image at a time, and against other networks: median and 99th percentile, one thread and all threads.

Candidates take turns within each round, and a speed-up is the median over rounds of the ratio of their medians in that round:
whatever else runs on the machine slows both sides of a ratio alike. A network is timed in the runtime of your choice, a package in its
own, a baseline in PyTorch and in ONNX Runtime (there in float32, unless it is quantized itself).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Metric, Network, Package, Report, Signature, Table
from mapsto.mapping import Mapping, NetworkSource
from mapsto.nn.export.registry import RuntimeName

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.export.registry import Run
    from mapsto.nn.profile.timing import Timing

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
    runtime: Literal["pytorch", RuntimeName] = "pytorch"
    """What a network itself is timed in; a package is always timed in the runtime that it was exported for."""

    contract: ClassVar[dict[str, Any]] = {"rounds": 1, "seconds": 0.01}

    def apply(self, value: Network | Package, ctx: Context) -> Report:
        """Raises `MissingExtra` where the runtime is not installed, `DomainError` where it cannot compute the network."""
        from mapsto.nn.profile.timing import interleaved, torch_threads

        networks = {name: ctx.network(source) for name, source in self.baselines.items()}
        metrics: dict[str, Metric] = {}
        tables: dict[str, Table] = {}
        counts = {"": 1, "_all_threads": ctx.numerics.threads}
        if not self.all_threads or ctx.numerics.threads == 1:
            del counts["_all_threads"]
        for suffix, threads in counts.items():
            calls: _Calls = {"value": self._call(value, ctx, threads)}
            for name, network in networks.items():
                calls[f"{name}_pytorch"] = _in_pytorch(network)
                calls[f"{name}_ort"] = _in_runtime("onnxruntime", network, ctx, threads)
            with torch_threads(threads):
                timings = interleaved(calls, rounds=self.rounds, seconds=self.seconds)
            metrics |= dict(_metrics(timings, suffix))
            tables[f"latency{suffix}"] = _table(timings)
        return Report(metrics=metrics, tables=tables)

    def _call(self, value: Network | Package, ctx: Context, threads: int) -> Callable[[], object]:
        from mapsto.nn.export.registry import run_package

        if isinstance(value, Network):
            return _in_pytorch(value) if self.runtime == "pytorch" else _in_runtime(self.runtime, value, ctx, threads)
        return _calling(run_package(value, threads=threads), Signature.from_plain(value.manifest()["signature"]))


def _example(signature: Signature) -> tuple[Tensor, ...]:
    from mapsto.nn.network.examples import example_inputs

    return example_inputs(signature, 1)


def _in_pytorch(network: Network) -> Callable[[], object]:
    import torch

    module, inputs = network.module(), _example(network.signature)

    def call() -> object:
        with torch.inference_mode():
            return module(*inputs)

    return call


def _in_runtime(name: str, network: Network, ctx: Context, threads: int) -> Callable[[], object]:
    from mapsto.nn.export.registry import run_network

    return _calling(run_network(name, network, ctx.scratch(), threads=threads), network.signature)


def _calling(run: Run, signature: Signature) -> Callable[[], object]:
    inputs = [tensor.numpy() for tensor in _example(signature)]
    return lambda: run(*inputs)


def _metrics(timings: dict[str, Timing], suffix: str) -> Iterator[tuple[str, Metric]]:
    from mapsto.nn.profile.timing import speedup

    for name, timing in timings.items():
        prefix = "" if name == "value" else f"{name}_"
        rounds = len(timing.rounds)
        yield f"{prefix}p50{suffix}", Metric(value=timing.p50, unit="ms", n=rounds, measured=True)
        yield f"{prefix}p99{suffix}", Metric(value=timing.p99, unit="ms", n=rounds, measured=True)
        if prefix:
            ratio, _, _ = speedup(timing, timings["value"])
            yield f"speedup_vs_{name}{suffix}", Metric(value=ratio, unit="×", n=rounds, measured=True)


def _table(timings: dict[str, Timing]) -> Table:
    from mapsto.nn.profile.timing import speedup

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

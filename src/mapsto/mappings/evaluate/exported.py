"""What a network costs once it is exported: bytes of the model's file on disk, and the time of one sample in the runtime.

The network is lowered as ``export.*`` lowers it, so the figures are those of the package: of an ONNX file the graph counts too, which
for a small network weighs more than its weights. What a package carries besides (manifest, example images, a learner's own files) does
not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Metric, Network, Report
from mapsto.mapping import Mapping
from mapsto.nn.export.registry import RuntimeName

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Exported"]


class Exported(Mapping[Network, Report]):
    """Bytes of the model's file, parameters, multiply-accumulates and, measured, p50 and p99 of one sample on one thread."""

    runtime: RuntimeName = "onnxruntime"
    """What it is exported for, and timed in."""
    timed: bool = True
    """Whether latency is measured."""
    rounds: int = Field(default=3, ge=1)
    """Turns of measuring."""
    seconds: float = Field(default=0.2, gt=0)
    """Length of one turn; at least 10 calls."""

    contract: ClassVar[dict[str, bool]] = {"timed": False}

    def apply(self, value: Network, ctx: Context) -> Report:
        """Raises `MissingExtra` where the runtime is not installed, `DomainError` where it cannot compute the network."""
        from mapsto.nn.export.registry import find
        from mapsto.nn.network.examples import example_inputs
        from mapsto.nn.profile.counts import count_macs, count_parameters

        inputs, module = example_inputs(value.signature, 1), value.module()
        contents = find(self.runtime).lowered(value)
        metrics = {
            "bytes": Metric(value=sum(map(len, contents.values())), unit="B"),
            "parameters": Metric(value=count_parameters(module)),
            "macs": Metric(value=count_macs(module, inputs[0]), unit="MAC"),
        }
        if self.timed:
            metrics |= self._times(contents, tuple(tensor.numpy() for tensor in inputs), ctx)
        return Report(metrics=metrics)

    def _times(self, contents: dict[str, bytes], inputs: tuple[NDArray[Any], ...], ctx: Context) -> dict[str, Metric]:
        from mapsto.nn.export.registry import find
        from mapsto.nn.profile.timing import interleaved, torch_threads

        folder = ctx.scratch()
        files = {name: folder / name for name in contents}
        for name, content in contents.items():
            files[name].write_bytes(content)
        run = find(self.runtime).load(files)
        with torch_threads(1):
            timing = interleaved({"value": lambda: run(*inputs)}, rounds=self.rounds, seconds=self.seconds)["value"]
        count = len(timing.rounds)
        return {
            "p50": Metric(value=timing.p50, unit="ms", n=count, measured=True),
            "p99": Metric(value=timing.p99, unit="ms", n=count, measured=True),
        }

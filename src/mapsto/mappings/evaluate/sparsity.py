"""How many weights are zero, and what that buys here: bytes of the file as it is and compressed, milliseconds in ONNX Runtime.

The network is compared with the same one whose zeros are filled with values drawn from the other weights of their layer. A dense
runtime multiplies by zero as by any number, so zeros alone usually buy nothing but a smaller compressed file; the tables say so.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Metric, Network, Report, Table
from mapsto.mapping import Mapping

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.profile.timing import Timing

__all__ = ["Sparsity"]

_PATTERNS = ((1, 4), (2, 4), (4, 8))
_NOTHING = 1.05
"""A factor below this is called nothing."""


class Sparsity(Mapping[Network, Report]):
    """Share of zeros by layer, and file size and latency (measured) against the same network without zeros.

    Weights are the parameters of two dimensions or more. `pattern` names the n:m that a layer keeps to along its inputs, if it does.
    Raises `DomainError` for a network that cannot be exported to ONNX.

    >>> from mapsto import networks, prune
    >>> report = Sparsity(seconds=0.01)(prune.unstructured(share=0.75)(networks.mlp(inputs=8, classes=4)(seed=0)))
    >>> report.metrics["zeros"].value, report.metrics["file_ratio"].value, report.metrics["deflated_ratio"].value > 1.5
    (0.75, 1.0, True)
    """

    rounds: int = Field(default=5, ge=1)
    """How often each network gets its turn."""
    seconds: float = Field(default=0.2, gt=0)
    """Length of one turn; at least 10 calls."""

    contract: ClassVar[dict[str, Any]] = {"rounds": 1, "seconds": 0.01}

    def apply(self, value: Network, ctx: Context) -> Report:
        import zlib

        from mapsto.nn.export.onnx import to_onnx
        from mapsto.nn.export.runtimes.onnxruntime import runner
        from mapsto.nn.network.examples import example_inputs
        from mapsto.nn.profile.timing import interleaved

        weights: dict[str, Tensor] = {
            name: weight for name, weight in value.module().named_parameters() if weight.ndim > 1
        }
        models = {"dense": to_onnx(_filled(value, weights, ctx)), "sparse": to_onnx(value)}
        files = {name: len(model) for name, model in models.items()}
        deflated = {name: len(zlib.compress(model, 9)) for name, model in models.items()}
        inputs = [tensor.numpy() for tensor in example_inputs(value.signature, 1)]
        runs = {name: runner(model, threads=1) for name, model in models.items()}
        timings = interleaved(
            {name: lambda run=run: run(*inputs) for name, run in runs.items()}, rounds=self.rounds, seconds=self.seconds
        )
        count = sum(weight.numel() for weight in weights.values())
        zeros = sum(int((weight == 0).sum()) for weight in weights.values())
        metrics = {
            "zeros": Metric(value=zeros / max(count, 1)),
            "weights": Metric(value=count),
            "file_bytes": Metric(value=files["sparse"], unit="B"),
            "file_ratio": Metric(value=files["dense"] / files["sparse"], unit="×"),
            "deflated_bytes": Metric(value=deflated["sparse"], unit="B"),
            "deflated_ratio": Metric(value=deflated["dense"] / deflated["sparse"], unit="×"),
        }
        tables = {
            "layers": Table(columns=("weight", "shape", "weights", "zeros", "pattern"), rows=tuple(_rows(weights))),
            "files": Table(
                columns=("file", "dense", "sparse", "ratio", "buys"),
                rows=tuple(
                    (name, sizes["dense"], sizes["sparse"], sizes["dense"] / sizes["sparse"], _bought(sizes))
                    for name, sizes in (("ONNX", files), ("ONNX, deflated", deflated))
                ),
                units={"dense": "B", "sparse": "B", "ratio": "×"},
            ),
        }
        times, table = _latency(timings)
        return Report(metrics={**metrics, **times}, tables={**tables, "latency": table})


def _filled(value: Network, weights: dict[str, Tensor], ctx: Context) -> Network:
    """The network with values drawn from the other weights in place of zeros."""
    import torch

    dense: dict[str, Tensor] = {}
    for name, weight in weights.items():
        tensor = weight.detach().clone()
        empty = tensor == 0
        others = tensor[~empty].float().numpy()
        drawn = ctx.random("dense", name)
        count = int(empty.sum())
        values = drawn.choice(others, count) if len(others) else drawn.standard_normal(count)
        tensor[empty] = torch.as_tensor(values).to(tensor.dtype)
        dense[name] = tensor
    return dataclasses.replace(value, tensors={**value.tensors, **dense})


def _rows(weights: dict[str, Tensor]) -> list[tuple[str | float, ...]]:
    return [
        (
            name,
            " × ".join(map(str, weight.shape)),
            weight.numel(),
            float((weight == 0).double().mean()),
            next((f"{n}:{m}" for n, m in _PATTERNS if _keeps_to(weight, n, m)), ""),
        )
        for name, weight in weights.items()
    ]


def _keeps_to(weight: Tensor, n: int, m: int) -> bool:
    """Whether at most n of every m weights along the inputs are other than 0."""
    if weight.shape[1] % m:
        return False
    blocks = (weight != 0).movedim(1, -1).reshape(-1, m).sum(1)
    return int(blocks.max()) <= n


def _bought(sizes: dict[str, int]) -> str:
    ratio = sizes["dense"] / sizes["sparse"]
    return f"{ratio:.1f}× smaller" if ratio >= _NOTHING else "nothing"


def _latency(timings: dict[str, Timing]) -> tuple[dict[str, Metric], Table]:
    """Milliseconds of one sample on one thread, and what the zeros buy of them: nothing unless every round was faster."""
    from mapsto.nn.profile.timing import speedup

    ratio, least, most = speedup(timings["dense"], timings["sparse"])
    rounds = len(timings["sparse"].rounds)
    metrics = {
        "dense_p50": Metric(value=timings["dense"].p50, unit="ms", n=rounds, measured=True),
        "p50": Metric(value=timings["sparse"].p50, unit="ms", n=rounds, measured=True),
        "speedup": Metric(value=ratio, unit="×", n=rounds, measured=True),
    }
    buys = f"{ratio:.1f}× faster" if least > 1 and ratio >= _NOTHING else "nothing"
    table = Table(
        columns=("runtime", "dense", "sparse", "speed-up", "least", "most", "buys"),
        rows=(("ONNX Runtime, 1 thread", timings["dense"].p50, timings["sparse"].p50, ratio, least, most, buys),),
        units={"dense": "ms", "sparse": "ms", "speed-up": "×", "least": "×", "most": "×"},
        measured=True,
    )
    return metrics, table

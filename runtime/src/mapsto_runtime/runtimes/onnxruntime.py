"""ONNX Runtime on the CPU: ``model.onnx``, for any batch size."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto_runtime.errors import DomainError, StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto_runtime.runtimes import Run
    from mapsto_runtime.signature import Signature, TensorSpec

NAME: str = "onnxruntime"
TITLE: str = "ONNX Runtime"
MODEL: str = "model.onnx"


def load(files: Mapping[str, Path], *, threads: int = 1, signature: Signature | None = None) -> Run:
    """A session on the CPU.

    Raises `DomainError` that names the operator which ONNX Runtime lacks, and `StoreError` for a model that is not as its signature says.
    """
    opened = session(files[MODEL], threads=threads)
    names = [item.name for item in opened.get_inputs()]
    if signature is not None:
        _require_as_said(opened, signature, str(files[MODEL]))
        names = [spec.name for spec in signature.inputs]
    unable = _errors()

    def run(*inputs: NDArray[Any]) -> NDArray[Any]:
        try:
            return opened.run(None, dict(zip(names, inputs, strict=True)))[0]
        except unable as error:  # an operator may fail only when it is run
            raise _cannot(error) from error

    return run


_TYPES = {"float32": "float", "float64": "double"}
"""As ONNX Runtime writes them, where it does so in other words."""


def _require_as_said(opened: Any, signature: Signature, where: str) -> None:
    """Raises `StoreError` where the model takes other inputs than the signature says, or gives other scores."""

    def said(item: Any, spec: TensorSpec) -> bool:
        shape: list[int | str | None] = item.shape
        return not shape or (
            len(shape) == len(spec.shape)
            and all(not isinstance(size, int) or size == wanted for size, wanted in zip(shape, spec.shape, strict=True))
        )

    inputs = {item.name: item for item in opened.get_inputs()}
    names = [spec.name for spec in signature.inputs]
    found = None
    if sorted(names) != sorted(inputs):
        found = f"its inputs are called {', '.join(inputs)}, and its signature says {', '.join(names)}"
    for spec in signature.inputs if found is None else ():
        item = inputs[spec.name]
        if not said(item, spec) or item.type != f"tensor({_TYPES.get(spec.dtype, spec.dtype)})":
            found = f"its input is {item.type} of shape {item.shape}, and its signature says {spec.dtype} of {[*spec.shape]}"
    output, scores = opened.get_outputs()[0], signature.outputs[0]
    if signature.classes is not None and not said(output, scores):
        found = f"its output has shape {output.shape}, and its signature says {[*scores.shape]}"
    if found is not None:
        raise StoreError(found, where=where, hint="export the package again")


def session(model: bytes | Path, *, threads: int = 1, optimized: Path | None = None) -> Any:
    """An ONNX Runtime session on the CPU; `optimized` is where to write the graph that it really runs.

    ONNX Runtime would quantize float weights behind a quantized activation on its own; that is switched off, so that a layer
    that was left in float stays so. Raises `DomainError` that names the operator which it lacks.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    given = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(
            given, options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
        )
    except _errors() as error:
        raise _cannot(error) from error


def _errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a model that it cannot compute."""
    known: Any = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    return known.NotImplemented, known.InvalidGraph, known.Fail, known.RuntimeException


def _cannot(error: Exception) -> DomainError:
    import onnxruntime

    return DomainError(
        f"ONNX Runtime {onnxruntime.__version__} cannot run this model: {str(error).rpartition(' : ')[2]}",
        where="onnxruntime",
        hint="leave the layer with that operator in float (skip), or quantize in another way",
    )

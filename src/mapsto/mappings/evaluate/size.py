"""How big it is: parameters, multiply-accumulates, bytes to store, and memory at work for one sample.

A network's bytes are 4 for each float32 and ``bits / 8`` for each quantized weight, with its scales; a package's are those of its
files; those of a model that learnt from a stream are its whole state's, with which it learns on, and its encoder's.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Metric, Model, Network, Package, Report, Signature
from mapsto.mapping import Mapping, NetworkSource

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Size"]


class Size(Mapping[Network | Package | Model, Report]):
    """Parameters, MACs, bytes and peak memory, and how many times smaller than a baseline.

    ``peak_memory`` of a network is its tensors plus the most bytes that activations of one sample hold at once in PyTorch; of
    a package it is measured: by how much a fresh process with the package's runtime grows when it loads the model and
    predicts one sample. Of a model there are the columns, classes and events that it has met; its parameters and MACs are those with
    which it answers, where that is by a network, and there is no ``peak_memory``.
    """

    baseline: NetworkSource | None = None
    """What ratios are formed against: ``parameters_ratio`` and ``macs_ratio`` are baseline over value."""

    def apply(self, value: Network | Package | Model, ctx: Context) -> Report:
        metrics = _of_model(value) if isinstance(value, Model) else _of_base(value)
        if self.baseline is not None:
            other = _of_network(ctx.network(self.baseline))
            for name in ("parameters", "macs"):
                if name not in metrics or not metrics[name].value:
                    raise DomainError(f"it has no {name}", where=self.name, hint="leave the baseline out")
                metrics[f"{name}_ratio"] = Metric(value=other[name].value / metrics[name].value, unit="×")
        return Report(metrics=metrics)


def _of_base(value: Network | Package) -> dict[str, Metric]:
    return _of_network(value) if isinstance(value, Network) else _of_package(value)


def _of_model(model: Model) -> dict[str, Metric]:
    """Parameters and MACs where it answers by a network."""
    from mapsto.nn.online.learning import StreamLearner

    base = {} if model.base is None else _of_base(model.base)
    state = sum(array.nbytes for array in model.arrays.values())
    metrics = {
        "bytes": Metric(value=state + (base["bytes"].value if base else 0), unit="B"),
        "columns": Metric(value=len(model.signature.columns)),
        "classes": Metric(value=len(model.signature.classes)),
        "events": Metric(value=model.events),
    }
    learner = model.open()
    found = learner.head() if isinstance(learner, StreamLearner) else None
    if found is not None:
        own, biases = found[0].parameters, len(found[0].bias)
        metrics["parameters"] = Metric(value=own + (base["parameters"].value if base else 0))
        metrics["macs"] = Metric(value=own - biases + (base["macs"].value if base else 0), unit="MAC")
    return metrics


def _of_network(network: Network) -> dict[str, Metric]:
    from mapsto.nn.network.examples import example_inputs
    from mapsto.nn.profile.counts import count_macs, count_parameters

    module = network.module()
    inputs = example_inputs(network.signature, 1)
    return {
        "parameters": Metric(value=count_parameters(module)),
        "macs": Metric(value=count_macs(module, inputs[0]), unit="MAC"),
        "bytes": Metric(value=_stored_bytes(module), unit="B"),
        "peak_memory": Metric(value=_tensor_bytes(module) + _activation_peak(module, inputs), unit="B"),
    }


def _stored_bytes(module: nn.Module) -> int:
    from mapsto.nn.edits import dynamic_quantizers, grouped_weights
    from mapsto.nn.edits.quantizers import is_quantized, quantized_weights

    total = _tensor_bytes(module)
    for part in (part for part in module.modules() if is_quantized(part)):  # several in an ensemble
        total -= int(grouped_weights.saved_bytes(part)) + dynamic_quantizers.saved_bytes(part)
        for _, quantizer, weight in quantized_weights(part):
            if quantizer.bits <= 8:  # a bias's scale follows from two others
                total += 4 * len(quantizer.scale) - int(weight.numel() * (weight.element_size() - quantizer.bits / 8))
    return total


def _tensor_bytes(module: nn.Module) -> int:
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    persistent = {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    return sum(tensor.numel() * tensor.element_size() for key, tensor in tensors.items() if key in persistent)


def _activation_peak(module: nn.Module, inputs: Any) -> int:
    """The most bytes that tensors made during one forward pass hold at once."""
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watch(TorchDispatchMode):
        now = most = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self.hold(leaf.untyped_storage())
            return result

        def hold(self, storage: Any) -> None:
            if storage._cdata not in held:
                held.add(storage._cdata)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.release, storage._cdata, storage.nbytes())

        def release(self, key: int, size: int) -> None:
            held.discard(key)
            self.now -= size

    held = {tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *module.buffers(), *inputs)}
    with torch.no_grad(), Watch() as watch:
        module(*inputs)
    return watch.most


def _of_package(package: Package) -> dict[str, Metric]:
    manifest = package.manifest()
    return {
        "parameters": Metric(value=manifest["parameters"]),
        **({"macs": Metric(value=manifest["macs"], unit="MAC")} if "macs" in manifest else {}),
        "bytes": Metric(value=sum(path.stat().st_size for path in package.files.values()), unit="B"),
        "peak_memory": Metric(value=_process_growth(package, manifest), unit="B", measured=True),
    }


_MODULES = {"litert": "ai_edge_litert.interpreter", "executorch": "executorch.extension.pybindings.portable_lib"}
"""What a runtime's module is called, where not as the runtime: its own memory is not the model's."""

_PROBE = """
import gc, importlib, json, sys
from pathlib import Path
import numpy, psutil
from mapsto_runtime import runtimes
given = json.loads(sys.argv[1])
importlib.import_module(given["imports"])
engine = runtimes.find(given["runtime"])
gc.collect()
before = psutil.Process().memory_info().rss
run = engine.load({name: Path(path) for name, path in given["files"].items()})
run(*(numpy.zeros(shape, dtype) for shape, dtype in given["inputs"]))
print(psutil.Process().memory_info().rss - before)
"""


def _process_growth(package: Package, manifest: dict[str, Any]) -> int:
    import json
    import subprocess

    from mapsto_runtime.runtimes import find

    name = str(manifest.get("runtime", "onnxruntime"))
    signature = Signature.from_plain(manifest["signature"])
    given = {
        "runtime": name,
        "imports": _MODULES.get(name, name),
        "files": {file: str(path) for file, path in package.files.items()},
        "inputs": [
            ([1 if isinstance(size, str) else size for size in spec.shape], spec.dtype) for spec in signature.inputs
        ],
    }
    command = [sys.executable, "-c", _PROBE, json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DomainError(
            f"{find(name).TITLE} cannot run it: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}",
            where="evaluate.size",
            hint="export the package again",
        )
    return int(done.stdout.split()[-1])

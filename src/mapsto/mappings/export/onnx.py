"""Export to ONNX: a folder that predicts anywhere ONNX Runtime runs, without torch and without the training half of mapsto.

``package/model.onnx`` (any batch size; int8 kernels for a quantized network) and ``package/manifest.json`` (format, hashes,
signature, parity). Parity is the greatest difference between the network in PyTorch and the file in ONNX Runtime, reported
beside the spread of the outputs, without which it says nothing. A learner's package also carries ``learner/`` for hosts that have
mapsto and, where its result is a linear layer, ``adapt.onnx``, the map from examples' embeddings to that layer, with which a
device adapts by itself; the manifest says which.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network, Package
from mapsto.mapping import Context, DataSource, Mapping
from mapsto.predict import FORMAT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Onnx"]

_BATCH = 64
_EXAMPLES = 10


class Onnx(Mapping[Network, Package]):
    """Write the network as ONNX and compare it with the original.

    Raises `DomainError` where torch cannot export the network or the outputs are not finite, and `DataError` where the data
    does not fit it.
    """

    data: DataSource | None = None
    """Samples for the parity report, and images to try the package on; by default standard normal inputs, and no images."""
    samples: int = Field(default=200, ge=1)
    """How many samples the parity report is made on; of the data at most all."""

    def apply(self, value: Network, ctx: Context) -> Package:
        from mapsto.nn.measure import count_macs, count_parameters
        from mapsto.nn.onnx_export import OPSET, example_inputs, to_onnx

        model = to_onnx(value)
        inputs = self._inputs(value, ctx)
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "model": "model.onnx",
            "opset": OPSET,
            "signature": value.signature.plain(),
            "parameters": count_parameters(value.module()),
            "macs": count_macs(value.module(), example_inputs(value.signature, 1)[0]),
            "parity": {"on": "data" if self.data is not None else "generated", **_parity(value, model, inputs)},
        }
        contents = {"model.onnx": model, **self._examples(ctx)}
        if value.adaptation is not None:
            learner, manifest["adaptation"] = self._learner(value)
            contents |= learner
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in contents.items()
        }
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        contents["manifest.json"] = f"{text}\n".encode()
        folder = ctx.scratch()
        for name, data in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return Package(files={name: folder / name for name in contents})

    def _learner(self, value: Network) -> tuple[dict[str, bytes], dict[str, Any]]:
        """What lets a device adapt: ``adapt.onnx``, support → head, where the method allows it; and ``learner/`` for mapsto."""
        from mapsto.nn.onnx_export import to_adapting_onnx
        from mapsto.nn.portable import saved

        adaptation = value.adaptation
        files = {f"learner/{name}": content for name, content in saved(value).items()}
        described: dict[str, Any] = {
            "method": adaptation.method if adaptation is not None else "",
            "learner": "learner/",
        }
        model = to_adapting_onnx(value)
        if model is not None:
            files["adapt.onnx"] = model
            described["model"] = "adapt.onnx"
        return files, described

    def _examples(self, ctx: Context) -> dict[str, bytes]:
        """``examples/<class>.png``: the first image of each of a few classes, to try the package on."""
        import io

        import numpy as np
        from PIL import Image

        samples = ctx.dataset(self.data) if self.data is not None else None
        if samples is None or samples.inputs.dtype != np.uint8 or samples.inputs.ndim != 4 or samples.labels.ndim != 1:
            return {}
        found: dict[str, bytes] = {}
        for label in np.unique(samples.labels)[:_EXAMPLES]:
            pixels = samples.inputs[int(np.argmax(samples.labels == label))].transpose(1, 2, 0)
            image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
            buffer = io.BytesIO()
            image.save(buffer, format="PNG")
            name = re.sub(r"[^\w-]+", "_", samples.classes[int(label)])
            found[f"examples/{name}.png"] = buffer.getvalue()
        return found

    def _inputs(self, value: Network, ctx: Context) -> tuple[Tensor, ...]:
        from mapsto.nn.onnx_export import example_inputs
        from mapsto.nn.preprocess import prepare

        if self.data is None:
            return example_inputs(value.signature, self.samples, seed=ctx.seed_for("parity"))
        samples = ctx.dataset(self.data)
        chosen = ctx.random("parity").permutation(len(samples))[: self.samples]
        inputs = prepare(samples.inputs[chosen], value.signature.preprocessing)
        wanted = value.signature.input_shape(len(chosen))
        if len(value.signature.inputs) != 1 or tuple(inputs.shape) != wanted:
            raise DataError(
                f"the data gives inputs of shape {tuple(inputs.shape[1:])}, the network takes {wanted[1:]}",
                where=self.name,
                hint="give data like the network's own, or none",
            )
        return (inputs,)


def _parity(value: Network, model: bytes, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    import numpy as np
    import torch

    from mapsto.nn.onnx_export import runner

    module, run = value.module(), runner(model)
    ours: list[NDArray[np.float32]] = []
    theirs: list[NDArray[np.float32]] = []
    for start in range(0, len(inputs[0]), _BATCH):
        batch = [tensor[start : start + _BATCH] for tensor in inputs]
        with torch.inference_mode():
            ours.append(module(*batch).numpy())
        theirs.append(run(*(tensor.numpy() for tensor in batch)))
    expected, given = np.concatenate(ours), np.concatenate(theirs)
    if not (np.isfinite(expected).all() and np.isfinite(given).all()):
        raise DomainError("the network's outputs are not all finite", where="export.onnx", hint="check its weights")
    difference = np.abs(expected - given)
    spread = float(expected.std(axis=0).mean())
    named = value.signature.classes is not None and value.signature.answers == "classes"
    agreement = float((expected.argmax(-1) == given.argmax(-1)).mean()) if named else None
    return {
        "samples": len(expected),
        "max_abs_difference": _rounded(difference.max()),
        "mean_abs_difference": _rounded(difference.mean()),
        "output_std": _rounded(spread),
        "relative_difference": _rounded(difference.max() / spread) if spread > 0 else None,
        "top1_agreement": _rounded(agreement) if agreement is not None else None,
    }


def _rounded(number: Any) -> float:
    """Three digits: more would tie a package's digest to a CPU's last bits."""
    return float(f"{float(number):.3g}")

"""From a network to a package: a runtime's files, examples, a learner's own files, and the manifest with hashes and parity.

Shared by the mappings that export. This file imports torch only when there is work to do.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Frozen, Network, Package, Signature, Table
from mapsto.mapping import DataSource
from mapsto_runtime.preprocessing.texts import ASSET

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from mapsto.nn.export.registry import Run, Runtime

__all__ = ["Exported", "packaged", "put", "rewritten", "rounded", "text_of"]

_BATCH = 64
_EXAMPLES = 10


class Exported(Frozen):
    """The fields of every mapping that exports."""

    data: DataSource | None = Field(
        default=None,
        description="Samples for the parity report, and images to try the package on; by default standard normal inputs, and "
        "no images.",
    )
    samples: int = Field(
        default=200, ge=1, description="How many samples the parity report is made on; of the data at most all."
    )


def packaged(
    fields: Exported,
    value: Network,
    ctx: Context,
    engine: Runtime,
    *,
    where: str,
    described: Mapping[str, Any] | None = None,
) -> Package:
    """The network as a package for a runtime; `described` is what its manifest says besides.

    Raises `MissingExtra` where the runtime is not installed, `DomainError` where it cannot compute the network or the outputs are
    not finite, or the data does not fit the network.
    """
    from mapsto.nn.export.runner import runner_files
    from mapsto.nn.network.examples import example_inputs
    from mapsto.nn.network.vocabulary import with_ids
    from mapsto.nn.profile.counts import count_macs, count_parameters

    signature = with_ids(value.signature, value.module())
    _require_answerable(signature, where)
    contents = engine.lowered(value)
    folder = ctx.scratch()
    run = engine.load(put(contents, folder))
    inputs = _inputs(fields, value, ctx, where=where)
    manifest: dict[str, Any] = {
        "format": _format(engine, signature),
        "model": engine.MODEL,
        "signature": signature.plain(),
        "parameters": count_parameters(value.module()),
        "macs": count_macs(value.module(), example_inputs(value.signature, 1)[0]),
        "parity": {"on": "data" if fields.data is not None else "generated", **_parity(value, run, inputs, where)},
        **(described or {}),
    }
    if engine.NAME != "onnxruntime":
        manifest["runtime"] = engine.NAME
    examples = _examples(fields, ctx)
    contents |= examples
    if signature.preprocessing.kind == "text":
        contents[ASSET] = signature.preprocessing.tokenizer_json
    manifest |= _own_example(value.signature, run, examples)
    if value.adaptation is not None:
        learner, manifest["adaptation"] = _learner(value)
        contents |= learner
    contents |= runner_files(engine.NAME, signature, adapts="head" in manifest.get("adaptation", {}))
    manifest["files"] = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in contents.items()
    }
    return Package(files=put({**contents, "manifest.json": text_of(manifest)}, folder))


def _require_answerable(signature: Signature, where: str) -> None:
    """Raises `DomainError` for a network that a package could not answer with, as one that takes double precision."""
    from mapsto_runtime.manifest import checked_signature

    try:
        checked_signature(json.loads(json.dumps(signature.plain())))
    except ValueError as error:
        raise DomainError(
            f"a package cannot answer with this network: {error}",
            where=where,
            hint="give one that takes a batch of float32 or int64 as its preprocessing makes it",
        ) from error


def _format(engine: Runtime, signature: Signature) -> int:
    """The least that tells all: what every mapsto can answer with stays readable for every mapsto."""
    if signature.preprocessing.kind == "text":
        return 5
    if signature.inputs[0].ids:
        return 3
    return 1 if engine.NAME == "onnxruntime" else 2


def rewritten(package: Package, ctx: Context, described: Mapping[str, Any], measured: Mapping[str, Table]) -> Package:
    """A package whose manifest says more, with the times that go with it."""
    manifest = put({"manifest.json": text_of({**package.manifest(), **described})}, ctx.scratch())
    return Package(files={**package.files, **manifest}, measured=measured)


def text_of(manifest: Mapping[str, Any]) -> bytes:
    """The bytes of ``manifest.json``."""
    return f"{json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)}\n".encode()


def put(contents: Mapping[str, bytes], folder: Path) -> dict[str, Path]:
    """Write files into a folder: name → where it lies."""
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return {name: folder / name for name in contents}


def _learner(value: Network) -> tuple[dict[str, bytes], dict[str, Any]]:
    """What lets a device adapt: ``adapt.onnx``, support → head, where the method allows it; and ``learner/`` for mapsto."""
    from mapsto.nn.export.onnx import to_adapting_onnx
    from mapsto.nn.export.runner import head_rule
    from mapsto.nn.network.serialization import saved

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
    rule = head_rule(adaptation) if adaptation is not None else None
    if rule is not None:
        described["head"] = rule
    return files, described


def _examples(fields: Exported, ctx: Context) -> dict[str, bytes]:
    """``examples/<class>.png``: the first image of each of a few classes, to try the package on."""
    import io

    import numpy as np
    from PIL import Image

    samples = ctx.dataset(fields.data) if fields.data is not None else None
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


def _own_example(signature: Signature, run: Run, examples: Mapping[str, bytes]) -> dict[str, Any]:
    """What lets whoever opens the package see that it answers as here (`mapsto_runtime.own_example`); nothing where that is not finite."""
    import numpy as np

    from mapsto_runtime import own_example
    from mapsto_runtime.preprocessing import read_input

    name = (
        min(examples, default=own_example.PATTERN) if signature.preprocessing.kind == "image" else own_example.PATTERN
    )
    given = own_example.pattern(signature) if name == own_example.PATTERN else read_input(examples[name], signature)
    outputs = run(given)
    return {"example": own_example.described(name, outputs)} if np.isfinite(outputs).all() else {}


def _inputs(fields: Exported, value: Network, ctx: Context, *, where: str) -> tuple[Tensor, ...]:
    from mapsto.nn.network.examples import example_inputs
    from mapsto.nn.train.calibration_batches import as_inputs, chosen

    if fields.data is None:
        return example_inputs(value.signature, fields.samples, seed=ctx.seed_for("parity"))
    samples = ctx.dataset(fields.data)
    places = chosen(samples, fields.samples, ctx, stream="parity")
    return (as_inputs(value, samples.inputs[places], where=where),)


def _parity(value: Network, run: Run, inputs: tuple[Tensor, ...], where: str) -> dict[str, Any]:
    import numpy as np
    import torch

    module = value.module()
    ours: list[NDArray[np.float32]] = []
    theirs: list[NDArray[np.float32]] = []
    for start in range(0, len(inputs[0]), _BATCH):
        batch = [tensor[start : start + _BATCH] for tensor in inputs]
        with torch.inference_mode():
            ours.append(module(*batch).numpy())
        theirs.append(run(*(tensor.numpy() for tensor in batch)))
    expected, given = np.concatenate(ours), np.concatenate(theirs)
    if not (np.isfinite(expected).all() and np.isfinite(given).all()):
        raise DomainError("the network's outputs are not all finite", where=where, hint="check its weights")
    difference = np.abs(expected - given)
    spread = float(expected.std(axis=0).mean())
    named = value.signature.classes is not None and value.signature.answers == "classes"
    agreement = float((expected.argmax(1) == given.argmax(1)).mean()) if named else None
    return {
        "samples": len(expected),
        "max_abs_difference": rounded(difference.max()),
        "mean_abs_difference": rounded(difference.mean()),
        "output_std": rounded(spread),
        "relative_difference": rounded(difference.max() / spread) if spread > 0 else None,
        "top1_agreement": rounded(agreement) if agreement is not None else None,
    }


def rounded(number: Any) -> float:
    """Three digits: more would tie a package's digest to a CPU's last bits."""
    return float(f"{float(number):.3g}")

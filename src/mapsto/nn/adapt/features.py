"""Embeddings of raw samples, made once: through ONNX Runtime where that is worth it, and kept in the cache folder.

Which of the two computes is a rule on the network, the device and the number of samples, never on a clock or on what the cache holds
(docs/decisions/0030). What decides the bits is in the name of the file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.data.io.cache import cached_array
from mapsto.data.io.download import cache_folder
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.kinds.canonical import dumps
from mapsto_runtime.preprocessing.texts import by_length

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from mapsto.context import Context

__all__ = ["BATCH", "FROM", "features"]

FROM = 512
"""So many samples and more go through ONNX Runtime: exporting a network takes as long as embedding some hundred images."""
BATCH = 64
"""Samples a call of ONNX Runtime; the last call may have fewer."""
FILES, BYTES = 1000, 1 << 30
"""At most so much is kept in the cache folder; what was used longest ago goes first."""
_FORMAT = 2
"""Raised whenever the same key would stand for other bits."""
_AGREE = 1e-3
"""ONNX Runtime's embeddings may differ from PyTorch's by so much, in units of the largest number of these."""


def features(value: Network, inputs: NDArray[Any], ctx: Context) -> NDArray[np.float32]:
    """The embeddings (N, D) of raw samples (N, ...), as a new head of the network would be given them.

    Parameters
    ----------
    value
        With a head or without: a head decides neither the embeddings nor where they are kept.
    inputs
        Raw samples: images are uint8 (N, C, H, W); what the network's preprocessing makes of them is part of the work.
    ctx
        Gives device and threads, and takes the note where a network has to be run in PyTorch.

    Returns
    -------
    ndarray
        float32, memory-mapped from the cache folder where that can be written; writing to it changes no one else's copy.

    Raises
    ------
    DomainError
        The network has no embedding (N, D).
    DataError
        The samples are not what the network takes.
    """
    from mapsto.nn.edits.quantizers import is_quantized
    from mapsto.nn.network.head import headless

    module = value.module()
    edit, signature = headless(value, module)
    bare = value.with_module(module, *([edit] if edit else []), signature=signature, adaptation=None)
    onnx = len(inputs) >= FROM and ctx.device.type == "cpu" and not is_quantized(module)
    key = _key(bare, inputs, ctx, onnx=onnx)
    made = False

    def computed() -> NDArray[np.float32]:
        nonlocal made
        made = True
        return _by_onnxruntime(bare, module, inputs, ctx) if onnx else _by_pytorch(bare, module, inputs, ctx)

    found = cached_array("features", key, computed)
    folder = cache_folder() / "features"
    if made:
        _bound(folder)
    else:
        with suppress(OSError):
            os.utime(folder / f"{key}.npy")
    return found


def _key(bare: Network, inputs: NDArray[Any], ctx: Context, *, onnx: bool) -> str:
    """A digest of everything that decides the bits: network, preprocessing, samples, and what computes."""
    import torch

    from mapsto.nn.edits.head import Head
    from mapsto.nn.network.serialization import encode_edit

    if onnx:
        import onnxruntime

        engine = ["onnxruntime", onnxruntime.__version__, BATCH]
    else:
        engine = ["pytorch", str(ctx.device), ctx.numerics.precision]
    tree = {
        "format": _FORMAT,
        "engine": [*engine, torch.__version__, ctx.numerics.threads],
        "machine": [platform.machine(), torch.backends.cpu.get_cpu_capability()],
        "arch": {"name": bare.arch.name, "arguments": bare.arch.arguments},
        "edits": [encode_edit(edit) for edit in bare.edits if not isinstance(edit, Head)],
        "tensors": {name: _digest(tensor.view(-1).view(torch.uint8).numpy()) for name, tensor in bare.tensors.items()},
        "preprocessing": {**dataclasses.asdict(bare.signature.preprocessing), "tokenizer_json": ""},
        "inputs": [inputs.dtype.str, list(inputs.shape), _digest(inputs)],
    }
    return hashlib.sha256(dumps(tree).encode()).hexdigest()


def _digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(
        np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b""
    ).hexdigest()


def _by_pytorch(bare: Network, module: nn.Module, inputs: NDArray[Any], ctx: Context) -> NDArray[np.float32]:
    """By `module`, which is the network's: making another takes as long as embedding some dozens of texts."""
    from mapsto.nn.network.inference import forward

    found = forward(module, inputs, bare.signature.preprocessing, device=ctx.device).numpy()
    if found.ndim != 2:
        raise DomainError(
            f"the embedding has shape {found.shape}, not (N, D)", hint="flatten or pool it before the head"
        )
    return found


def _by_onnxruntime(bare: Network, module: nn.Module, inputs: NDArray[Any], ctx: Context) -> NDArray[np.float32]:
    """By ONNX Runtime; by PyTorch, with a note, where it cannot compute the network or gives something else."""
    from mapsto.nn.export.onnx import to_onnx
    from mapsto.nn.export.runtimes.onnxruntime import runner
    from mapsto.nn.network.preprocess import prepare

    before = bare.signature.preprocessing
    try:
        run = runner(to_onnx(bare), threads=ctx.numerics.threads)
        few, starts = inputs[:BATCH], range(0, len(inputs), BATCH)
        _require_alike(run(prepare(few, before).numpy()), _by_pytorch(bare, module, few[:8], ctx))
        if before.kind == "text":
            total = -(-len(inputs) // BATCH)
            found = by_length(
                run, inputs, before.padding, BATCH, track=lambda parts: ctx.track(parts, total=total, what="embedding")
            )
            return found.astype(np.float32, copy=False)
        parts = [
            run(prepare(inputs[start : start + BATCH], before).numpy())
            for start in ctx.track(starts, total=len(starts), what="embedding")
        ]
    except DomainError as error:
        ctx.note(f"the embeddings are computed in PyTorch, which takes longer: {error.what}")
        return _by_pytorch(bare, module, inputs, ctx)
    return np.concatenate(parts).astype(np.float32, copy=False)


def _require_alike(found: NDArray[Any], wanted: NDArray[np.float32]) -> None:
    """Raise `DomainError` where the first embeddings are not as PyTorch's."""
    if found.ndim != 2 or found.shape[1:] != wanted.shape[1:]:
        raise DomainError(f"ONNX Runtime gives embeddings of shape {found.shape}")
    largest = float(np.abs(wanted).max(initial=0.0))
    apart = float(np.abs(found[: len(wanted)] - wanted).max(initial=0.0))
    if not apart <= _AGREE * max(largest, 1e-12):
        raise DomainError(
            f"ONNX Runtime's embeddings differ from PyTorch's by {apart:.2g}, where the largest is {largest:.2g}"
        )


def _bound(folder: Path) -> None:
    """Remove what was used longest ago, until the folder holds at most `FILES` files and `BYTES` bytes."""
    known: list[tuple[float, int, Path]] = []
    with suppress(OSError):
        for path in folder.glob("*.npy"):
            with suppress(OSError):  # another process may remove it at the same moment
                about = path.stat()
                known.append((about.st_mtime, about.st_size, path))
    kept = total = 0
    for _, size, path in sorted(known, reverse=True):
        kept, total = kept + 1, total + size
        if kept > 1 and (kept > FILES or total > BYTES):
            with suppress(OSError):
                path.unlink()

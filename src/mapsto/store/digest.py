"""Digests: what a value is, and what a step would compute, in 64 hexadecimal characters.

A value's digest is the SHA-256 of its canonical manifest, in which tensors and files stand as digests of their own. A step's key
is the digest of its name, version, canonical fields, input digests, seed and numerics policy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mapsto.context import Numerics
from mapsto.discovery import name_of
from mapsto.errors import SpecError
from mapsto.kinds import Dataset, Frozen, Network, Stream, Tasks
from mapsto.kinds.canonical import dumps, source_digest, without_defaults
from mapsto.mapping import Mapping as MapstoMapping
from mapsto.mapping import Ref

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "array_bytes",
    "array_from_bytes",
    "canonical",
    "digest_bytes",
    "digest_json",
    "step_key",
    "tensor_bytes",
    "tensor_from_bytes",
]

HEADER = 256
"""Bytes of a tensor blob before its data: JSON of dtype and shape, padded with spaces. Keeps the data aligned for mmap."""


KEY_FORMAT = 2
"""Raised whenever keys of the same step change; stored steps are then run again, artifacts are read as before."""


def digest_bytes(data: bytes | memoryview) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """The digest of a JSON value in canonical form."""
    return digest_bytes(dumps(value).encode())


def tensor_bytes(tensor: Tensor) -> bytes:
    """A tensor as a blob: a header of 256 bytes with dtype and shape, then its elements, row-major, little-endian."""
    import torch

    plain = tensor.detach().cpu().contiguous()
    header = dumps({"dtype": str(plain.dtype).removeprefix("torch."), "shape": list(plain.shape)}).encode()
    data = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return header.ljust(HEADER) + data


def tensor_from_bytes(data: Any) -> Tensor:
    """The tensor in a blob; shares memory with `data`, which may be a memory map."""
    import torch

    header = json.loads(bytes(data[:HEADER]))
    dtype, shape = getattr(torch, header["dtype"]), tuple(header["shape"])
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype, offset=HEADER).reshape(shape)


def array_bytes(array: NDArray[Any]) -> bytes:
    """A NumPy array of numbers as a blob: the same bytes as of a tensor of its values."""
    import numpy as np

    plain = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    header = dumps({"dtype": plain.dtype.name, "shape": list(plain.shape)}).encode()
    return header.ljust(HEADER) + plain.tobytes()


def array_from_bytes(data: Any) -> NDArray[Any]:
    """The array in a blob; shares memory with `data`."""
    import numpy as np

    header = json.loads(bytes(data[:HEADER]))
    return np.frombuffer(data, dtype=header["dtype"], offset=HEADER).reshape(header["shape"])


def canonical(
    value: Any, resolve: Callable[[Ref], str], source: Callable[[MapstoMapping[Any, Any] | Network], str]
) -> Any:
    """A field's value as canonical, type-tagged JSON.

    `resolve` gives the digest behind a reference, `source` the digest of a network, or of what a source mapping gives.
    """

    def walk(value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, Ref):
            return {"$digest": resolve(value)}
        if isinstance(value, Network):
            return {"$digest": source(value)}
        if isinstance(value, Stream) and not value.bounded:
            return {"$stream": value.identity()}
        if isinstance(value, (Dataset, Tasks, Stream)):
            return {"$data": value.fingerprint()}
        if isinstance(value, MapstoMapping):
            mapping = cast("MapstoMapping[Any, Any]", value)
            if mapping.takes is type(None):
                return {"$digest": source(mapping)}
            return fields_tree(mapping, walk)
        if isinstance(value, Frozen):
            return fields_tree(value, walk)
        if isinstance(value, Mapping):
            return {str(k): walk(v) for k, v in cast("Mapping[Any, Any]", value).items()}
        if isinstance(value, (list, tuple)):
            return [walk(v) for v in cast("list[Any]", value)]
        if isinstance(value, Path):
            return {"$path": str(value)}
        raise SpecError(f"a field of type {type(value).__name__} has no canonical form", hint="use plain values")

    return walk(value)


def fields_tree(value: Frozen, walk: Callable[[Any], Any]) -> dict[str, Any]:
    """A configuration as ``{"$": name, "version": v, "$source": digest, fields…}``, without the fields at a plain default."""
    cls = type(value)
    tree: dict[str, Any] = {"$": name_of(cls), "version": getattr(cls, "version", 1)}
    if not cls.__module__.startswith("mapsto."):
        tree["$source"] = source_digest(cls)
    fingerprint = getattr(value, "fingerprint", None)
    if fingerprint is not None and not isinstance(value, (Dataset, Tasks, Stream)):
        tree["$content"] = fingerprint()
    fields = {f.name: walk(getattr(value, f.name)) for f in dataclasses.fields(cast("Any", value))}
    return tree | without_defaults(cls, fields)


def step_key(
    mapping: MapstoMapping[Any, Any],
    inputs: tuple[str, ...],
    *,
    seed: int,
    numerics: Numerics,
    kernels: bool,
    resolve: Callable[[Ref], str],
    source: Callable[[MapstoMapping[Any, Any] | Network], str],
) -> str:
    """The key of what `mapping` would give for inputs of these digests, with or without mapsto's compiled kernels."""

    def walk(value: Any) -> Any:
        return canonical(value, resolve, source)

    return digest_json(
        {
            "format": KEY_FORMAT,
            "mapping": fields_tree(mapping, walk),
            "inputs": list(inputs),
            "seed": seed,
            "numerics": {**dataclasses.asdict(numerics), "kernels": kernels},
        }
    )

"""A process's checkpoint as bytes and back: a digest, then JSON and tensors. No pickle."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

from mapsto.errors import StoreError
from mapsto.kinds.canonical import dumps
from mapsto.process import Foreign, State
from mapsto.store.digest import array_bytes, array_from_bytes, digest_bytes, tensor_bytes, tensor_from_bytes
from mapsto.store.files import FORMAT

__all__ = ["decode_state", "encode_state"]


def encode_state(state: State) -> bytes:
    """A checkpoint: a digest, then JSON of the tree and tensors as blobs, length-prefixed. No pickle."""
    blobs: list[bytes] = []

    def walk(value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return {"$f": value.hex()}
        if isinstance(value, bytes):
            return {"$b": base64.b64encode(value).decode()}
        if isinstance(value, Foreign):
            return {"$x": [value.codec, base64.b64encode(value.data).decode()]}
        if isinstance(value, (list, tuple)):
            return [walk(v) for v in cast("list[Any]", value)]
        if isinstance(value, dict):
            tree = cast("dict[Any, Any]", value)
            if odd := [key for key in tree if not isinstance(key, (str, int, float, bytes)) and key is not None]:
                raise StoreError(
                    f"a process's state has a {type(odd[0]).__name__} as a key", hint="use texts or numbers"
                )
            return {"$d": [[walk(k), walk(v)] for k, v in tree.items()]}
        if _is_array(value):
            blobs.append(array_bytes(value))
            return {"$a" if type(value).__name__ == "ndarray" else "$n": len(blobs) - 1}
        import torch

        if isinstance(value, torch.Tensor):
            blobs.append(tensor_bytes(value))
            return {"$t": len(blobs) - 1}
        raise StoreError(
            f"a process's state holds a {type(value).__name__}",
            hint="use tensors, arrays of numbers, numbers, strings, bytes, lists, dicts",
        )

    try:
        tree = dumps({"format": FORMAT, "tree": walk(state), "blobs": []}).encode()
    except UnicodeEncodeError as error:
        raise StoreError("a process's state holds a text that is no Unicode", hint="hold it as bytes") from error
    body = b"".join(len(part).to_bytes(8, "little") + part for part in (tree, *blobs))
    return bytes.fromhex(digest_bytes(body)) + body


def _is_array(value: Any) -> bool:
    """Whether it is a NumPy array of numbers; asked so that NumPy is not imported for it."""
    dtype = getattr(value, "dtype", None)
    return type(value).__module__ == "numpy" and dtype is not None and dtype.kind in "biuf" and dtype.itemsize > 0


def decode_state(data: bytes) -> State | None:
    """The checkpoint, or None where its digest shows that it is damaged.

    Raises `StoreError` for a later format, and for one whose digest is right although mapsto did not write it.
    """
    body = memoryview(data)[32:]
    if digest_bytes(body) != data[:32].hex():
        return None
    try:
        return _decoded(body)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise StoreError(
            f"a checkpoint is not as mapsto writes it ({type(error).__name__}: {error})"[:300],
            hint="delete it from the store's folder `states`: its step starts anew",
        ) from error


def _decoded(body: memoryview) -> State:
    parts: list[memoryview] = []
    offset = 0
    while offset < len(body):
        length = int.from_bytes(body[offset : offset + 8], "little")
        parts.append(body[offset + 8 : offset + 8 + length])
        offset += 8 + length
    head = json.loads(bytes(parts[0]))
    if head["format"] > FORMAT:
        raise StoreError(f"a checkpoint has format {head['format']}; this mapsto knows {FORMAT}", hint="upgrade mapsto")

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(v) for v in cast("list[Any]", value)]
        if not isinstance(value, dict):
            return value
        (tag, inner), *_ = cast("dict[str, Any]", value).items()
        if tag == "$f":
            return float.fromhex(inner)
        if tag == "$b":
            return base64.b64decode(inner)
        if tag == "$x":
            return Foreign(inner[0], base64.b64decode(inner[1]))
        if tag == "$a":
            return array_from_bytes(parts[1 + inner]).copy()
        if tag == "$n":
            return array_from_bytes(parts[1 + inner])[()]
        if tag == "$t":
            return tensor_from_bytes(bytearray(parts[1 + inner]))
        return {walk(k): walk(v) for k, v in inner}

    return walk(head["tree"])

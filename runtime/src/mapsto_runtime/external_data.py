"""Which other files an ONNX file takes its weights from, found without the package onnx.

Only the messages on the way to a tensor are walked; numbers of fields are those of onnx.proto (IR version 3 on).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["external_files"]

_INSIDE: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Kind of message → number of a field → the kind of message in it."""
_DEEPEST: Final = 200


def external_files(content: bytes) -> set[str]:
    """The places that tensors of an ONNX file name as theirs. Raises `ValueError` where the file is not whole."""
    found: set[str] = set()
    pending = [(memoryview(content), "model", 0)]
    while pending:
        message, kind, depth = pending.pop()
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        for number, part in _fields(message):
            inside = _INSIDE[kind].get(number)
            if inside == "entry":
                entry = {at: bytes(text).decode("utf-8", "replace") for at, text in _fields(part)}
                if entry.get(1) == "location":
                    found.add(entry.get(2, ""))
            elif inside is not None:
                pending.append((part, inside, depth + 1))
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field that has a length; others are passed over."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(message, at)
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"a field of the unknown kind {kind}")
        length, at = _varint(message, at) if kind == 2 else (8 if kind == 1 else 4, at)
        if at + length > len(message):
            raise ValueError("cut short")
        if kind == 2:
            yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("cut short")

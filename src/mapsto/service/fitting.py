"""A process that fits one head: `python -m mapsto.service.fitting`, with the support set on standard input and the head on standard output.

It runs at the lowest priority and ends with the process that started it, which keeps standard input open as long as it waits.
"""

from __future__ import annotations

import os
import sys
import threading

import msgspec
import numpy as np

from mapsto.errors import MapstoError
from mapsto.service.cross_validated_heads import cross_validated

__all__ = ["LENGTH", "Fitted", "Support", "main"]

LENGTH = 8
"""Bytes before what is sent to it, which say how long that is."""
_PRIORITY = 19


class Support(msgspec.Struct, array_like=True):
    """Labelled features, as a job holds them."""

    features: bytes
    """float32, (N, width)."""
    width: int
    numbers: list[int]
    """Of each example its class."""
    classes: list[str]


class Fitted(msgspec.Struct, array_like=True):
    """What came of it."""

    head: bytes = b""
    """`VersionHead.content`."""
    note: str = ""
    error: str = ""
    """Why there is none."""


def main() -> None:
    """Fit a head."""
    os.nice(_PRIORITY)
    way, content = msgspec.msgpack.decode(_read(int.from_bytes(_read(LENGTH), "little")), type=tuple[str, bytes])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.stdout.buffer.write(msgspec.msgpack.encode(_fitted(way, msgspec.msgpack.decode(content, type=Support))))
    sys.stdout.flush()
    os._exit(0)  # a thread waits for standard input


def _fitted(way: str, support: Support) -> Fitted:
    features = np.frombuffer(support.features, np.float32).reshape(-1, support.width)
    try:
        head, note = cross_validated(features, np.array(support.numbers, np.int64), support.classes, way)
    except MapstoError as error:
        return Fitted(error=str(error))
    return Fitted(head=head.content(), note=note)


def _read(count: int) -> bytes:
    """So many bytes of standard input. Raises `EOFError` where there are fewer: then the process that started this one has ended."""
    parts: list[bytes] = []
    while count > 0:
        part = os.read(0, min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()

"""Names of the 256 bytes as classes: a printable character of ASCII is its own name, all others are as SentencePiece writes them.

>>> BYTE_NAMES[ord("A")], BYTE_NAMES[ord(" ")], BYTE_NAMES[10], BYTE_NAMES[0xC3], byte_of("<0x0A>"), byte_of("no byte")
('A', '<0x20>', '<0x0A>', '<0xC3>', 10, None)
"""

from __future__ import annotations

__all__ = ["BYTE_NAMES", "byte_of"]

BYTE_NAMES: tuple[str, ...] = tuple(chr(byte) if 0x21 <= byte <= 0x7E else f"<0x{byte:02X}>" for byte in range(256))
"""By byte; no two are alike, and none has a space or is empty."""
_BYTES = {name: byte for byte, name in enumerate(BYTE_NAMES)}


def byte_of(name: str) -> int | None:
    """The byte of a name; None where it is none."""
    return _BYTES.get(name)

"""Text of others, such as the names of classes and files, as a terminal may be sent it."""

from __future__ import annotations

import unicodedata

__all__ = ["shown"]

_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
"""Characters that turn the direction of what follows, or break the line."""


def shown(text: str) -> str:
    r"""`text` with control characters written as escapes, so that a terminal shows them and does not obey them.

    New lines and tabs stay. Escapes are those of JSON, so that a JSON text stays the same value.

    >>> print(shown("cat\x1b[2J\u202e"))
    cat\u001b[2J\u202e
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"\\u{ord(letter):04x}" if _is_control(letter) else letter for letter in text)


def _is_control(letter: str) -> bool:
    return letter not in "\n\t" and (unicodedata.category(letter) in ("Cc", "Cs") or letter in _TURNS)

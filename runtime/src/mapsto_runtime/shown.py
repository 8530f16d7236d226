"""Text of others, such as the names of classes and files, as a terminal may be sent it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["few", "short", "shown"]

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


def short(name: str, most: int = 40) -> str:
    r"""The name of a class, a column or a file's word in a message or a table: in one line, and cut in its middle where it is long.

    >>> print(short("a\nb\tc"), short("x" * 99, most=8), short("Köln"))
    a\nb\tc xxxxx…xx Köln
    """
    end = most // 3
    cut = (
        name if len(name) <= most else f"{name[: most - 1 - end]}…{name[-end:]}"
    )  # long names often differ at their end
    return shown(cut).replace("\n", "\\n").replace("\t", "\\t")


def few(texts: Sequence[str], most: int = 5) -> str:
    """The first of several names, and how many more there are.

    >>> few(["a", "b", "c"]), few("abcdefgh")
    ('a, b, c', 'a, b, c, d, e and 3 more')
    """
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _is_control(letter: str) -> bool:
    return letter not in "\n\t" and (unicodedata.category(letter) in ("Cc", "Cs") or letter in _TURNS)

"""The lines of a text file."""

from __future__ import annotations

import re

__all__ = ["lines_of"]

_END = re.compile(r"\r\n|\n|\r")


def lines_of(text: str) -> list[str]:
    r"""The lines of a text, without what ends them: ``\n``, ``\r\n`` or ``\r``.

    `str.splitlines` cuts at form feeds and Unicode's separators of lines, too, which may stand within a text or a JSON string.

    >>> lines_of("a\u2028b\r\nc\n")
    ['a\u2028b', 'c', '']
    """
    return _END.split(text)

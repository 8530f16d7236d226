"""What the run of a stream is called."""

from __future__ import annotations

import re

__all__ = ["slug"]


def slug(name: str) -> str:
    """A name with letters, digits, dots, lines and underscores alone.

    >>> slug("my doors.v2"), slug("..")
    ('my_doors.v2', 'stream')
    """
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "stream"

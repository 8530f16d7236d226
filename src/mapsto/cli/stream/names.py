"""What the run of a stream is called, what can learn, and what its target may hold."""

from __future__ import annotations

import re
from enum import Enum

__all__ = ["LEARNERS", "LEARNERS_ON_AN_ENCODER", "Task", "slug"]

LEARNERS = ("online.tabular", "online.softmax")
"""The first of them that there is learns where none is named."""


LEARNERS_ON_AN_ENCODER = ("online.ridge",)
"""As `LEARNERS`, of the features of an encoder."""


class Task(Enum):
    """Whether a target holds classes or values."""

    AUTO = "auto"
    CLASSES = "classes"
    VALUES = "values"


def slug(name: str) -> str:
    """A name with letters, digits, dots, lines and underscores alone.

    >>> slug("my doors.v2"), slug("..")
    ('my_doors.v2', 'stream')
    """
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "stream"

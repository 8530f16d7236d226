"""A package as a value: a folder that runs without the training half of this library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mapsto.kinds.report import Table

__all__ = ["Package"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Package:
    """A folder that runs without the training half of mapsto.

    `files` maps each path inside the package (POSIX, relative) to a local file that holds its bytes; ``manifest.json``
    names the others with their hashes, the signature, and the parity report.
    """

    files: Mapping[str, Path]
    measured: Mapping[str, Table] = field(default_factory=dict[str, Table])
    """Times that a choice was made by: they differ from run to run and stay outside the package's digest."""

    def manifest(self) -> dict[str, Any]:
        """The parsed ``manifest.json``."""
        return json.loads(self.files["manifest.json"].read_text(encoding="utf-8"))

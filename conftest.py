"""Tests and doctests keep what they cache inside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("MAPSTO_CACHE", str(Path(__file__).parent / ".data" / "cache"))

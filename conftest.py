"""Tests and doctests keep what they cache inside the checkout, and their threads do not spin."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core for each worker
os.environ.setdefault("MAPSTO_CACHE", str(Path(__file__).parent / ".data" / "cache"))

"""Each tutorial runs from top to bottom, and its notebook is the one its source gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "docs" / "tutorials").glob("*.py"))


def test_notebooks_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "notebooks.py"), "--check"], check=False)
    assert done.returncode == 0, "run scripts/notebooks.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_tutorial(source: Path) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names: dict[str, Any] = {"__name__": source.stem}
    exec(compile(source.read_text(encoding="utf-8"), str(source), "exec"), names)
    assert plt.get_fignums()
    plt.close("all")

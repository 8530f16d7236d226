from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.studio.folders import copied, make_search


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs and a search, made once."""
    folder = tmp_path_factory.mktemp("studio")
    copied(folder / "runs")
    make_search(folder / "runs" / "found")
    return folder / "runs"


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "runs"))

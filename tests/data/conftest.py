"""Folders of their own for tests on data, and the real data where there is some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mapsto.data.io.download import cache_folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cache for all tests of a run, outside the user's own but for the kernels, which take a minute to compile."""
    folder = tmp_path_factory.getbasetemp() / "mapsto-cache"
    if not folder.exists():
        folder.mkdir()
        (folder / "kernels").symlink_to(cache_folder() / "kernels")
    monkeypatch.setenv("MAPSTO_CACHE", str(folder))
    return folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("MAPSTO_DATA", str(folder))
    return folder


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Path:
    """The data folder named by MAPSTO_DATA; skips where it lacks what the test's ``needs`` names."""
    given = os.environ.get("MAPSTO_DATA")
    if not given:
        pytest.skip("MAPSTO_DATA is not set: no real data to test on")
    for name in request.param:
        if not (Path(given) / name).exists():
            pytest.skip(f"{name} is not in MAPSTO_DATA")
    return Path(given)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mapsto import kinds


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's store."""
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path_factory.mktemp("store")))


@pytest.fixture
def trusted() -> Iterator[None]:
    with kinds.trusting("tests"):
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch computes on one thread: small networks are faster so, and results are the same on every machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def store_folder(tmp_path: Path) -> Path:
    return tmp_path / "store"

"""A full disk: a clear error, nothing half-written, and the next run goes on."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapsto.errors import MapstoError
from mapsto.mapping import ref
from mapsto.run import execute
from mapsto.store import Store, files
from mapsto.store import store as stores
from tests.toys import Toward, Toy, Walk

pytestmark = pytest.mark.usefixtures("trusted")


def chain():  # type: ignore[no-untyped-def]
    return Toy() >> Walk(steps=4).labelled("teacher") >> Walk(steps=3) >> Toward(teacher=ref("teacher"))


def test_enospc_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_CHECKPOINT_SECONDS", "0")
    digests = [step.digest for step in execute(chain(), store=tmp_path / "whole").steps]
    original = stores.write_atomically
    count = 0

    def counting(target: Path, data: bytes, *, durable: bool = False) -> None:
        nonlocal count
        count += 1
        if count == fail_at:
            error = OSError(errno.ENOSPC, "No space left on device", str(target))
            raise files.disk_error(error, target) from error
        original(target, data, durable=durable)

    monkeypatch.setattr(stores, "write_atomically", counting)
    fail_at = -1
    execute(chain(), store=tmp_path / "counted")
    writes = count
    assert writes > 12
    for fail_at in range(1, writes + 1, 3):
        count = 0
        place = tmp_path / f"full-{fail_at}"
        with pytest.raises(MapstoError, match="disk is full") as caught:
            execute(chain(), store=place)
        assert caught.value.exit_code == 2
        count = -(10**9)
        assert Store(place).verify() == []
        assert [step.digest for step in execute(chain(), store=place).steps] == digests


@pytest.mark.parametrize("stopped_at", ["os.fsync", "pathlib.Path.replace"])
def test_ctrl_c_in_the_middle_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: str) -> None:
    target = tmp_path / "kept.json"
    files.write_atomically(target, b"whole", durable=True)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stopped_at, stopped)
        with pytest.raises(KeyboardInterrupt):
            files.write_atomically(target, b"half", durable=True)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]
    assert target.read_bytes() == b"whole"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no right to mount a tmpfs here; the injected test above covers it")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=False)


def test_a_tmpfs_that_is_full(small_disk: Path, tmp_path: Path) -> None:
    chain = Toy(inputs=4000, outputs=8) >> Walk(steps=2)
    with pytest.raises(MapstoError, match="disk is full") as caught:
        execute(chain, store=small_disk / "store")
    assert caught.value.exit_code == 2
    assert not list(small_disk.rglob("*.tmp"))
    assert subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=False).returncode == 0
    run = execute(chain, store=small_disk / "store")
    assert run.steps[-1].digest == execute(chain, store=tmp_path / "whole").steps[-1].digest

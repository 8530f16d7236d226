"""A full disk: a clear error, nothing half-written, and the next run goes on."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.command import mapsto
from tests.toys import Toward, Toy, Walk

from mapsto.errors import MapstoError, is_environment_error, trouble
from mapsto.mapping import ref
from mapsto.mappings.networks.mlp import Mlp
from mapsto.run.executor import execute
from mapsto.store import Store, files
from mapsto.store import store as stores

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


# ------------------------------------------------------------------------------ full, too large, read-only: each by its name

TROUBLES = {
    errno.ENOSPC: ("the disk is full", "free some space (`mapsto store gc --store {store}`)"),
    errno.EDQUOT: ("your quota on this disk is used up", "delete files of yours there, or ask for more"),
    errno.EFBIG: ("the file would be larger than files may be here", "raise the limit (`ulimit -f unlimited`)"),
    errno.EROFS: ("Read-only file system", "mount it so that it can be written"),
    errno.EIO: ("the disk or the network drive fails (input/output error)", "check it"),
}


@pytest.mark.parametrize("number", TROUBLES)
def test_what_hinders_a_write_is_named_with_its_remedy(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it happens: in a step's own files, of which the error names none, in the store, in the results."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("schema: 1\nsteps: [{networks.mlp: {widths: [3], inputs: 4, classes: 2}}]\n")
    what, remedy = TROUBLES[number]
    store = tmp_path / "my store"
    words = ("run", "r.yaml", "--store", store, "--out", "out", "--threads", 1)
    real = Path.open

    def failing(part: str) -> Callable[..., object]:
        def opened(path: Path, mode: str = "r", *args: object, **named: object) -> object:
            if part in str(path) and "w" in mode:
                raise OSError(number, os.strerror(number), str(path))
            return real(path, mode, *args, **named)

        return opened

    def unnamed(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    def require_said() -> None:
        said = mapsto(*words, code=2).err
        assert what in said
        assert remedy.format(store=f"'{store}'") in said
        assert "run the same command again" in said

    with monkeypatch.context() as patch:
        patch.setattr(Mlp, "apply", unnamed)
        require_said()
    for part in ("/blobs/", "out/.report.json"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", failing(part))
            require_said()
    mapsto(*words, code=0)


def test_an_array_that_numpy_cannot_write_whole_is_the_disks_fault() -> None:
    error = OSError("4096 requested and 512 written")
    assert is_environment_error(error)
    assert trouble(error)[0] == "the disk is full, or a file may not be as large here"
    assert not is_environment_error(OSError("anything else"))


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path) -> None:
    """``ulimit -f``, really: the signal is ignored by Python, so that the write fails."""
    (tmp_path / "r.yaml").write_text("schema: 1\nsteps: [{networks.mlp: {widths: [500], inputs: 500}}]\n")
    words = f"ulimit -f 64; exec {sys.executable} -m mapsto run r.yaml --store s --out o --threads 1"
    done = subprocess.run(["bash", "-c", words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "the file would be larger than files may be here" in " ".join(done.stderr.split())
    assert "ulimit -f" in done.stderr

"""``verify`` and ``gc`` mean the same on a folder, on fsspec's file systems and on an object store: they ask the store itself."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from tests import toys
from tests.toys import Toy, Walk

from mapsto.errors import StoreError
from mapsto.run.executor import execute
from mapsto.store import Store

pytestmark = pytest.mark.usefixtures("trusted")

KINDS = ["folder", "memory", "file", pytest.param("s3", marks=pytest.mark.slow)]
_S3 = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", int(sys.argv[1]), verbose=False)
server.start()
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The address of a server that speaks S3, on loopback, with the bucket ``mapsto``."""
    for name in ("s3fs", "moto", "flask"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: s3fs and moto[server] are needed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with (tmp_path_factory.mktemp("s3") / "log").open("w") as log, pytest.MonkeyPatch.context() as patch:
        given = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in {**given, "AWS_ENDPOINT_URL": address}.items():
            patch.setenv(name, value)
        server = subprocess.Popen([sys.executable, "-c", _S3, str(port)], stdin=subprocess.PIPE, stdout=log, stderr=log)
        try:
            _await(address)
            import s3fs

            s3fs.S3FileSystem().mkdir("mapsto")
            yield address
        finally:
            server.kill()
            server.wait()


def _await(address: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
        else:
            return


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store's place."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    return {
        "folder": str(tmp_path / "store"),
        "memory": f"memory://{tmp_path.name}-{time.monotonic_ns()}",
        "file": f"file://{tmp_path}/store",
        "s3": f"s3://mapsto/{tmp_path.name}-{time.monotonic_ns()}",
    }[request.param]


def elsewhere(place: str) -> Store:
    """The same store on a machine that has no copy of anything."""
    store = Store(place)
    if store.remote is None:
        return store
    shutil.rmtree(store.root)
    return Store(place)


def change(store: Store, relative: str, data: bytes | None) -> None:
    """Change, or remove, a file in the store itself: nothing happens to copies on this machine."""
    if store.remote is None:
        path = store.path(relative)
        path.parent.mkdir(exist_ok=True)
        path.unlink() if data is None else path.write_bytes(data)
        return
    store.remote.drop(relative) if data is None else store.remote.put(relative, data)


def of(store: Store, digest: str) -> list[str]:
    """The blobs of a network, as files of the store."""
    return [f"blobs/{blob[:2]}/{blob}" for blob in sorted(toys_blobs(store, digest))]


def toys_blobs(store: Store, digest: str) -> set[str]:
    from mapsto.store.codec import blobs_of

    return set(blobs_of(store.manifest(digest)))


def test_a_whole_store_is_whole_wherever_it_is_asked(place: str) -> None:
    run = execute(Toy() >> Walk(steps=2), store=place)
    assert Store(place).verify() == []
    assert elsewhere(place).verify() == []
    sizes = [row["bytes"] for row in elsewhere(place).ls()]
    assert all(sizes)
    toys.CALLS.clear()
    again = execute(Toy() >> Walk(steps=2), store=place)
    assert toys.CALLS == []
    assert again.steps[-1].digest == run.steps[-1].digest


@pytest.mark.parametrize("warm", [True, False], ids=["with copies", "without"])
def test_verify_finds_what_is_damaged_or_missing_in_the_store(place: str, warm: bool) -> None:
    run = execute(Toy() >> Walk(steps=2), store=place)
    store = Store(place)
    first, last = (run.steps[number].digest for number in (0, -1))
    damaged, missing = of(store, last)[:2]
    change(store, damaged, b"another")
    change(store, missing, None)
    change(store, f"artifacts/{first[:2]}/{first}.json", None)
    change(store, f"keys/00/{'0' * 64}.json", b"{")
    found = {
        (Path(each.path).stem, each.what.partition(":")[0]) for each in (store if warm else elsewhere(place)).verify()
    }
    assert (Path(damaged).stem, "a blob is damaged") in found
    assert (Path(missing).stem, "a blob is missing") in found
    assert (run.steps[0].key, f"its artifact {first[:12]} is missing") in found
    assert ("0" * 64, "a record is damaged") in found
    assert len(found) == 4


def test_gc_removes_what_nothing_refers_to_and_nothing_else(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = execute(Toy() >> Walk(steps=2), store=place)
    store = Store(place)
    kept = run.steps[0].digest
    published = store.save(execute(Toy() >> Walk(steps=3), store=place).value())
    for key in [record.key for record in store.records() if record.digest != kept]:
        store.forget(key)
    store.save_run({"id": "r", "published": [{"digest": published, "n": 1, "time": 0.0}]})
    later = time.time() + 2 * 86400
    monkeypatch.setattr(time, "time", lambda: later)
    other = elsewhere(place)
    before = set(other.listed("blobs")) | set(other.listed("artifacts"))
    planned = other.gc(dry_run=True)
    assert set(other.listed("blobs")) | set(other.listed("artifacts")) == before
    freed = other.gc()
    assert freed == planned
    assert freed["files"] == len(before) - len(set(other.listed("blobs")) | set(other.listed("artifacts")))
    assert freed["bytes"] > 0
    assert elsewhere(place).load(kept).tensors
    assert elsewhere(place).load(published).tensors, "what a run has published stays, also where no copy of it is here"
    with pytest.raises(StoreError, match="missing"):
        elsewhere(place).load(run.steps[-1].digest)
    assert elsewhere(place).verify() == []
    assert other.gc()["files"] == 0


def test_gc_fetches_nothing_that_it_does_not_read(tmp_path: Path) -> None:
    place = f"memory://{tmp_path.name}-{time.monotonic_ns()}"
    execute(Toy(), store=place)
    other = elsewhere(place)
    other.gc()
    other.verify()
    assert not [path for path in other.path("blobs").rglob("*") if path.is_file()]


def test_copies_of_what_another_machine_removed_go_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"memory://{tmp_path.name}-{time.monotonic_ns()}"
    execute(Toy(), store=place)
    store = Store(place)
    blob = store.put_blob(torch.ones(3))
    relative = f"blobs/{blob[:2]}/{blob}"
    assert store.remote is not None
    store.remote.drop(relative)
    assert store.gc()["files"] == 0
    assert store.path(relative).exists(), "it is young: somebody here may be writing it"
    os.utime(store.path(relative), (time.time() - 2 * 86400,) * 2)
    assert store.gc()["files"] == 0, "of the store nothing was removed"
    assert not store.path(relative).exists()


def test_a_damaged_copy_is_fetched_again(tmp_path: Path) -> None:
    place = f"memory://{tmp_path.name}-{time.monotonic_ns()}"
    digest = execute(Toy(), store=place).steps[0].digest
    store = Store(place)
    blob = of(store, digest)[0]
    store.path(blob).parent.mkdir(parents=True, exist_ok=True)
    for relative in (blob, f"artifacts/{digest[:2]}/{digest}.json"):
        store.path(relative).write_bytes(b"damaged")
    assert store.verify() == []
    assert Store(place).load(digest).tensors
    change(store, blob, b"damaged too")
    store.path(blob).write_bytes(b"damaged")
    with pytest.raises(StoreError, match="damaged"):
        Store(place).load(digest)

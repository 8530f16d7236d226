"""The store among several processes: leases that end with their holder, gc beside a running step, a store that is only read."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
from tests.command import mapsto
from tests.toys import Toy, Walk

from mapsto import datasets, kinds, networks, train
from mapsto.cli.ages import days_of
from mapsto.context import Context, Numerics
from mapsto.errors import MapstoError, SpecError, StoreError
from mapsto.kinds import Package
from mapsto.mapping import Mapping
from mapsto.run.executor import Executor, execute
from mapsto.store import Store, files
from mapsto.store import store as stores

pytestmark = pytest.mark.usefixtures("trusted")

HOLD = """
import sys, time
from pathlib import Path
from mapsto.store import lock
with lock.lease(Path(sys.argv[1]), "k", committed=lambda: False, waiting=lambda holder: None) as held:
    held.mark("ab" * 32)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(store_folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the key "k"."""
    Store(store_folder)
    command = [sys.executable, "-c", HOLD, str(store_folder / "leases")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_killed_holder_frees_its_key_and_what_it_marked_even_as_a_zombie(
    store_folder: Path, holder: subprocess.Popen[str]
) -> None:
    store, told = Store(store_folder), list[str]()
    blob = store.path(f"blobs/ab/{'ab' * 32}")
    files.write_atomically(blob, b"about to be committed")
    assert store.gc()["files"] == 0
    threading.Timer(0.7, lambda: os.kill(holder.pid, signal.SIGKILL)).start()  # nobody waits for it: it stays a zombie
    began = time.monotonic()
    with store.lease("k", waiting=told.append) as mine:
        assert mine
    assert 0.5 < time.monotonic() - began < 20
    assert f"{socket.gethostname()}, process {holder.pid}, since " in told[0]
    assert list(store.path("leases").iterdir()) == []
    assert store.gc()["files"] == 1
    assert not blob.exists()
    holder.wait()


def old_lease(**changes: object) -> str:
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": "x", "beat": time.time(), **changes})


@pytest.mark.parametrize(
    "text",
    [old_lease(), old_lease(pid=1), old_lease(host="elsewhere"), "", "{", "\0\0\0", '{"pid": []}'],
    ids=["own process id", "a living process", "another host", "empty", "cut off", "zeros", "damaged"],
)
def test_what_earlier_versions_or_a_crash_left_holds_nothing(store_folder: Path, text: str) -> None:
    store = Store(store_folder)
    for name in ("k", "other"):
        for suffix in (".json", ".lock", ".marks"):
            files.write_atomically(store.path(f"leases/{name}{suffix}"), text.encode())
    with store.lease("k") as mine:
        assert mine
    store.gc()
    assert list(store.path("leases").iterdir()) == []


def test_of_two_at_once_one_computes(store_folder: Path) -> None:
    chain, runs = Toy() >> Walk(steps=3), list[list[str]]()

    def work() -> None:
        with kinds.trusting("tests"):
            runs.append([step.status for step in execute(chain, store=store_folder).steps])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(status for statuses in runs for status in statuses) == ["hit", "hit", "ran", "ran"]


def test_without_locks_everyone_computes(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    store = Store(store_folder)
    with store.lease("k") as mine, Store(store_folder).lease("k") as theirs:
        assert mine
        assert theirs
        digest = store.save(Toy()())
        assert store.gc()["files"] == 0, "who is at work cannot be known: what is young stays"
        store.load(digest)


# ---------------------------------------------------------------------------------------------------------------------- gc


@pytest.mark.parametrize("moment", ["a blob", "the last blob", "the manifest", "a blob that was there"])
def test_gc_at_every_moment_of_a_commit(store_folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    if moment == "a blob that was there":
        execute(Toy(), store=store_folder)
        for path in store_folder.glob("keys/*/*"):
            path.unlink()
    original, collected = stores.write_atomically, list[str]()

    def written(target: Path, data: bytes, *, durable: bool = False) -> None:
        original(target, data, durable=durable)
        kind = target.relative_to(store_folder).parts[0]
        blobs = len(list(store_folder.glob("blobs/*/*")))
        now = {"a blob": kind == "blobs", "the last blob": kind == "blobs" and blobs == 2}
        if now.get(moment, kind == "artifacts"):
            collected.append(kind)
            Store(store_folder).gc()

    def held(self: Store, relative: str, data: bytes) -> bool:
        found = holds(self, relative, data)
        if found and moment == "a blob that was there":
            collected.append(relative)
            Store(store_folder).gc()
        return found

    holds = Store._holds
    with monkeypatch.context() as patch:
        patch.setattr(stores, "write_atomically", written)
        patch.setattr(Store, "_holds", held)
        run = execute(Toy(), store=store_folder)
    assert collected
    assert Store(store_folder).verify() == []
    assert set(run.value().tensors) == {"weight", "bias"}
    assert execute(Toy(), store=store_folder).steps[0].hit


def test_what_is_marked_during_gc_is_written_after_it(store_folder: Path) -> None:
    store, other = Store(store_folder), Store(store_folder)
    digest = store.put_blob(torch.ones(3))
    from mapsto.store import lock

    with lock.collecting(store.root):
        thread = threading.Thread(target=other.put_blob, args=(torch.ones(3),))
        thread.start()
        time.sleep(0.1)
        store.path(f"blobs/{digest[:2]}/{digest}").unlink()
    thread.join(20)
    assert store.blob_path(digest).exists()


def test_an_old_step_that_a_run_uses_stays(store_folder: Path) -> None:
    run = execute(Toy(), store=store_folder)
    record = next(store_folder.glob("keys/*/*"))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"created": 0}))

    store = Store(store_folder)
    with store.in_use():
        store.use(run.steps[0].digest)
        assert Store(store_folder).gc(keep_days=1)["files"] == 1, "the record alone"
        assert store.load(run.steps[0].digest).tensors
    assert store.gc()["files"] == 3


def test_abandoned_checkpoints_go_by_age(store_folder: Path) -> None:
    store = Store(store_folder)
    for name in ("a" * 64, f"{'a' * 64}-1", "b" * 64):
        store.save_state(name, {"step": 1})
    for name in ("a" * 64, f"{'a' * 64}-1"):
        os.utime(store.path(f"states/{name}"), (time.time() - 31 * 86400,) * 2)
    with store.lease("a" * 64):
        assert store.gc()["files"] == 0, "its run goes on"
    assert store.gc(checkpoint_days=40)["files"] == 0
    assert store.gc()["files"] == 2
    assert [path.name for path in store.path("states").iterdir()] == ["b" * 64]
    store.save_state("b" * 64 + "-1", {"step": 1})
    store.drop_states("b" * 64)
    assert list(store.path("states").iterdir()) == []


@pytest.mark.parametrize(("age", "days"), [("30d", 30.0), ("12h", 0.5), ("2 w", 14.0), ("1.5", 1.5)])
def test_ages(age: str, days: float) -> None:
    assert days_of(age, where="--age") == days


def test_no_age() -> None:
    with pytest.raises(SpecError, match="as in 30d"):
        days_of("a month", where="--age")


def test_gc_of_an_object_store_leaves_what_is_young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://{tmp_path.name}"
    store = Store(url)
    digest = store.save(Toy()())
    assert store.gc()["files"] == 0
    later = time.time() + 2 * 86400
    monkeypatch.setattr(time, "time", lambda: later)
    assert store.gc()["files"] == 3
    with pytest.raises(StoreError, match="missing"):
        Store(url).load(digest)


# ------------------------------------------------------------------------------------------------------------------- the rest


def test_a_loaded_tensor_keeps_no_file_open(store_folder: Path) -> None:
    store = Store(store_folder)
    digests = [store.put_blob(torch.full((2,), float(number))) for number in range(80)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
    try:
        tensors = [store.tensor(digest) for digest in digests]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [tensor[1].item() for tensor in tensors] == list(range(80))


class Packed(Mapping[None, Package]):
    """A package of one file."""

    def apply(self, value: None, ctx: Context) -> Package:
        path = ctx.scratch() / "model"
        path.write_bytes(b"bytes")
        return Package(files={"model": path})


def test_the_files_of_a_result_are_freed(store_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    run = execute(Packed(), store=store_folder)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert run.value().files["model"].read_bytes() == b"bytes"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_store_that_is_only_read_gives_its_results(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    first = execute(Toy() >> Walk(steps=2), store=store_folder)

    def refused(target: Path, data: bytes, *, durable: bool = False) -> None:
        raise files.disk_error(OSError(number, os.strerror(number)), target)

    for module in ("mapsto.store.store", "mapsto.store.lock", "mapsto.store.remote"):
        monkeypatch.setattr(f"{module}.write_atomically", refused)
    monkeypatch.setattr(Path, "mkdir", _refusing(Path.mkdir, store_folder, number))
    run = execute(Toy() >> Walk(steps=2), store=store_folder)
    assert [step.status for step in run.steps] == ["hit", "hit"]
    assert torch.equal(run.value().tensors["weight"], first.value().tensors["weight"])
    with pytest.raises(MapstoError, match="cannot be written") as caught:
        execute(Toy() >> Walk(steps=3), store=store_folder)
    assert caught.value.exit_code == 2


def _refusing(original, folder: Path, number: int):  # type: ignore[no-untyped-def]
    def refused(self: Path, *arguments: object, **named: object) -> None:
        if folder in self.parents:
            raise OSError(number, os.strerror(number), str(self))
        original(self, *arguments, **named)

    return refused


@pytest.fixture
def read_only(store_folder: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """A place where the store's folder can be read, and only that."""
    store_folder.mkdir()
    place = tmp_path / "read only"
    place.mkdir()
    bound = ["mount", "--bind", str(store_folder), str(place)]
    if subprocess.run(bound, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount here; the injected test above covers it")
    assert subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=False).returncode == 0
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=False)


RECIPE = """\
schema: 1
name: small
data: {d: {subset: {data: {digits: {size: 16}}, per_class: 4}}}
steps:
  - networks.conv4: {data: $d, width: 4}
    observe: {size: {evaluate.size: {}}}
"""


def test_the_command_on_a_store_that_is_only_read(read_only: Path, store_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(RECIPE)
    command = ["run", tmp_path / "small.yaml", "--threads", "1"]
    mapsto(*command, "--store", store_folder, "--out", tmp_path / "one", code=0)
    done = mapsto(*command, "--store", read_only, "--out", tmp_path / "two", code=0)
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two"))
    assert [step["digest"] for step in second["steps"]] == [step["digest"] for step in first["steps"]]
    assert all(step["hit"] for step in second["steps"])
    assert "the store cannot be written: this run is not listed in it" in done.err
    assert (
        "cannot be written: Read-only file system" in mapsto(*command, "--seed", "1", "--store", read_only, code=2).err
    )
    mapsto(*command, "--plan", "--store", read_only, code=0)


def test_a_plan_downloads_nothing(store_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request

    from mapsto.cli.progress import Notes

    def called(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setenv("MAPSTO_DATA", str(tmp_path / "nothing"))
    monkeypatch.setattr(urllib.request, "urlopen", called)
    data = datasets.cifar10()
    notes = Notes()
    recipe = networks.conv4(data=data, width=4) >> train.supervised(data=data, epochs=1)
    steps = execute(recipe, store=store_folder, plan=True, listener=notes).steps
    assert [(step.key, step.status) for step in steps] == [("", "planned")] * 2
    assert notes.texts == ["not known until it is downloaded: CIFAR-10; what uses it counts as to be run"]


def test_fsdp_is_refused() -> None:
    with pytest.raises(
        SpecError, match=r"'fsdp' is not offered: no test shows that its results are right.*auto or ddp"
    ):
        Numerics(strategy="fsdp", world_size=2)


def test_keys_hold_whether_there_are_compiled_kernels(
    store_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Toy() >> Walk(steps=2)
    compiled = execute(chain, store=store_folder)
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path / "full"))
    (tmp_path / "full").write_text("no folder")
    without = execute(chain, store=store_folder)
    if Executor(Store(store_folder)).without_kernels is None:
        pytest.fail("the kernels cannot be there")
    assert [step.hit for step in execute(chain, store=store_folder).steps] == [True, True]
    if not compiled.steps[1].notes:
        assert [step.hit for step in without.steps] == [False, False]
        assert {step.key for step in without.steps}.isdisjoint(step.key for step in compiled.steps)
    assert "without compiled kernels, so slower" in without.steps[1].notes[0]


def doctor(place: Path) -> dict[str, str]:
    return json.loads(mapsto("doctor", "--store", place, "--json", code=0).out)["Store"]


def test_doctor_says_who_holds_what_and_what_was_left_behind(store_folder: Path, holder: subprocess.Popen[str]) -> None:
    store = Store(store_folder)
    store.save_state("f" * 64, {"step": 1})
    old = store.path(f"states/{'e' * 64}")
    old.write_bytes(b"x" * 2**20)
    os.utime(old, (time.time() - 40 * 86400,) * 2)
    (store_folder / "leases" / "dead.marks").write_text("")
    found = doctor(store_folder)
    assert (found["writable"], found["locks"]) == ("yes", "work on this file system")
    assert found["leases"].startswith(f"1 held ({socket.gethostname()}, process {holder.pid}, since ")
    assert (
        f"; 1 files of processes that ended without removing them: mapsto store gc --store {store_folder}"
        in found["leases"]
    )
    assert found["checkpoints"].startswith(
        "2 of runs that were stopped (1.0 MiB), 1 of them not needed or not taken up"
    )
    holder.kill()
    holder.wait()
    assert doctor(store_folder)["leases"].startswith("none held; ")
    assert not list(store_folder.glob(".probe*")), "it leaves nothing"


def test_doctor_says_where_a_store_cannot_be_written_or_has_no_locks(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor(store_folder) | {"place": ""} == {
        "place": "",
        "writable": "yes",
        "locks": "work on this file system",
        "leases": "none held",
        "checkpoints": "none of stopped runs",
    }

    def no_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", no_locks)
    assert doctor(store_folder)["locks"].startswith("none on this file system: two runs")
    monkeypatch.setattr(Store, "writable", property(lambda _: False))
    assert doctor(store_folder)["writable"].startswith("no: what is finished can be used")
    plain = store_folder.with_name("plain")
    plain.write_text("")
    assert doctor(plain)["writable"].startswith("no: ")

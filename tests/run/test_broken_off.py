"""Processes that are broken off where it is awkward: one after another in a step, with a checkpoint or a log that is damaged."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tests.online.test_learning import block
from tests.run.test_stopping import StopAt
from tests.toys import Toy, Walk

from mapsto import online
from mapsto.context import Context
from mapsto.errors import StepError, StoreError
from mapsto.kinds import Block, Network, Stream
from mapsto.mapping import Mapping
from mapsto.run.executor import execute
from mapsto.store import Store, decode_state, encode_state
from mapsto.store.row_log import RowLog

pytestmark = pytest.mark.usefixtures("trusted")


class Twice(Mapping[Network, Network]):
    """Two walks, of which the second goes on from the first."""

    def apply(self, value: Network, ctx: Context) -> Network:
        return ctx.apply(Walk(steps=9), ctx.apply(Walk(steps=9), value))


@pytest.mark.parametrize("n", [0, 4])
def test_what_follows_a_stopped_process_leaves_no_checkpoint(store_folder: Path, n: int) -> None:
    twice = Toy() >> Twice()
    whole = execute(twice, store=store_folder / "whole")
    stopped = execute(twice, store=store_folder / "stopped", listener=StopAt(n))
    assert stopped.steps[-1].status == "stopped"
    again = execute(twice, store=store_folder / "stopped")
    assert again.steps[-1].status == "ran"
    assert again.result.digest == whole.result.digest != stopped.result.digest


# ------------------------------------------------------------------------------------------------- damaged on the disk


class Notes(StopAt):
    """What is said of a run, which may be stopped."""

    def __init__(self, n: int = 10**9) -> None:
        super().__init__(n)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_damage_at_any_byte_costs_work_and_never_a_wrong_result(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAPSTO_CHECKPOINT_SECONDS", "0")
    walk, generator = Toy() >> Walk(steps=9), random.Random(0)
    whole = execute(walk, store=store_folder / "whole")
    for trial in range(12):
        place = store_folder / str(trial)
        execute(walk, store=place, listener=StopAt(6))
        files = sorted((place / "states").iterdir())
        damaged = files[trial % 2]
        data = bytearray(damaged.read_bytes())
        at = generator.randrange(len(data))
        if trial > 9:
            del data[at:]
        else:
            data[at] ^= 1 << generator.randrange(8)
        damaged.write_bytes(data)
        again = execute(walk, store=place, listener=(listener := Notes()))
        assert (again.result.digest, again.steps[-1].curves) == (whole.result.digest, whole.steps[-1].curves)
        assert any("starts anew: its checkpoint" in note for note in listener.notes)


def test_a_log_on_a_full_disk_ends_with_the_remedy(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    log = RowLog(Store(tmp_path), "k", None)
    log._file.close()
    log._file = Path("/dev/full").open("ab")  # noqa: SIM115 - closed by the log
    log.append(1, {"loss": 1.0})
    with pytest.raises(StoreError, match="disk is full"):
        log.mark()
    with pytest.raises(StoreError, match="disk is full"):
        log.close()


def test_what_an_object_store_cached_of_a_log_goes_with_its_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MAPSTO_CHECKPOINT_SECONDS", "0")
    store = Store(f"memory://{time.monotonic_ns()}")
    execute(Toy() >> Walk(steps=6), store=store, listener=StopAt(3))
    assert list(store.path("states").glob("*-log"))
    assert store.remote is not None
    remote = store.remote

    def modified(relative: str) -> float | None:
        return 0.0 if remote.exists(relative) else None

    monkeypatch.setattr(remote, "modified", modified)
    store.gc(checkpoint_days=1)
    assert list(store.names("states")) == []
    execute(Toy() >> Walk(steps=6), store=store)
    assert list(store.names("states")) == []


# ---------------------------------------------------------------------------------------------- streams of other packages


class Odd(Stream):
    """Two numbers and their labels over and over, with positions that are wrong."""

    version: ClassVar[int] = 1
    fault: str = "stuck"
    """Of its positions."""

    def identity(self) -> str:
        return self.fault

    def fingerprint(self) -> str:
        return self.fault

    def columns(self) -> dict[str, Any]:
        return {"a": "number"}

    def open(self, position: Any = None, *, size: int = 256) -> Iterator[Block]:
        for number in range(4):
            given = block({"a": [1.0, 2.0]}, ["y", "n"])
            wrong = {"stuck": 7, "none": None, "array": np.int64(number), "tuple": (number,)}[self.fault]
            yield dataclasses.replace(given, next=wrong)


@pytest.mark.parametrize("fault", ["stuck", "none", "array", "tuple"])
def test_a_stream_that_cannot_be_opened_again_is_refused(store_folder: Path, fault: str) -> None:
    with pytest.raises(StepError, match=r"Odd: a block of 2 events gives .* as the position after it, which is "):
        execute(online.softmax(stream=Odd(fault=fault)), store=store_folder)


# ------------------------------------------------------------------------------------------------------- what a state holds


def test_scalars_of_numpy_keep_their_kind_and_what_cannot_be_read_again_is_not_written() -> None:
    state = decode_state(encode_state({"n": np.int64(3), "x": np.float32(0.1), "a": np.zeros((0, 2), ">f4")}))
    assert state is not None
    assert (type(state["n"]), type(state["x"]), state["a"].shape) == (np.int64, np.float32, (0, 2))
    for odd in ({"a": {(1, 2): 3}}, {"a": "\ud800"}, {"a": np.array(["x"])}):
        with pytest.raises(StoreError, match="a process's state"):
            encode_state(odd)


@pytest.mark.parametrize(
    "text", ["[]", '{"published": 5}', '{"published": [{}]}', '{"published": [{"digest": "../x"}]}']
)
def test_a_run_of_which_nobody_can_tell_what_it_published_stops_gc(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    (tmp_path / "runs").mkdir()
    store.path("runs/r.json").write_text(text)
    with pytest.raises(StoreError, match="a run's file is damaged; delete that file"):
        store.gc()

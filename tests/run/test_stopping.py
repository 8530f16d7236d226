"""A process's log, stopping before the end, publishing on the way, streams that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.command import mapsto
from tests.toys import Toy, Walk

from mapsto import online, streams
from mapsto.errors import SpecError
from mapsto.run.executor import execute
from mapsto.run.metrics_log import MOST_ROWS, curves
from mapsto.run.result import Listener, StepResult
from mapsto.store import Store
from mapsto.store.row_log import RowLog

pytestmark = pytest.mark.usefixtures("trusted")


class StopAt(Listener):
    """Wants a process to stop once it has come so far."""

    def __init__(self, n: int) -> None:
        self.n, self.done = n, 0

    def advanced(self, step: StepResult, done: int, total: int | None, metrics: Any) -> None:
        self.done = done

    def wants_stop(self, step: StepResult) -> bool:
        return self.done >= self.n


class Killed(StopAt):
    """Dies instead."""

    def advanced(self, step: StepResult, done: int, total: int | None, metrics: Any) -> None:
        if done >= self.n:
            raise KeyboardInterrupt


# ------------------------------------------------------------------------------------------------------------------ the log


def test_a_log_is_cut_back_to_its_checkpoint(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with RowLog(store, "k", None) as log:
        log.append(1, {"loss": 0.1})
        mark = log.mark()
        log.append(2, {"loss": float("nan")})
    with RowLog(store, "k", mark) as log:
        assert list(log.rows()) == [(1, {"loss": 0.1})]
        log.append(2, {"loss": 1 / 3})
        assert list(log.rows()) == [(1, {"loss": 0.1}), (2, {"loss": 1 / 3})]
    with pytest.raises(LookupError, match="at the checkpoint it had 999"):
        RowLog(store, "k", {"length": 999, "segments": []})


def test_on_an_object_store_each_checkpoint_adds_a_segment() -> None:
    url = f"memory://{time.monotonic_ns()}"
    with RowLog(Store(url), "k", None) as log:
        for n in (1, 2):
            log.append(n, {"loss": n / 7})
            mark = log.mark()
        log.append(3, {"loss": 0.0})
        path = log._path
    assert len(mark["segments"]) == 2
    path.unlink()  # another machine
    with RowLog(Store(url), "k", mark) as log:
        assert list(log.rows()) == [(1, {"loss": 1 / 7}), (2, {"loss": 2 / 7})]


def test_a_record_keeps_few_rows_and_loses_no_epoch() -> None:
    rows = [(n, {"loss": 1.0, **({"epoch": float(n // 100)} if n % 100 == 0 else {})}) for n in range(1, 5001)]
    kept = curves(lambda: iter(rows))
    assert kept is not None
    assert len(kept["rows"]) == MOST_ROWS
    assert kept["rows"][0][0] == 1
    assert [row[0] for row in kept["rows"] if row[2] is not None] == list(range(100, 5001, 100))
    assert curves(lambda: iter(())) is None
    assert curves(lambda: iter(rows[:7]))["rows"] == [[n, 1.0] for n in range(1, 8)]  # type: ignore[index]


def test_a_checkpoint_does_not_grow_with_the_rows(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_CHECKPOINT_SECONDS", "0")
    sizes: list[int] = []

    class Sizes(Listener):
        def advanced(self, step: StepResult, done: int, total: int | None, metrics: Any) -> None:
            sizes.extend(p.stat().st_size for p in (store_folder / "states").glob("*") if "-log" not in p.name)

    run = execute(Toy() >> Walk(steps=300), store=store_folder, listener=Sizes())
    assert max(sizes) - min(sizes) < 64
    assert len(run.steps[-1].curves["rows"]) == 300
    assert not list((store_folder / "states").glob("*"))


def test_a_checkpoint_whose_log_was_cut_starts_anew(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_CHECKPOINT_SECONDS", "0")
    walk = Toy() >> Walk(steps=20)
    whole = execute(walk, store=store_folder / "whole")
    execute(walk, store=store_folder / "cut", listener=StopAt(9))
    (log,) = (store_folder / "cut" / "states").glob("*-log")
    log.write_bytes(log.read_bytes()[:10])
    notes: list[str] = []

    class Notes(Listener):
        def note(self, text: str) -> None:
            notes.append(text)

    again = execute(walk, store=store_folder / "cut", listener=Notes())
    assert any("starts anew: its checkpoint's log is not whole" in note for note in notes)
    assert again.result.digest == whole.result.digest
    assert again.steps[-1].curves == whole.steps[-1].curves


# ------------------------------------------------------------------------------------------------------------------ stopping


def test_a_stopped_step_is_published_and_never_a_hit(store_folder: Path) -> None:
    walk = Toy() >> Walk(steps=20)
    store = Store(store_folder)
    stopped = execute(walk, store=store, listener=StopAt(8))
    assert [step.status for step in stopped.steps] == ["ran", "stopped"]
    (published,) = stopped.published
    assert (published.n, published.digest) == (8, stopped.result.digest)
    assert store.record(stopped.steps[-1].key) is None
    store.gc()
    assert store.load(published.digest).tensors  # its run names it
    assert [run["published"][0]["digest"] for run in store.runs()] == [published.digest]
    again = execute(walk, store=store)
    assert [step.status for step in again.steps] == ["hit", "ran"]
    assert again.result.digest == execute(walk, store=store_folder / "whole").result.digest != published.digest


def test_results_on_the_way_are_published_with_their_run(store_folder: Path) -> None:
    store = Store(store_folder)
    run = execute(Toy() >> Walk(steps=20), store=store, publish_every=8)
    assert [each.n for each in run.published] == [8, 16]
    assert len({each.digest for each in run.published} | {run.result.digest}) == 3
    with pytest.raises(SpecError, match="publish_every is 0"):
        execute(Toy(), store=store, publish_every=0)


def test_a_killed_run_has_named_what_it_published(store_folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        execute(Toy() >> Walk(steps=20), store=store_folder, publish_every=4, listener=Killed(10))
    store = Store(store_folder)
    store.gc()
    (run,) = store.runs()
    assert [each["n"] for each in run["published"]] == [4, 8]
    assert all(store.load(each["digest"]).tensors for each in run["published"])


def test_gc_keeps_a_log_with_its_checkpoint_and_drops_both(store_folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        execute(Toy() >> Walk(steps=20), store=store_folder, listener=Killed(10))
    files = sorted((store_folder / "states").iterdir())
    assert [path.name.endswith("-log") for path in files] == [False, True]
    os.utime(files[1], (0, 0))
    store = Store(store_folder)
    assert store.condition()["checkpoints"].startswith("1 of runs that were stopped")
    store.gc(checkpoint_days=1)
    assert all(path.exists() for path in files)
    os.utime(files[0], (0, 0))
    store.gc(checkpoint_days=1)
    assert not any(path.exists() for path in files)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_a_checkpoint_between_items(
    store_folder: Path, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    class Signal(Listener):
        def advanced(self, step: StepResult, done: int, total: int | None, metrics: Any) -> None:
            if done == 7:
                os.kill(os.getpid(), number)

    before = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    given = signal.signal(number, before)  # a shell's background jobs, for one, ignore SIGINT
    request.addfinalizer(lambda: signal.signal(number, given))
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as ended:
        execute(Toy() >> Walk(steps=20), store=store_folder, listener=Signal())
    assert number == signal.SIGINT or ended.value.code == 143
    assert signal.getsignal(number) is before
    notes: list[str] = []

    class Notes(Listener):
        def note(self, text: str) -> None:
            notes.append(text)

    execute(Toy() >> Walk(steps=20), store=store_folder, listener=Notes())
    assert any("goes on from item 7" in note for note in notes)


def test_sigterm_ends_a_command_that_takes_no_checkpoints_as_an_error_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    given = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, given))
    monkeypatch.setattr("mapsto.cli.adapt.tables.adapt_to_table", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    (tmp_path / "table.csv").write_text("x,y\n1,a\n2,b\n")
    done = mapsto("adapt", tmp_path / "table.csv", "--target", "y", "--out", tmp_path / "out", code=143)
    assert "the same command goes on from here" in done.err
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------------------ streams


def test_a_stream_that_ended_is_a_hit_and_its_model_the_same_in_any_blocks(store_folder: Path) -> None:
    learn = online.softmax(stream=streams.sea(events=3000, label_delay=100), every=500)
    runs = [execute(learn, store=store_folder / str(size), block_size=size) for size in (1, 64, 1000)]
    assert len({run.result.digest for run in runs}) == 1
    assert len({json.dumps(run.steps[0].curves) for run in runs}) == 1
    assert [row[0] for row in runs[0].steps[0].curves["rows"]] == list(range(500, 6001, 500))
    assert execute(learn, store=store_folder / "64").reused


def test_a_file_that_is_followed_goes_on_where_it_stood(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    lines = [f"{a},{'yes' if a > 0 else 'no'}\n" for a in np.random.default_rng(0).standard_normal(60)]
    file.write_text("a,b\n" + "".join(lines[:40]))
    learn = online.softmax(stream=streams.csv(file=str(file), target="b", follow=True), every=10)
    store = Store(tmp_path / "store")
    first = execute(learn, store=store, listener=StopAt(40))
    assert (first.value().events, first.steps[0].status) == (40, "stopped")
    with file.open("a") as more:
        more.write("".join(lines[40:]))
    second = execute(learn, store=store, listener=StopAt(60))
    assert second.value().events == 60
    assert list(store.records()) == []
    bounded = online.softmax(stream=streams.csv(file=str(file), target="b"), every=10)
    assert execute(bounded, store=store).value().arrays["weights"].tolist() == second.value().arrays["weights"].tolist()


KILL = """
import sys
from mapsto import online, streams
from mapsto.run.executor import execute
learn = online.softmax(stream=streams.sea(events={events}, label_delay=500), every=1000)
run = execute(learn, store=sys.argv[1], block_size=int(sys.argv[2]))
print(run.result.digest)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_hundred_thousand_events_killed_twenty_times(tmp_path: Path) -> None:
    script = tmp_path / "learn.py"
    script.write_text(KILL.format(events=50_000))  # 50,000 questions and as many labels that come 500 late
    environment = os.environ | {"MAPSTO_CHECKPOINT_SECONDS": "0.1", "OMP_NUM_THREADS": "1"}

    def started(folder: str, size: int) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), str(tmp_path / folder), str(size)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def written() -> int:
        """When a checkpoint was last written."""
        files = (tmp_path / "killed" / "states").glob("*")
        return max((path.stat().st_mtime_ns for path in files if not path.name.endswith("-log")), default=0)

    whole = started("whole", 256).communicate()[0].strip()
    generator, kills = random.Random(0), 0
    while kills < 20:
        before = written()
        run = started("killed", generator.choice((1, 3, 17, 64, 256, 1000)))
        while run.poll() is None and written() == before:
            time.sleep(0.01)
        time.sleep(generator.uniform(0.0, 0.3))
        if run.poll() is not None:
            break
        run.send_signal(signal.SIGKILL)
        run.communicate()
        kills += 1
    assert kills == 20
    assert started("killed", 64).communicate()[0].strip() == whole
    records = [next(Store(tmp_path / folder).records()) for folder in ("whole", "killed")]
    assert records[0].curves == records[1].curves

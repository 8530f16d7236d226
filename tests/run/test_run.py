from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from tests import toys
from tests.toys import Norm, Rows, Toward, Toy, Walk

from mapsto.errors import ComposeError, SpecError, StepError, StoreError
from mapsto.mapping import Fork, fork, observe, ref
from mapsto.recipe.document import Recipe
from mapsto.report.build import build
from mapsto.run.executor import Executor, execute
from mapsto.run.metrics_log import MetricsLog
from mapsto.run.result import Listener, path_of
from mapsto.store import Store

pytestmark = pytest.mark.usefixtures("trusted")


@pytest.fixture(autouse=True)
def _calls() -> None:
    toys.CALLS.clear()


def recipe() -> Recipe:
    big = (Toy() >> Walk(steps=10)).steps
    return Recipe(
        steps=big[0]
        >> big[1].labelled("teacher")
        >> observe(norm=Norm(data=Rows()))
        >> Walk(steps=5)
        >> Toward(teacher=ref("teacher")),
        targets=({"what": "norm", "metric": "teacher.norm.norm", "goal": ">= 0"},),
    )


def test_second_run_is_all_hits(store_folder: Path) -> None:
    first = execute(recipe(), store=store_folder)
    assert toys.CALLS == ["toy", "walk", "norm", "walk", "toward"]
    second = execute(recipe(), store=store_folder)
    assert len(toys.CALLS) == 5
    assert [s.digest for s in first.steps] == [s.digest for s in second.steps]
    assert all(step.hit for step in second.steps)
    assert first.report("teacher.norm").metrics["time"] == second.report("teacher.norm").metrics["time"]


def test_same_seed_same_digest_other_seed_other(tmp_path: Path) -> None:
    digests = [
        [s.digest for s in execute(recipe(), store=tmp_path / str(i), seed=seed).steps]
        for i, seed in enumerate((0, 0, 1))
    ]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_a_changed_field_reruns_what_depends_on_it(store_folder: Path) -> None:
    execute(Toy() >> Walk(steps=3) >> Walk(steps=2), store=store_folder)
    toys.CALLS.clear()
    execute(Toy() >> Walk(steps=4) >> Walk(steps=2), store=store_folder)
    assert toys.CALLS == ["walk", "walk"]


def test_a_source_as_a_field_is_run_once(store_folder: Path) -> None:
    big = Toy() >> Walk(steps=3)
    run = execute(big >> Toward(teacher=big), store=store_folder)
    assert toys.CALLS == ["toy", "walk", "toward"]
    teacher, student = run.store.load(run.steps[1].digest), run.value()
    assert torch.equal(teacher.tensors["weight"], student.tensors["weight"])


def test_failed_process_goes_on_from_its_checkpoint(
    store_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAPSTO_CHECKPOINT_SECONDS", "0")
    whole = execute(Toy() >> Walk(steps=20), store=tmp_path / "other")
    marks = tmp_path / "marks"

    class Stop(Listener):
        def advanced(self, step, done, total, metrics):  # type: ignore[no-untyped-def]
            if done == 12:
                raise KeyboardInterrupt

    chain = Toy() >> Walk(steps=20)
    with pytest.raises(KeyboardInterrupt):
        execute(chain, store=store_folder, listener=Stop())
    run = execute(chain, store=store_folder)
    assert run.steps[-1].digest == whole.steps[-1].digest
    assert len(run.steps[-1].curves["rows"]) == 20
    assert not marks.exists()


def test_what_a_stopped_run_took_counts_too(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_CHECKPOINT_SECONDS", "0")

    class Stop(Listener):
        def advanced(self, step: object, done: int, total: int | None, metrics: object) -> None:
            if done == 4:
                time.sleep(2)
            elif done == 7:
                raise KeyboardInterrupt

    chain = Toy() >> Walk(steps=10)
    with pytest.raises(KeyboardInterrupt):
        execute(chain, store=store_folder, listener=Stop())
    assert execute(chain, store=store_folder).steps[-1].seconds > 2


def test_step_error_names_the_step_and_keeps_its_cause(store_folder: Path) -> None:
    with pytest.raises(StepError, match=r"step 2, .*Walk.*ValueError: failed at 3") as caught:
        execute(Toy() >> Walk(steps=5, fail_at=3), store=store_folder)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.exit_code == 1


def test_fork_and_labels(store_folder: Path) -> None:
    run = execute(Toy() >> fork(a=Walk(steps=2), b=Walk(steps=3)), store=store_folder)
    parts = run.value().parts
    assert set(parts) == {"a", "b"}
    assert [step.label for step in run.steps] == [None, "a", "b"]
    assert isinstance(fork(a=Walk()), Fork)


def test_plan_runs_nothing(store_folder: Path) -> None:
    plan = execute(recipe(), store=store_folder, plan=True)
    assert toys.CALLS == []
    assert [step.status for step in plan.steps] == ["planned"] * 5
    execute(recipe(), store=store_folder)
    assert [step.status for step in execute(recipe(), store=store_folder, plan=True).steps] == ["hit"] * 5


def test_force_runs_one_step_again(store_folder: Path) -> None:
    execute(recipe(), store=store_folder)
    toys.CALLS.clear()
    execute(recipe(), store=store_folder, force=["teacher"])
    assert toys.CALLS == ["walk"]
    with pytest.raises(SpecError, match="did you mean 'teacher'"):
        execute(recipe(), store=store_folder, force=["taecher"])


def test_flipped_byte_is_found_and_named(store_folder: Path) -> None:
    run = execute(recipe(), store=store_folder)
    blob = max(Path(store_folder, "blobs").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(bytes(data))
    findings = Store(store_folder).verify()
    assert [Path(f.path) for f in findings] == [blob]
    assert findings[0].used_by

    def load_all() -> None:
        for step in run.steps:
            Store(store_folder).load(step.digest)

    with pytest.raises(StoreError, match=blob.name):
        load_all()


def test_wrong_chain_is_refused_when_written() -> None:
    with pytest.raises(ComposeError, match="Report"):
        Toy() >> Norm() >> Walk()  # type: ignore[operator]


def test_report_has_every_metric_and_judges_targets(store_folder: Path) -> None:
    report = build(execute(recipe(), store=store_folder))
    assert report["targets"][0]["met"] is True
    observed = next(step for step in report["steps"] if step["kind"] == "observe")
    assert set(observed["report"]["metrics"]) == {"norm", "time"}
    assert report["steps"][1]["epochs"]["columns"] == ["epoch"]
    assert all(step["key"] and step["digest"] for step in report["steps"])


def test_unknown_label(store_folder: Path) -> None:
    with pytest.raises(SpecError, match="'techer'"):
        Executor(Store(store_folder)).label("techer")


def test_a_child_of_a_killed_holder_takes_the_lease(store_folder: Path) -> None:
    store = Store(store_folder)
    lease = store.path("leases/k.json")
    lease.parent.mkdir(parents=True)
    import json
    import socket

    lease.write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1, "token": "x", "beat": 0}))
    with store.lease("k") as holder:
        assert holder
    assert not lease.exists()


def test_remote_store_round_trip(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    execute(recipe(), store=url)
    toys.CALLS.clear()
    import shutil

    shutil.rmtree(Store(url).root)
    run = execute(recipe(), store=url)
    assert toys.CALLS == []
    assert run.value().tensors["weight"].shape == (2, 3)


@pytest.mark.parametrize("value", [[1.5, float("inf")], {"a": b"x", 3: None}, torch.arange(6).reshape(2, 3), "text"])
def test_state_round_trip(store_folder: Path, value: object) -> None:
    store = Store(store_folder)
    store.save_state("k", {"step": 3, "value": value})
    loaded = store.load_state("k")
    assert loaded is not None
    assert loaded["step"] == 3
    if isinstance(value, torch.Tensor):
        assert torch.equal(loaded["value"], value)
    else:
        assert loaded["value"] == value


def test_damaged_state_starts_anew(store_folder: Path) -> None:
    store = Store(store_folder)
    store.save_state("k", {"step": 3})
    path = store.path("states/k")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert store.load_state("k") is None


def test_gc_spares_what_is_referred_to(store_folder: Path) -> None:
    run = execute(recipe(), store=store_folder)
    store = Store(store_folder)
    store.forget(run.steps[-1].key)
    freed = store.gc()
    assert freed["files"] > 0
    assert store.verify() == []
    assert store.load(run.steps[1].digest).tensors


def test_later_format_is_refused(store_folder: Path) -> None:
    Store(store_folder)
    (store_folder / "FORMAT").write_text('{"format": 99}')
    with pytest.raises(StoreError, match="later mapsto"):
        Store(store_folder)


def test_stages_without_labels_have_names_of_their_own(store_folder: Path) -> None:
    chain = (
        Toy() >> Walk(steps=3) >> observe(size=Norm(data=Rows())) >> Walk(steps=4) >> observe(size=Norm(data=Rows()))
    )
    run = execute(chain, store=store_folder)
    assert [path_of(run.steps, step) for step in run.steps if step.of is not None] == [
        f"{Walk(steps=3).name}.size",
        f"{Walk(steps=3).name}#2.size",
    ]
    assert len(build(run)["summary"]["rows"]) in (0, 2)
    again = execute(chain, store=store_folder, force=[f"{Walk(steps=3).name}#2"])
    assert [step.hit for step in again.steps] == [True, True, True, False, True]


def test_the_log_holds_every_row_also_those_that_bring_a_new_metric(tmp_path: Path) -> None:
    rows: list[tuple[int, dict[str, float]]] = [(1, {"loss": 3.0}), (2, {"loss": 2.0, "val": 0.5}), (3, {"loss": 1.0})]
    with MetricsLog(tmp_path, rows[:1]) as log:
        for step, metrics in rows[1:]:
            log(step, metrics)
    written = (tmp_path / "metrics.csv").read_text(encoding="utf-8").split()
    assert written == ["step,loss,val", "1,3.0,", "2,2.0,0.5", "3,1.0,"]

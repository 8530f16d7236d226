"""What is kept of somebody goes, out of the files too, and what learnt from it is marked or made anew."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from filelock import FileLock

from mapsto.data.privacy.pseudonyms import Pseudonyms
from mapsto.errors import SpecError, StoreError
from mapsto.service import erasure as module
from mapsto.service.erasure import As, Erasure, finish
from mapsto.service.kept_answers import KeptAnswers, replica_lock
from mapsto.service.keys import made
from mapsto.service.learner import FeedbackLearner, held_back
from mapsto.service.ray_replica import common_settings
from mapsto.service.retention import Retention, expire
from mapsto.service.served_model import ServedModel
from mapsto.service.state import FeedbackRow, State, VersionRow, tables
from tests.cli.packages import linear_package
from tests.command import mapsto
from tests.service.served import serving

CLASSES = ("low", "high")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    folder = linear_package(tmp_path_factory.mktemp("wrong") / "package", [[1.0, 0, 0], [-1, 0, 0]], CLASSES)
    return ServedModel("m", folder)


def rows(model: ServedModel, tenant: str, count: int, start: int = 0, prefix: str = "k/") -> list[FeedbackRow]:
    found: list[FeedbackRow] = []
    for number in range(start, start + count):
        features = np.random.default_rng(number).normal(size=3).astype(np.float32)
        found.append(
            FeedbackRow(
                model="m",
                event=f"{prefix}{number}",
                tenant=tenant,
                version="1",
                label=CLASSES[int(features[0] > 0)],
                answer="",
                features=features.tobytes(),
                package=model.digest,
            )
        )
    return found


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def stepped(learner: FeedbackLearner, state: State, versions: int) -> None:
    """A step that publishes: on a machine that is busy the lease may end before the first does."""
    for _ in range(5):
        learner.step()
        if len(state.versions("m")) >= versions:
            return


def taught(model: ServedModel, folder: Path) -> tuple[State, FeedbackLearner]:
    """A state with labels of 'others' and then of 'ann-the-tenant', and a version that learnt from all."""
    state = State(folder / "state.sqlite")
    state.append(rows(model, "others", 120))
    learner = FeedbackLearner(model, state, every=0)
    stepped(learner, state, 1)
    state.append(rows(model, "ann-the-tenant", 40, start=1000))
    stepped(learner, state, 2)
    assert len(state.versions("m")) == 2
    return state, learner


def test_labels_go_and_versions_that_learnt_from_them_are_marked(model: ServedModel, tmp_path: Path) -> None:
    state, learner = taught(model, tmp_path)
    made(state, name="ann-key", tenant="ann-the-tenant")
    first, second = (row.version for row in state.versions("m"))
    erasure = Erasure(state, tmp_path / "state-answers")
    seen = erasure.look("ann-the-tenant")
    assert (seen.labels, seen.keys, seen.learnt) == (40, 1, [f"m/{second}"])
    assert len(state.feedback("m", most=1000)) == 160, "looking changes nothing"
    done = erasure.forget("ann-the-tenant")
    assert done.finished
    assert {row.tenant for row in state.feedback("m", most=1000)} == {"others"}
    assert state.all_keys() == []
    assert state.marked("m") == {second}
    assert b"ann-the-tenant" not in contents(tmp_path), "neither in free pages nor in what was written ahead"
    gone = rows(model, "ann-the-tenant", 40, start=1000)
    content = contents(tmp_path)
    assert not any(row.features in content for row in gone), "held-back ones are gone from the learner's state too"
    assert erasure.look("ann-the-tenant").before == done.tombstone
    again = erasure.forget("ann-the-tenant")
    assert not again.anything
    assert again.before == done.tombstone
    # new labels get positions of their own, and what learns from them on what was marked is marked
    (position,) = state.append(rows(model, "others", 1, start=5000))
    assert position > 160
    learner.step()
    third = state.versions("m")[-1].version
    assert third not in (first, second)
    assert state.marked("m") == {second, third}
    assert state.deletions()["forgotten_labels"] == 40


@pytest.mark.parametrize(("subject", "kind"), [("ann-the-tenant", "tenant"), ("phone", "key")])
def test_notes_do_not_say_whose_labels_spoke_for_a_version(
    model: ServedModel, tmp_path: Path, subject: str, kind: As
) -> None:
    state, _ = taught(model, tmp_path)
    note = "87 % of the labels that speak for it are of ann-the-tenant/phone"
    other = "only the labels of bob/phone-2 speak for it, those of all others against it"
    first, second = (row.version for row in state.versions("m"))
    with state.writing() as connection:
        for version, said in ((first, other), (second, note)):
            where = tables.tables["versions"].c.version == version
            connection.execute(sa.update(tables.tables["versions"]).where(where).values(note=said))
    made(state, name="phone", tenant="ann-the-tenant")
    Erasure(state, None, as_=(kind,)).forget(subject)
    notes = {row.version: row.note for row in state.versions("m")}
    assert notes[first] == other
    assert notes[second] == "87 % of the labels that speak for it are of somebody who was forgotten"


def test_with_retrain_nothing_that_learnt_from_it_answers(model: ServedModel, tmp_path: Path) -> None:
    state, learner = taught(model, tmp_path)
    _, second = (row.version for row in state.versions("m"))
    state.promote("m", second, read=state.active("m"), why="promoted by ann-key")
    erasure = Erasure(state, None)
    erasure.forget("ann-the-tenant")
    assert state.active("m") == second, "marked, and goes on"
    done = erasure.forget("ann-the-tenant", retrain=True)
    assert done.retrained == ["m"]
    assert state.active("m") == "1"
    assert second not in {row.version for row in state.versions("m")}
    learner.step()
    assert learner.position == 120, "it learns again from the labels that are left"
    assert state.marked("m") == set()
    fresh = FeedbackLearner(model, State(tmp_path / "other.sqlite"), every=0)
    fresh._state.append(rows(model, "others", 120))
    fresh.step()

    def head(held: State) -> bytes:
        row = held.version("m", held.versions("m")[-1].version)
        assert row is not None
        return row.content

    assert head(state) == head(fresh._state), "as if those labels had never come"


def test_a_learner_that_read_what_was_erased_publishes_none_of_it(model: ServedModel, tmp_path: Path) -> None:
    state, learner = taught(model, tmp_path)
    state.append(rows(model, "bob", 40, start=2000))
    learner._every = 1e9
    learner.step()  # learnt in memory alone
    Erasure(state, None).forget("bob")
    before = len(state.versions("m"))
    learner.publish()
    assert len(state.versions("m")) == before, "refused, since it is of before"
    learner._every = 0
    state.append(rows(model, "others", 10, start=7000))
    learner.step()
    assert state.marked("m") == set()


def test_events_are_found_by_their_name_and_by_their_pseudonym(model: ServedModel, tmp_path: Path) -> None:
    state, names = State(tmp_path / "state.sqlite"), Pseudonyms(b"k" * 32)
    hidden = f"<EMAIL_ADDRESS:{names.of('EMAIL_ADDRESS', 'ann@example.org')}>"
    own = rows(model, "t", 6)
    for number, event in enumerate((f"k/{hidden}", f"k/{hidden}/2", "k/17", "k/17/photo", "k/170", "0a/0")):
        own[number] = FeedbackRow(
            **{name: getattr(own[number], name) for name in own[0].__struct_fields__} | {"event": event}
        )
    state.append(own)
    erasure = Erasure(state, None, pseudonyms=names)
    assert erasure.look("ann@example.org").labels == 2
    assert erasure.look("17").labels == 2
    assert erasure.look("0a").labels == 1
    assert erasure.look("%").labels == 0
    assert erasure.look("low").labels == 0, "a label is meant only where that is said"
    erasure.forget("ann@example.org")
    assert [row.event for row in state.feedback("m")] == ["k/17", "k/17/photo", "k/170", "0a/0"]


def test_a_label_that_is_somebody_goes_with_the_versions_that_name_it(model: ServedModel, tmp_path: Path) -> None:
    state, _ = taught(model, tmp_path)
    found = Erasure(state, None, as_=["label"]).forget("high", retrain=True)
    assert found.labels > 0
    assert len(found.learnt) == 2
    assert state.versions("m") == []
    assert b"high" not in (tmp_path / "state.sqlite").read_bytes()


def test_kept_answers_of_a_tenant_are_overwritten(model: ServedModel, tmp_path: Path) -> None:
    state, folder = State(tmp_path / "state.sqlite"), tmp_path / "state-answers"
    kept = KeptAnswers(folder / "m" / "p", worker=0, width=3, most=50, seconds=60)
    own = np.array([[1.25, 2.5, 3.75]], np.float32)
    name = kept.keep(own, version="1", tenant="ann", answers=[0])
    other = kept.keep(own + 1, version="1", tenant="bob", answers=[0])
    last = kept.keep(own, version="1", tenant="ann", answers=[0])
    found = Erasure(state, folder).forget("ann")
    assert found.answers == 2
    assert own.tobytes() not in contents(folder)
    assert kept.find(other, [0], tenant="bob")[0].features.tolist() == (own + 1)[0].tolist()
    for gone in (name, last):
        with pytest.raises(Exception, match="no request of yours"):
            kept.find(gone, [0], tenant="ann")
    again = KeptAnswers(folder / "m" / "p", worker=0, width=3, most=50, seconds=60)
    assert again.first == 4, "rows are counted on"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["count_answers", "overwrite_of_ended_service", "purge"])
def test_killed_in_the_middle_the_same_command_goes_on(
    model: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    state, folder = State(tmp_path / "state.sqlite"), tmp_path / "state-answers"
    state.append(rows(model, "ann", 5))
    kept = KeptAnswers(folder / "m" / "p", worker=0, width=3, most=50, seconds=60)
    kept.keep(np.ones((1, 3), np.float32), version="1", tenant="ann", answers=[0])
    code = f"""
import os, signal
from pathlib import Path
from mapsto.service import erasure
from mapsto.service.state import State
seen = []
def killed(*a, **k):
    seen.append(1)
    if len(seen) > {1 if where == "count_answers" else 0}:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1
target = State if {where!r} == "purge" else erasure
setattr(target, {where!r}, killed)
erasure.Erasure(State({str(tmp_path / "state.sqlite")!r}), Path({str(folder)!r})).forget("ann")
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert state.feedback("m") == []
    assert state.to_erase(), "begun and not done"
    Erasure(state, folder).forget("ann")
    assert state.to_erase() == []
    assert b"ann" not in contents(tmp_path)
    assert hashlib.sha256(b"ann").digest() not in contents(tmp_path)


def test_an_erasure_is_unfinished_while_a_service_has_not_done_its_part(
    model: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, folder = State(tmp_path / "state.sqlite"), tmp_path / "state-answers"
    kept = KeptAnswers(folder / "m" / "p", worker=0, width=3, most=50, seconds=60)
    kept.keep(np.ones((1, 3), np.float32), version="1", tenant="ann", answers=[0])
    monkeypatch.setattr(module, "overwrite_of_ended_service", lambda *given: None)
    with pytest.raises(StoreError, match="run the same command again"):
        Erasure(state, folder).forget("ann", wait=0.2)
    assert len(state.to_erase()) == 1
    kept.erase(hashlib.sha256(b"ann").digest(), until=time.time())
    assert finish(state, folder)


def test_answers_of_replicas_are_overwritten_by_who_lives_and_those_of_the_others_by_a_writer(
    model: ServedModel, tmp_path: Path
) -> None:
    state, folder = State(tmp_path / "state.sqlite"), tmp_path / "state-answers"
    kept = [KeptAnswers(folder / "m" / "p", worker=number, width=3, most=50, seconds=60) for number in (0, 1)]
    for each in kept:
        each.keep(np.ones((1, 3), np.float32), version="1", tenant="ann", answers=[0])
    settings = dict.fromkeys(("durability", "models", "trust", "privacy", "tracing"))
    told = common_settings({**settings, "state": state.url, "folder": str(folder)}, tmp_path)
    assert (told["answers"], told["replicas"]) == (str(folder), True)
    looks = Retention(state, Path(told["answers"]), None, replicas=told["replicas"])
    with FileLock(folder / "service.lock"), FileLock(replica_lock(folder, 1)):
        with pytest.raises(StoreError, match="run the same command again"):
            Erasure(state, folder).forget("ann", wait=0.2)
        looks.look()
        assert kept[0].latest(9)["tenant"].tobytes().count(hashlib.sha256(b"ann").digest()) == 1
        assert not kept[0].latest(9, own=True)["tenant"].tobytes().strip(b"\0"), "of a replica that has ended"
        assert len(state.to_erase()) == 1, "that of the one that lives is not overwritten"
        kept[1].erase(hashlib.sha256(b"ann").digest(), until=time.time())
        looks.look()
    assert state.to_erase() == []
    assert hashlib.sha256(b"ann").digest() not in contents(tmp_path)


def test_nobody_is_forgotten_by_mistake(tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite"
    State(state).close()
    assert "nothing is kept of 'ann'" in mapsto("data", "forget", "ann", "--state", state, code=2).err
    assert "not empty" in mapsto("data", "forget", " ", "--state", state, code=2).err
    assert "in UTF-8" in mapsto("data", "forget", "a\udcff", "--state", state, code=2).err
    assert "has 100000 characters" in mapsto("data", "forget", "a" * 100_000, "--state", state, code=2).err
    assert "no state" in mapsto("data", "forget", "ann", "--state", tmp_path / "none", code=2).err
    none = json.loads(mapsto("data", "forget", "ann", "--state", state, "--dry-run", "--json", code=0).out)
    assert none["dry_run"]
    assert none["labels"] == 0
    with pytest.raises(SpecError, match="nothing is kept"):
        Erasure(State(state), None).forget("x")


def test_whoever_is_written_with_letters_that_are_not_seen_is_forgotten_too(tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite")
    names = ["a\nb", "a\u00a0b", "a\u202eb", "\x1b[31m"]
    given = {"model": "m", "tenant": "t", "version": "1", "label": "x", "answer": "", "features": b""}
    state.append([FeedbackRow(event=f"k/{name}", **given) for name in names])
    for left, name in enumerate(reversed(names)):
        assert Erasure(state, None).forget(name).labels == 1
        assert len([row for row in state.feedback("m") if row.model]) == len(names) - left - 1


def test_the_command_says_what_it_does(model: ServedModel, tmp_path: Path) -> None:
    state, _ = taught(model, tmp_path)
    second = state.versions("m")[-1].version
    state.promote("m", second, read=state.active("m"), why="")
    place = tmp_path / "state.sqlite"
    assert (
        "there are 40 labels" in mapsto("data", "forget", "ann-the-tenant", "--state", place, "--dry-run", code=0).out
    )
    done = mapsto("data", "forget", "ann-the-tenant", "--state", place, code=0)
    assert "erased 40 labels" in done.out
    assert f"m/{second} learnt from it, and is marked" in done.out
    assert "--retrain takes that away" in done.err
    assert "erased before (t-" in mapsto("data", "forget", "ann-the-tenant", "--state", place, code=0).out
    listed = json.loads(mapsto("versions", "--state", place, "--json", code=0).out)
    assert [row["marked"] for row in listed if row["version"] == second] == [True]
    assert "marked learnt from what was erased" in mapsto("versions", "--state", place, code=0).err
    retrained = mapsto("data", "forget", "ann-the-tenant", "--state", place, "--retrain", code=0)
    assert "the learner of 'm' begins anew" in retrained.out


def test_what_is_too_old_is_deleted_out_of_the_file(model: ServedModel, tmp_path: Path) -> None:
    state, _ = taught(model, tmp_path)
    for name in ("a-1", "a-2"):
        state.add_version(
            VersionRow(model="m", version=name, kind="adapted", parent="1", package="p", content=b"of " + name.encode())
        )
    state.promote("m", "a-2", read=state.active("m"), why="")
    assert not any(expire(state, time.time() - 3600).values())
    found = expire(state, time.time() + 1)
    assert found["expired_labels"] == 160
    assert found["expired_held_labels"] > 10, "whether or not a learner runs"
    assert state.feedback("m") == []
    assert "a-2" in {row.version for row in state.versions("m")}, "it answers"
    content = contents(tmp_path)
    assert b"ann-the-tenant" not in content
    assert b"of a-1" not in content
    assert state.append(rows(model, "new", 1, start=9000)) == [161]
    assert state.deletions()["expired_labels"] == 160


def test_a_learner_lets_old_held_back_labels_go(model: ServedModel, tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite")
    state.append(rows(model, "t", 60))
    learner = FeedbackLearner(model, state, every=0, keep_seconds=3600)
    stepped(learner, state, 1)

    def held() -> int:
        found = state.learner("m")
        assert found is not None
        return sum(row.features in found[3] for row in rows(model, "t", 60) if held_back(row))

    assert held() > 5
    learner._keep_seconds = -1.0
    for _ in range(5):
        learner.step()
    assert held() == 0


@pytest.mark.slow
def test_a_service_that_runs_forgets(tmp_path: Path) -> None:
    package = linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], CLASSES)
    with serving(package, "--workers", "2", "--every", "0.2", "--admin", folder=tmp_path) as served:
        _, key = made(State(tmp_path / "state.sqlite"), name="ann", tenant="ann-tenant")
        end, known = time.monotonic() + 30, 0
        while known < 20 and time.monotonic() < end:  # each worker looks at the keys for itself
            known = known + 1 if served.call("/v2", key=key)[0] == 200 else 0
            time.sleep(0.1)
        rng = np.random.default_rng(0)
        for _ in range(40):
            row = rng.normal(size=3).astype(np.float32).tolist()
            one = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [row]}
            status, found = served.call("/v2/models/signs/infer", {"inputs": [one]}, key=key)
            assert status == 200, found
            label = {"request_id": found["parameters"]["request_id"], "label": CLASSES[int(row[0] > 0)]}
            assert served.call("/v2/models/signs/feedback", label, key=key)[0] == 200
        state = State(tmp_path / "state.sqlite")
        end = time.monotonic() + 60
        while not state.versions("signs") and time.monotonic() < end:
            time.sleep(0.2)
        assert state.versions("signs")
        done = json.loads(
            mapsto("data", "forget", "ann-tenant", "--state", tmp_path / "state.sqlite", "--json", code=0).out
        )
        assert done["labels"] == 40
        assert done["answers"] == 40
        assert done["finished"]
        assert b"ann-tenant" not in contents(tmp_path)
        assert hashlib.sha256(b"ann-tenant").digest() not in contents(tmp_path)
        end = time.monotonic() + 30
        while served.call("/v2", key=key)[0] != 401 and time.monotonic() < end:
            time.sleep(0.2)
        assert served.call("/v2", key=key)[0] == 401, "its key is gone"
        metrics = served.raw("/metrics")[1]
        assert 'mapsto_deletions_total{kind="forgotten_labels"} 40.0' in metrics
        assert "mapsto_erasures_unfinished 0.0" in metrics
        assert 'mapsto_version_marked{model="signs"}' in metrics


@pytest.mark.slow
def test_a_service_that_runs_deletes_what_is_too_old(tmp_path: Path) -> None:
    package = linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], CLASSES)
    (tmp_path / "privacy.yaml").write_text("entities: {}\nkeep_days: 0.00005\n")  # 4.3 s
    with serving(package, "--privacy", tmp_path / "privacy.yaml", folder=tmp_path) as served:
        request = served.infer("signs", [[1.0, 0, 0]])["parameters"]["request_id"]
        assert served.call("/v2/models/signs/feedback", {"request_id": request, "label": "a word of Ann"})[0] == 200
        state = State(tmp_path / "state.sqlite")
        assert len(state.feedback("signs")) == 1
        end = time.monotonic() + 60
        while state.feedback("signs") and time.monotonic() < end:
            time.sleep(0.2)
        assert state.feedback("signs") == []
        time.sleep(2)
        assert b"a word of Ann" not in b"".join(path.read_bytes() for path in tmp_path.glob("state.sqlite*"))
    assert os.path.exists(tmp_path / "state.sqlite")

"""What a service was told, read back as a stream: the same events, and the same model as the service's own learner made."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from mapsto import online, streams
from mapsto.context import Context
from mapsto.data.io.feedback_log import LoggedLabel, written
from mapsto.data.streams import _sources
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Block, Model
from mapsto.service.learner import FeedbackLearner, held_back
from mapsto.service.served_model import ServedModel
from mapsto.service.state import FeedbackRow, State
from mapsto.store.state import decode_state
from mapsto.testing.streams import check_stream, model_digest
from tests.cli.packages import linear_package
from tests.command import mapsto
from tests.service.databases import postgresql
from tests.service.served import serving

CLASSES = ("low", "high")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    folder = linear_package(tmp_path_factory.mktemp("served") / "package", [[1.0, 0, 0], [-1, 0, 0]], CLASSES)
    return ServedModel("signs", folder)


def rows(model: ServedModel, count: int, start: int = 0) -> list[FeedbackRow]:
    draws = [np.random.default_rng(number).normal(size=3).astype(np.float32) for number in range(start, start + count)]
    return [
        FeedbackRow(
            model="signs",
            event=str(number),
            tenant=f"t{number % 3}",
            version="1",
            label=CLASSES[int(features[0] > 0)],
            answer="",
            features=features.tobytes(),
            package=model.digest,
        )
        for number, features in enumerate(draws, start)
    ]


def ids_of(blocks: list[Block]) -> list[str]:
    return [str(name) for block in blocks for name in block.ids]


def test_what_was_stored_comes_back_in_its_order(model: ServedModel, tmp_path: Path) -> None:
    state = State(tmp_path / "service" / "state.sqlite")
    other = replace(rows(model, 1)[0], model="other")
    stored = rows(model, 30)
    state.append([other, *stored[:20]])
    state.append([other, *stored[20:]])  # the first is stored already
    stream = streams.feedback(state=str(tmp_path), model="signs")  # while the service has it open
    (block,) = stream.open()
    assert block.ids.tolist() == [row.event for row in stored]
    assert block.y.tolist() == [row.label for row in stored]
    assert block.x["embedding"].astype(np.float32).tobytes() == b"".join(row.features for row in stored)
    assert block.next == 31
    assert abs(block.times - time.time()).max() < 60
    check_stream(stream)
    without = streams.feedback(state=str(tmp_path), model="signs", held_back=False)
    assert ids_of(list(without.open(size=7))) == [row.event for row in stored if not held_back(row)]
    state.close()
    assert streams.feedback(state=str(tmp_path), model="signs").fingerprint() == stream.fingerprint()


def test_a_learner_run_again_comes_to_the_model_of_the_service(model: ServedModel, tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite")
    state.append(rows(model, 150))
    learner = FeedbackLearner(model, state, every=0)
    learner.step()
    state.append(rows(model, 70, 150))
    learner.step()
    stream = streams.feedback(state=str(tmp_path / "state.sqlite"), model="signs", held_back=False)
    again = Context(seed=0).apply(online.ridge(stream=stream), None)
    assert model_digest(again) == model_digest(learner._live.result())
    assert again.events == sum(not held_back(row) for row in rows(model, 220))


def test_a_stream_that_follows_gives_what_the_service_stores_meanwhile(
    model: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sources, "_IDLE_SECONDS", 0.3)
    state = State(tmp_path / "state.sqlite")
    state.set_package("signs", model.digest)
    stream = streams.feedback(state=str(tmp_path), model="signs", follow=True)
    blocks = stream.open()
    assert len(next(blocks)) == 0, "nothing was stored yet"
    threading.Timer(0.2, lambda: state.append(rows(model, 5))).start()
    first = next(block for block in blocks if len(block))
    assert first.ids.tolist() == ["0", "1", "2", "3", "4"]
    assert (len(next(blocks)), first.next) == (0, 5)
    state.append(rows(model, 2, 5))
    assert next(stream.open(first.next)).ids.tolist() == ["5", "6"]
    assert not stream.bounded
    assert (
        stream.identity()
        == streams.feedback(state=str(tmp_path / "state.sqlite"), model="signs", follow=True).identity()
    )


def test_labels_for_answers_of_another_package_are_set_aside(model: ServedModel, tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite")
    before = [replace(row, package="before", features=row.features[:8]) for row in rows(model, 3)]
    state.append([*before, *rows(model, 3, 3)])
    state.set_package("signs", model.digest)
    (block,) = streams.feedback(state=str(tmp_path), model="signs").open()
    assert dict(block.broken) == dict.fromkeys(range(3), "features of another package")
    (block,) = streams.feedback(state=str(tmp_path), model="signs", package="before").open()
    assert [*block.broken] == [3, 4, 5]
    assert block.x["embedding"].shape == (6, 2)


def test_what_cannot_be_read_is_said(model: ServedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no state of a service.*state\.sqlite"):
        streams.feedback(state=str(tmp_path), model="signs").fingerprint()
    state = State(tmp_path / "state.sqlite")
    state.append(rows(model, 3))
    with pytest.raises(DataError, match=r"no label for 'sings'.*did you mean 'signs'"):
        streams.feedback(state=str(tmp_path), model="sings").fingerprint()
    with pytest.raises(DataError, match="is no row of feedback"):
        next(streams.feedback(state=str(tmp_path), model="signs").open({"doors": 1}))
    (tmp_path / "notes.sqlite").write_text("these are notes, and no database at all\n" * 100)
    with pytest.raises(DataError, match=r"cannot be read as the state of a service.*not a database"):
        streams.feedback(state=str(tmp_path / "notes.sqlite"), model="signs").fingerprint()
    with pytest.raises(SpecError, match="PGPASSWORD") as refused:
        streams.feedback(state="postgresql://me:hunter2@localhost/x", model="signs").fingerprint()
    assert "hunter2" not in str(refused.value)


def test_the_command_line_learns_from_it_and_answers(
    model: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    State(tmp_path / "state.sqlite").append(rows(model, 200))
    words = ("stream", "feedback:signs@state.sqlite", "--store", "store")
    said = json.loads(mapsto(*words, "--learner", "online.ridge", "--json", code=0).out.splitlines()[-1])
    assert said["summary"]["events"] == 200
    (run,) = (tmp_path / "runs").iterdir()
    assert "200 events answered" in mapsto(*words, "--from", run, code=0).err
    assert "leave out --features" in mapsto(*words, "--features", "a", code=2).err
    assert "names no model" in mapsto("stream", "feedback:signs", code=2).err


@pytest.mark.slow
def test_a_server_s_log_is_read_as_a_file_s(model: ServedModel, tmp_path: Path) -> None:
    with postgresql() as (url, _):
        state = State(url)
        state.append(rows(model, 50))
        stream = streams.feedback(state=url, model="signs")
        check_stream(stream)
        assert ids_of(list(stream.open())) == [str(number) for number in range(50)]
        state.close()


@pytest.mark.slow
def test_a_served_model_s_feedback_over_http_comes_back_and_teaches_the_same(
    model: ServedModel, tmp_path: Path
) -> None:
    package = linear_package(tmp_path / "signs" / "package", [[1.0, 0, 0], [-1, 0, 0]], CLASSES)
    draw = np.random.default_rng(1)
    inputs = draw.normal(size=(120, 3)).astype(np.float32)
    labels = [CLASSES[int(row[0] > 0)] for row in inputs]
    folder = tmp_path / "state"
    folder.mkdir()
    with serving(package.parent, folder=folder) as served:
        name = "signs"
        stream = streams.feedback(state=str(folder), model=name, follow=True)
        for start in range(0, 120, 10):
            answer = served.infer(name, inputs[start : start + 10].tolist())
            told = [
                {"request_id": answer["parameters"]["request_id"], "row": row, "label": labels[start + row]}
                for row in range(10)
            ]
            status, found = served.call(f"/v2/models/{name}/feedback", {"feedback": told})
            assert status == 200, found
        blocks: list[Any] = []
        for block in stream.open():  # while it serves
            blocks.append(block)
            if sum(map(len, blocks)) == 120:
                break
        assert [label for block in blocks for label in block.y] == labels
        state = State(folder / "state.sqlite")
        end = time.monotonic() + 60
        while (stored := state.learner(name)) is None or stored[0] < 120:
            assert time.monotonic() < end, "the service's learner did not come to the last label"
            time.sleep(0.2)
        assert served.end() == 0
    kept: Any = decode_state(stored[3])
    whole = streams.feedback(state=str(folder), model=name, held_back=False)
    made = online.ridge(stream=whole)
    theirs: Model = made.open(None, kept["live"], Context()).result()
    assert model_digest(Context(seed=0).apply(made, None)) == model_digest(theirs)


def test_damaged_features_are_set_aside_and_what_is_no_row_or_package_is_refused(tmp_path: Path) -> None:
    features = np.ones(3, np.float32).tobytes()
    labels = [
        LoggedLabel(place + 1, f"e{place}", "t", 1e9 + place, "high", each, "now")
        for place, each in enumerate((features[:-1], features, features + features))
    ]
    file = tmp_path / "state.sqlite"
    written(file, "signs", labels)
    for size in (1, 3):
        blocks = list(streams.feedback(state=str(file), model="signs").open(size=size))
        assert [len(block.broken) for block in blocks] == ([1, 0, 1] if size == 1 else [2])
    with pytest.raises(DataError, match="beyond any row"):
        next(streams.feedback(state=str(file), model="signs").open(10**30))
    with pytest.raises(DataError, match=r"package 'nope'.*now"):
        next(streams.feedback(state=str(file), model="signs", package="nope").open())

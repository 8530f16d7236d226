"""``mapsto stream`` from a file: what it prints, writes and refuses, and that each event is answered once however often it is stopped."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.command import mapsto

from mapsto.cli.stream import display
from mapsto.cli.stream.display import StreamDisplay
from mapsto.cli.stream.predictions import PredictionFile
from mapsto.cli.stream.sources import stream_of, task_of
from mapsto.errors import SpecError
from mapsto.kinds import Block
from mapsto.report.streams import beaten_by
from mapsto.run import driver


def table(path: Path, count: int = 600, *, drift: bool = True) -> Path:
    """x decides, and from the middle on the other way round."""
    draw = np.random.default_rng(0)
    rows = []
    for n in range(count):
        x = draw.normal()
        turned = drift and n >= count // 2
        rows.append(f"n{n},{x:.3f},{'red' if n % 3 else 'blue'},{'yes' if (x > 0) != turned else 'no'}")
    path.write_text("\n".join(["name,x,colour,open", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "store"))


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def learn(*words: object, code: int = 0) -> Any:
    return mapsto("stream", *words, "--learner", "online.softmax", code=code)


# ------------------------------------------------------------------------------------------------------------ learning


def test_a_stream_is_learnt_recorded_and_reported(tmp_path: Path) -> None:
    table(tmp_path / "doors.csv")
    done = learn("doors.csv", "--target", "open", "--id", "name", "--predictions", "answers.csv")
    assert "600 labels, each answered before it was seen" in done.out
    assert "no change" in done.out
    assert "majority" in done.out
    answers = lines_of(tmp_path / "answers.csv")
    assert [row["event"] for row in answers] == [str(n) for n in range(1, 601)]
    assert answers[7]["id"] == "n7"
    folder = tmp_path / "runs" / "doors"
    report = json.loads((folder / "report.json").read_text())
    account = report["steps"][0]["account"]
    right = sum(row["answer"] == row["label"] for row in answers)
    assert account["figures"]["accuracy"] == pytest.approx(100 * right / 600)
    assert (folder / "report.html").is_file()
    assert "online.softmax" in (folder / "recipe.yaml").read_text()
    again = learn("doors.csv", "--target", "open", "--id", "name", "--predictions", "answers.csv")
    assert "nothing came since the last run" in again.err
    assert lines_of(tmp_path / "answers.csv") == answers
    assert [each.name for each in (tmp_path / "runs").iterdir()] == ["doors"]
    learn("doors.csv", "--target", "open", "--id", "name")
    assert {each.name for each in (tmp_path / "runs").iterdir()} == {"doors"}, "predictions make no other run"
    learn("doors.csv", "--target", "open", "--set", "rate=0.5")
    assert {each.name for each in (tmp_path / "runs").iterdir()} == {"doors", "doors-2"}
    shown = mapsto("report", "runs/doors", code=0).out
    assert "600 labels, each answered before it was seen" in shown
    compared = json.loads(mapsto("report", "runs/doors", "runs/doors-2", "--json", code=0).out)
    rows = {row["metric"]: row for row in compared}
    assert rows["online.softmax.accuracy"]["a"] == pytest.approx(account["figures"]["accuracy"])
    assert rows["online.softmax.accuracy"]["difference"] is not None
    with (tmp_path / "doors.csv").open("a") as file:
        file.write("n600,1.0,red,yes\n")
    grown = learn("doors.csv", "--target", "open", "--id", "name")
    assert "is not what it was in the last run" in grown.err


def test_lines_of_json_hold_each_row_and_then_the_summary(tmp_path: Path) -> None:
    table(tmp_path / "doors.csv", drift=False)
    done = learn("doors.csv", "--target", "open", "--every", 250, "--json")
    *rows, last = map(json.loads, done.out.splitlines())
    assert [row["event"] for row in rows] == [250, 500]
    assert rows[1]["accuracy"] > 90
    summary = last["summary"]
    assert (summary["events"], summary["stopped"]) == (600, False)
    assert summary["figures"]["accuracy"] > summary["baselines"]["majority"]
    assert len(summary["model"]) == 64


def test_a_learner_that_is_no_better_than_no_learner_is_said_loudly(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    rows = [f"{draw.normal():.3f},{'yes' if n % 100 < 60 else 'no'}" for n in range(300)]
    (tmp_path / "coin.csv").write_text("\n".join(["x,y", *rows]) + "\n")
    done = learn("coin.csv", "--target", "y")
    told = json.loads((tmp_path / "runs" / "coin" / "report.json").read_text())["steps"][0]["account"]
    assert [line.split("'")[1] for line in beaten_by(told)] == ["no change"]
    assert "NOT BETTER than 'no change'" in done.out


def test_values_are_learnt_only_by_who_can_and_numbers_are_told_of(tmp_path: Path) -> None:
    rows = [f"{n},{n * 1.5}" for n in range(100)]
    (tmp_path / "price.csv").write_text("\n".join(["x,price", *rows]) + "\n")
    done = learn("price.csv", "--target", "price", code=2)
    assert "'price' holds fractions, such as 1.5, so that values are learnt; for classes: --task classes" in done.err
    assert "online.softmax learns classes" in done.err
    said: list[str] = []
    grades = tmp_path / "grades.csv"
    grades.write_text("\n".join(["x,grade", *(f"{n},{n % 5}" for n in range(100))]) + "\n")
    node = {"csv": {"file": str(grades), "target": "grade"}}
    assert task_of(stream_of(node), said.append) == "classes"
    assert said == ["'grade' holds 5 different whole numbers, which are taken for classes; for values: --task values"]
    grades.write_text("\n".join(["x,grade", *(f"{n},{n}" for n in range(100))]) + "\n")
    assert task_of(stream_of(node), said.append) == "values"


def test_every_kind_of_source_gives_the_same(tmp_path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    file = table(tmp_path / "doors.csv", 300)
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(file), tmp_path / "doors.parquet")
    with (tmp_path / "doors.jsonl").open("w") as lines:
        for row in lines_of(file):
            lines.write(json.dumps({**row, "x": float(row["x"])}) + "\n")
    (tmp_path / "folder").mkdir()
    file.rename(tmp_path / "folder" / "doors.csv")
    found = {}
    for name in ("folder", "doors.parquet", "doors.jsonl"):
        done = learn(name, "--target", "open", "--id", "name", "--json")
        found[name] = json.loads(done.out.splitlines()[-1])["summary"]["figures"]
    assert found["folder"] == found["doors.parquet"] == found["doors.jsonl"]


@pytest.mark.slow
def test_standard_input_gives_the_same_as_its_file(tmp_path: Path) -> None:
    file = table(tmp_path / "doors.csv", 300)
    done = learn(file, "--target", "open", "--id", "name", "--json")
    figures = json.loads(done.out.splitlines()[-1])["summary"]["figures"]
    with file.open("rb") as given:
        words = [sys.executable, "-m", "mapsto", "stream", "-", "--target", "open", "--id", "name", "--json"]
        done = subprocess.run([*words, "--learner", "softmax"], stdin=given, capture_output=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["summary"]["figures"] == figures


# ---------------------------------------------------------------------------------------------------- stopped, and killed


def test_ctrl_c_ends_well_and_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path / "doors.csv", 3000)
    words = ("doors.csv", "--target", "open", "--id", "name", "--predictions", "answers.csv")
    plain = tmp_path / "plain.csv"
    learn(*words[:-1], plain, "--out", "plain", "--store", "other")
    answered, sent = StreamDisplay.answered, []

    def stopping(self: Any, step: Any, start: int, *rest: Any) -> None:
        answered(self, step, start, *rest)
        if start > 700 and not sent:
            sent.append(start)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StreamDisplay, "answered", stopping)
    done = learn(*words, code=130)
    assert "it goes on with:" in done.out
    assert "mapsto stream doors.csv --target open --id name" in done.out
    assert "stopped; the same command goes on from here" in done.err
    stopped = len(lines_of(tmp_path / "answers.csv"))
    assert 700 < stopped < 3000
    monkeypatch.setattr(StreamDisplay, "answered", answered)
    with (tmp_path / "answers.csv").open("a") as file:
        file.write(f"{stopped + 1},lost,with,the,kill\n{stopped + 2},ha")  # what was written after the checkpoint
    learn(*words)
    assert (tmp_path / "answers.csv").read_text() == plain.read_text()


def test_a_stream_that_stops_is_waited_for_until_ctrl_c(tmp_path: Path) -> None:
    table(tmp_path / "doors.csv", 300)
    timer = threading.Thread(target=_interrupt_once, args=(tmp_path / "answers.csv", 301))
    timer.start()
    done = learn("doors.csv", "--target", "open", "--follow", "--predictions", "answers.csv")
    timer.join()
    assert "it goes on with:" in done.out
    assert len(lines_of(tmp_path / "answers.csv")) == 300


def _interrupt_once(file: Path, lines: int) -> None:
    """Send Ctrl-C once a file has so many lines."""
    for _ in range(1000):
        if file.is_file() and file.read_text().count("\n") >= lines:
            break
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)


# ------------------------------------------------------------------------------------------------------- what was learnt


def test_snapshots_are_listed_chosen_and_answer_without_learning(tmp_path: Path) -> None:
    table(tmp_path / "doors.csv", 600)
    done = learn("doors.csv", "--target", "open", "--publish-every", 1, "--every", 100)
    assert "mapsto stream FILE.csv --from runs/doors" in done.out
    kept = json.loads(mapsto("stream", "--from", "runs/doors", "--json", code=0).out)
    assert kept[-1]["events"] == 600
    listed = mapsto("stream", "--from", "runs/doors", code=0).out
    assert "600 events" in listed
    assert "(the end)" in listed
    end = mapsto("stream", "doors.csv", "--target", "open", "--from", "runs/doors", code=0)
    assert end.out.splitlines()[0] == "event,id,answer,probability,label"
    assert len(end.out.splitlines()) == 601
    assert "600 events answered by online.softmax after 600 events" in end.err
    by_digest = mapsto("stream", "doors.csv", "--target", "open", "--from", kept[-1]["digest"][:10], code=0)
    by_name = mapsto("stream", "doors.csv", "--target", "open", "--from", "doors@10_000", code=0)
    assert end.out == by_digest.out == by_name.out
    as_json = mapsto("stream", "doors.csv", "--target", "open", "--from", "doors", "--json", code=0).out.splitlines()
    rows = list(csv.DictReader(end.out.splitlines()))
    assert [json.loads(line)["answer"] for line in as_json] == [row["answer"] for row in rows]
    right = sum(row["answer"] == row["label"] for row in rows)
    assert f"right on {right / 6:.1f} % of the 600" in end.err
    questions = tmp_path / "questions.csv"
    rows = [line.rpartition(",")[0] for line in (tmp_path / "doors.csv").read_text().splitlines()]
    questions.write_text("\n".join(rows) + "\n")
    of_questions = mapsto("stream", "questions.csv", "--from", "doors", code=0)
    assert "lacks columns" not in of_questions.err
    Path("narrow.csv").write_text("x,y\n1,2\n")
    assert "lacks columns that the model learnt from, which count as missing: name, colour" in (
        mapsto("stream", "narrow.csv", "--from", "doors", code=0).err
    )
    Path("others.csv").write_text("u,v\n1,2\n")
    others = mapsto("stream", "others.csv", "--from", "doors", code=2)
    assert "has none of the columns that the model learnt from: name, x, colour" in others.err
    assert "mapsto stream others.csv --from runs/doors" in mapsto("predict", "runs/doors", "others.csv", code=2).err
    assert [row.split(",")[2] for row in of_questions.out.splitlines()] == [
        row.split(",")[2] for row in end.out.splitlines()
    ]
    assert "right on" not in of_questions.err
    none = mapsto("stream", "doors.csv", "--target", "open", "--from", "runs/doors@0", code=2)
    assert "no snapshot was kept up to event 0" in none.err


def test_what_stands_behind_an_answer_is_told(tmp_path: Path) -> None:
    table(tmp_path / "doors.csv", 120, drift=False)
    mapsto("stream", "doors.csv", "--target", "open", code=0)
    told = json.loads((tmp_path / "runs" / "doors" / "report.json").read_text())["steps"][0]["account"]
    assert max(dict(told["importance"]), key=dict(told["importance"]).get) == "x"  # type: ignore[arg-type]
    lines = mapsto("stream", "doors.csv", "--from", "runs/doors", "--explain", code=0).out.splitlines()
    first = json.loads(lines[0])
    assert len(lines) == 120
    assert sum(first["why"]["shares"].values()) == pytest.approx(1)
    assert first["why"]["nearest"][0]["distance"] <= first["why"]["nearest"][1]["distance"]
    assert first["why"]["nearest"][0]["features"]["x"] == first_x(tmp_path / "doors.csv")
    assert (
        "a name that ends in .jsonl"
        in mapsto("stream", "doors.csv", "--from", "doors", "--explain", "--predictions", "why.csv", code=2).err
    )
    assert "give it with --from" in mapsto("stream", "doors.csv", "--target", "open", "--explain", code=2).err
    learn("doors.csv", "--target", "open", "--out", "plain")
    assert (
        "online.softmax explains no answer" in mapsto("stream", "doors.csv", "--from", "plain", "--explain", code=2).err
    )


def first_x(path: Path) -> float:
    return float(lines_of(path)[0]["x"])


def test_what_was_kept_before_a_kill_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path / "my doors.csv", 3000)

    def killed(self: Any, step: Any, start: int, *rest: Any) -> None:
        if start >= 1500:
            raise SystemExit(3)

    monkeypatch.setattr(StreamDisplay, "answered", killed)
    monkeypatch.setattr(driver, "_LOOK_SECONDS", 0.0)
    learn("my doors.csv", "--target", "open", "--publish-every", 500, code=3)
    assert not (tmp_path / "runs" / "my_doors" / "report.json").exists()
    kept = json.loads(mapsto("stream", "--from", "runs/my_doors", "--json", code=0).out)
    assert [each["events"] for each in kept] == [512, 1024, 1536]
    answered = mapsto("stream", "my doors.csv", "--from", "my doors@700", code=0)
    assert "by online.softmax after 512 events" in answered.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("doors.csv --target opne", "there is no column 'opne'; did you mean 'open'?"),
        ("doors.csv --target open --id nam", "there is no column 'nam'; did you mean 'name'?"),
        ("doors.csv", "a stream needs the column to learn; mapsto stream doors.csv --target COLUMN"),
        ("", "no stream is given"),
        ("gone.csv --target open", "gone.csv"),
        ("gone --target open", "there is no such file"),
        ("doors.bin --target open", "what '.bin' holds is not known; name it: --format csv"),
        ("binary.csv --target open", "is no text"),
        ("empty.csv --target open", "has no header"),
        ("doors.csv --target open --learner softmx", "there is no learner 'online.softmx'; did you mean"),
        ("doors.csv --target open --set rat=1", "unknown field 'rat'"),
        ("doors.csv --target open --set rate", "'rate' is not like field=value"),
        ("doors.csv --target open --set late=-1", "field 'late': input should be greater than or equal to 0, got -1"),
        ("doors.csv --target open --learner softmax --drift adwn", "adwn"),
        ("doors.csv --target open --preset fast --learner softmax", "online.softmax has no presets"),
        ("doors.csv --target open --task values --learner softmax", "online.softmax learns classes"),
        ("doors.csv --target open --from runs/none", "there is no such run, folder or model"),
        ("doors.csv --target open --from 0123456789ab", "there is no artifact of that digest"),
        ("doors.csv --target open --from runs/none --learner softmax", "--learner is for learning"),
        ("doors.csv --target open --predictions doors.csv", "holds something other than predictions"),
        ("doors.csv --target open --predictions /dev/full", "cannot write predictions: the disk is full"),
        ("doors.csv --target open --predictions doors.csv/answers.csv", "cannot write predictions"),
        ("doors.csv --target open --predictions -", "give a file's name"),
        ("doors.csv --target open --format xml", "there is no stream 'xml'"),
    ],
)
def test_what_is_wrong_is_said_with_a_remedy(words: str, said: str, tmp_path: Path) -> None:
    table(tmp_path / "doors.csv", 60)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "doors.bin").touch()
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 20)
    assert said in mapsto("stream", *words.split(), code=2).err


def test_odd_streams_are_learnt_with_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "odd.csv"
    head, rows = "x,z,y", [f"{n % 7},{n % 3},{'a' if n % 7 > 3 else 'b'}" for n in range(60)]
    for lines, said in (
        ([f"{n},1,same" for n in range(60)], "all labels are of one class, 'same'"),
        (
            [*rows[:30], *(row.replace(",", ",,", 1).replace(",,", ",", 0) for row in rows[30:])],
            "cells where the header",
        ),
        ([*rows, "1,1,NaN"], "an empty, NaN or infinite label"),
        ([], "the stream holds no event"),
    ):
        file.write_text("\n".join([head, *lines]) + "\n")
        assert said in learn("odd.csv", "--target", "y", "--out", "odd").err
    file.write_text("\n".join([head, *rows, *(f"{row.split(',')[0]},,{row.split(',')[2]}" for row in rows)]) + "\n")
    learn("odd.csv", "--target", "y", "--out", "odd")  # a feature that vanishes is missing from there on
    told = json.loads((tmp_path / "odd" / "report.json").read_text())["steps"][0]["account"]
    assert (told["labels"], told["aside"]) == (120, {})


# ------------------------------------------------------------------------------------------------------------ the screen


def _account(**more: Any) -> dict[str, Any]:
    told = {
        "task": "classes",
        "events": 1000,
        "position": 500,
        "labels": 900,
        "main": "accuracy",
        "better": 1,
        "figures": {"accuracy": 70.0, "window_accuracy": 80.0},
        "baselines": {"no change": 50.0, "majority": 60.0},
        "classes": [{"class": f"c{n}", "labels": 90, "recall": 10.0 * n, "first": n + 1} for n in range(10)],
        "shares": {"knn": 0.25, "forests": 0.75},
        "drift_count": 1,
        "drifts": [{"event": 400, "what": "error (adwin)"}],
        "aside": {"an infinite number in column 'x'": 3},
        "measured": {"memory_bytes": 2**20, "p50_us": 20.0, "p99_us": 40.0, "events_per_second": 5e4},
    }
    return told | more


def test_the_screen_shows_now_and_over_time_classes_members_drifts_and_what_was_set_aside() -> None:
    shown = StreamDisplay("doors.csv", size=1000)
    shown._note(0.0, _account(events=0, figures={}))
    for second in range(1, 4):
        shown._note(float(second), _account(events=1000 * second))
    with shown.console.capture() as capture:
        shown.console.width = 120
        shown.console.print(shown.picture(_account()))
    text = capture.get()
    for part in (
        "1,000   1,000/s",
        "50%",
        "80.0 % now   70.0 % of all   no change 50.0 %   majority 60.0 %",
        "▄▄▄   80.0 % to 80.0 %",
        "70 %  c7 (10% of labels, first at 8)",
        "and 2 more classes",
        "75%  forests",
        "event 400, error (adwin)",
        "3 × an infinite number in column 'x'",
        "20 µs an event",
    ):
        assert part in text
    assert text.index("forests") < text.index("knn")
    with shown.console.capture() as capture:
        shown.console.print(
            shown.picture(_account(figures={}, classes=[], shares={}, drifts=[], aside={}, measured={}))
        )
    assert "no label yet" in capture.get()


def test_lines_for_no_terminal_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = StreamDisplay("doors.csv")
    monkeypatch.setattr(display, "_REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(display, "_LINE_SECONDS", 0.0)
    with shown.console.capture() as capture:
        shown.watched(None, _account)  # type: ignore[arg-type]
    assert "80.0 % now" in capture.get()
    assert "1 drifts, the last at 400;  3 set aside" in capture.get()


def test_answers_of_values_and_of_events_without_an_answer(tmp_path: Path) -> None:
    block = Block(
        times=np.zeros(3),
        ids=np.array(["a\nb", "", "c"], object),
        x={"x": np.zeros(3)},
        has_x=np.array([True, True, False]),
        y=np.array([1.0, np.nan, 2.0]),
        has_y=np.array([True, False, True]),
        next=3,
    )
    sink = PredictionFile(tmp_path / "out.csv", values=True)
    sink.add(4, block, np.array([[1.5], [np.nan], [3.0]]), ())
    sink.close()
    assert (tmp_path / "out.csv").read_text() == "event,id,answer,label\n5,a\\nb,1.5,1.0\n6,,,\n"
    said: list[str] = []
    later = PredictionFile(tmp_path / "later.csv", values=True, say=said.append)
    later.add(9, block, np.array([[1.5], [np.nan], [3.0]]), ())
    later.close()
    assert [row["event"] for row in lines_of(tmp_path / "later.csv")] == ["10", "11"]
    assert "begins after event 9" in said[0]
    later.add(12, block, np.array([[1.5], [np.nan], [3.0]]), ())  # a late label has no line
    later.close()
    again = PredictionFile(tmp_path / "later.csv", values=True, say=said.append)
    again.add(12, block, np.array([[1.5], [np.nan], [3.0]]), ())
    again.close()
    assert [row["event"] for row in lines_of(tmp_path / "later.csv")] == ["10", "11", "13", "14"]
    assert len(said) == 1


def _answers(count: int) -> tuple[Block, Any]:
    nothing = np.array([""] * count, object)
    there, absent = np.ones(count, np.bool_), np.zeros(count, np.bool_)
    x = {"x": np.zeros(count)}
    block = Block(times=np.zeros(count), ids=nothing, x=x, has_x=there, y=np.zeros(count), has_y=absent, next=1)
    return block, np.arange(count, dtype=float)[:, None]


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_a_file_of_answers_that_something_else_changed_is_not_gone_on_with(tmp_path: Path, name: str) -> None:
    file, mark = tmp_path / name, tmp_path / "run" / "mark.json"

    def sink(run: str = "one") -> PredictionFile:
        made = PredictionFile(file, values=True, mark=mark, run=run)
        made.check()
        return made

    def add(start: int, count: int, run: str = "one") -> None:
        made = sink(run)
        made.add(start, *_answers(count), ())
        made.close()

    add(0, 5)
    whole = file.read_bytes()
    assert sink().is_whole
    assert not sink("another").is_whole
    file.write_bytes(whole + b"6,half")  # killed over an event
    add(3, 2)  # from the checkpoint
    assert len(file.read_bytes().splitlines()) == len(whole.splitlines())
    whole = file.read_bytes()
    for changed in (whole[: len(whole) // 2], whole.replace(b"2", b"7", 1), b""):
        file.write_bytes(changed)
        assert not sink().is_whole
    file.write_bytes(whole.replace(b"2", b"7", 1))
    with pytest.raises(SpecError, match="no longer holds this run's answers to the first 5 events"):
        add(5, 2)
    file.write_bytes(whole)
    with pytest.raises(SpecError, match="no longer holds"):
        add(5, 2, "another")
    file.write_bytes(whole[:7])  # a disk that was full took a part of the first line
    add(0, 5)
    assert len(file.read_bytes().splitlines()) == len(whole.splitlines())


def test_whoever_reads_the_record_may_go(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    shown = StreamDisplay("a → b", as_json=True)
    assert not shown.wants_stop(None)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdout", Closed())
    shown.logged(None, 1000, {"accuracy": 0.5})  # type: ignore[arg-type]
    assert shown.wants_stop(None)  # type: ignore[arg-type]


@pytest.mark.slow
def test_torch_is_not_imported_to_learn_from_a_table(tmp_path: Path) -> None:
    table(tmp_path / "doors.csv", 60)
    code = (
        "import sys; from mapsto.cli.main import main; sys.argv = 'mapsto stream doors.csv --target open'.split()\n"
        "try: main()\nexcept SystemExit as end: sys.exit(f'{end.code} {\"torch\" in sys.modules}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "0 False"


def test_a_column_of_times_that_nobody_named_is_told(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text(
        "day;a;y\n" + "".join(f"{n % 28 + 1}.3.2026;{n};{'uv'[n % 2]}\n" for n in range(40))
    )
    assert "column 'day' holds times" in learn("orders.csv", "--target", "y").err
    assert "holds times" not in learn("orders.csv", "--target", "y", "--time", "day", "--out", "timed").err


def test_the_hint_names_a_file_of_the_same_kind(tmp_path: Path) -> None:
    (tmp_path / "orders.jsonl").write_text('{"a": 1, "y": "u"}\n{"a": 2, "y": "v"}\n')
    assert "mapsto stream FILE.jsonl --from runs/orders" in learn("orders.jsonl", "--target", "y").out

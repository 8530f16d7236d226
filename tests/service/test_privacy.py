"""What a service stores holds nothing that its privacy settings name: neither its state nor what it writes to standard error."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("presidio_analyzer")
from mapsto.data.privacy.masking import TextMasking
from mapsto.data.privacy.pseudonyms import Pseudonyms
from mapsto.data.privacy.settings import Privacy
from mapsto.service.client import Client
from mapsto.service.job_queue import Job, JobQueue
from mapsto.service.masked_log import MaskedLog
from mapsto.service.refusal import Refusal
from mapsto.service.row_masking import DROPPED, RowMasking, Stored
from mapsto.service.state import FeedbackRow, State
from mapsto.service.writer import Writer
from tests.cli.packages import linear_package
from tests.command import mapsto
from tests.service.in_process import started
from tests.service.served import serving

ANN, CARD = "ann@example.org", "4111111111111111"
PRIVACY = Privacy(entities={"EMAIL_ADDRESS": "mask", "CREDIT_CARD": "drop"})


def masking(privacy: Privacy = PRIVACY) -> TextMasking:
    return TextMasking(privacy, Pseudonyms(b"k" * 32))


def row(event: str, label: str, answer: str = "") -> FeedbackRow:
    return FeedbackRow(model="m", event=event, tenant="t", version="1", label=label, answer=answer, features=b"")


def test_labels_and_events_are_masked_before_they_are_stored(tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite")
    writer = Writer(state, RowMasking(masking()))
    given = [row(f"k/{ANN}", f"mail to {ANN}", ANN), row("k/bob@example.org", "plain"), row("k/3", CARD), row("4", "x")]

    async def run() -> list[Stored]:
        return [await writer.append(given), await writer.append(given), await writer.append([row("5", CARD)])]

    told = asyncio.run(run())
    assert [each.positions for each in told] == [[1, 2, DROPPED, 3]] * 2 + [[DROPPED]], "sent again each is stored once"
    assert [each.masked for each in told] == [[0], [0], []], "of the labels; an event is not what was taught"
    stored = state.feedback("m")
    assert [each.label for each in stored] == ["mail to <EMAIL_ADDRESS>", "plain", "x"]
    assert stored[0].answer == "<EMAIL_ADDRESS>"
    assert len({each.event for each in stored}) == 3, "events stay apart"
    state.close()
    content = b"".join(path.read_bytes() for path in tmp_path.glob("state.sqlite*"))
    assert not any(text.encode() in content for text in (ANN, "bob@", CARD))


def test_what_cannot_be_masked_is_not_stored_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from presidio_analyzer.predefined_recognizers import CreditCardRecognizer

    def broken(self: Any, text: str) -> bool:
        raise ValueError(text)

    monkeypatch.setattr(CreditCardRecognizer, "validate_result", broken)
    state = State(tmp_path / "state.sqlite")
    writer = Writer(state, RowMasking(masking()))
    with pytest.raises(Refusal, match="nothing was stored, since it cannot be masked: the recognizer of CREDIT_CARD"):
        asyncio.run(writer.append([row("1", "x"), row("2", CARD)]))
    with pytest.raises(Refusal, match="cannot be masked"):
        asyncio.run(writer.masked(["x", CARD]))
    assert state.feedback("m") == []
    said = capsys.readouterr().err
    assert "was not stored, since it cannot be masked" in said
    assert CARD not in said


def test_labels_that_take_long_to_mask_hold_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, slow = State(tmp_path / "state.sqlite"), masking()
    masked = slow.masked

    def slowly(text: str, **how: Any) -> Any:
        time.sleep(0.005 if text.startswith("long") else 0)
        return masked(text, **how)

    monkeypatch.setattr(slow, "masked", slowly)
    writer = Writer(state, RowMasking(slow))
    many = [row(f"k/{number}", f"long {number}") for number in range(100)]

    async def run(*, within: float) -> list[str]:
        done: list[str] = []

        async def one(name: str, rows: list[FeedbackRow]) -> None:
            try:
                await asyncio.wait_for(writer.append(rows), 20)
                done.append(name)
            except Refusal as refusal:
                done.append(refusal.text)

        monkeypatch.setattr("mapsto.service.writer._MOST_MASKING", within)
        await asyncio.gather(one("many", many), one("few", [row(f"few {within}", "x")]))
        return done

    assert asyncio.run(run(within=25)) == ["few", "many"]
    few, refused = asyncio.run(run(within=0.1))
    assert few == "few"
    assert "send fewer or shorter labels at once" in refused
    state.close()


def test_a_client_is_told_what_masking_made_of_the_labels(tmp_path: Path) -> None:
    with started(tmp_path) as own:
        own.service.writer = Writer(own.state, RowMasking(masking()))
        key = own.key(name="sender")

        def asked(what: str, body: dict[str, Any]) -> tuple[int, Any]:
            found = own.ask(f"/v2/models/signs/{what}", body, key=key)
            return found.status, found.json()

        def adapted(*labels: str, way: str = "ridge") -> tuple[int, Any]:
            rows = [[float(number), 1.0, 0.0] for number in range(len(labels))]
            item = {"name": "input", "datatype": "FP32", "shape": [len(rows), 3], "data": rows}
            return asked("adapt", {"inputs": [item], "parameters": {"labels": labels, "way": way}})

        status, said = adapted("x@example.org", "y@example.org")
        assert status == 400
        assert "after masking (EMAIL_ADDRESS) the 2 classes of the examples are one, '<EMAIL_ADDRESS>'" in said["error"]
        assert "hash EMAIL_ADDRESS instead" in said["error"]
        assert "give examples of two or more" in adapted("x", "x")[1]["error"], "as ever where the client gave one"
        status, made = adapted("x@example.org", "y@example.org", "z")
        assert (status, made["masked"], made["classes"]) == (200, 2, ["<EMAIL_ADDRESS>", "z"])
        assert made["notes"] == ["after masking (EMAIL_ADDRESS) the 3 classes of the examples are 2"]
        assert "masked" not in adapted("x", "y")[1]
        status, job = adapted("x@example.org", "y", "z", "z", way="logistic")
        assert (status, job["masked"], job["notes"]) == (202, 1, [])
        assert own.ask(f"/v2/models/signs/jobs/{job['job']}", key=key).json()["masked"] == 1
        one = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [0, 1, 0]}
        status, said = asked(
            "feedback", {"feedback": [{"label": label, "inputs": [one]} for label in (ANN, "low", CARD)]}
        )
        assert (status, said["masked"]) == (200, 1)
        assert [each.get("masked") for each in said["feedback"]] == [True, None, None]


def test_a_state_of_before_gets_the_column_of_masked_labels(tmp_path: Path) -> None:
    State(tmp_path / "state.sqlite").close()
    with sqlite3.connect(tmp_path / "state.sqlite") as connection:
        connection.execute("ALTER TABLE jobs DROP COLUMN masked")
    state = State(tmp_path / "state.sqlite")
    job = Job(id="j", model="m", tenant="t", way="best", shared=False, package="p", masked=2)
    assert not JobQueue(state).submit(job, own=1, all_=1)
    found = JobQueue(state).find("m", "j", tenant="t")
    assert found is not None
    assert found.masked == 2
    state.close()


def test_lines_of_the_log_come_out_masked() -> None:
    out: list[bytes] = []
    log = MaskedLog(masking(), write=out.append)
    os.write(log.end, f"Traceback of {ANN}\nwhole\n{CARD}\n".encode() + b"\xff no text, " + ANN.encode())
    log.close()
    assert b"".join(out).decode().splitlines() == [
        "Traceback of <EMAIL_ADDRESS>",
        "whole",
        "mapsto: a line of the log was left out: it held CREDIT_CARD",
        "\ufffd no text, <EMAIL_ADDRESS>",
    ]


def test_a_service_is_refused_whose_privacy_cannot_be_had(tmp_path: Path) -> None:
    package = linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    for text, said in {
        "entities: {PERSON: mask}": "no entity 'PERSON'",
        "entities: {URL: hide}": "entities.URL",
        "entities: [": "cannot be read as YAML",
    }.items():
        (tmp_path / "privacy.yaml").write_text(text)
        assert said in mapsto("serve", package, "--privacy", tmp_path / "privacy.yaml", code=2).err
    assert "no such file" in mapsto("serve", package, "--privacy", tmp_path / "other.yaml", code=2).err


@pytest.mark.slow
def test_nothing_personal_is_in_the_files_of_a_service_that_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package = linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    (tmp_path / "privacy.yaml").write_text(
        "entities: {EMAIL_ADDRESS: mask, PHONE_NUMBER: hash, CREDIT_CARD: drop}\ncallers: hash\n"
    )
    with serving(
        package, "--privacy", tmp_path / "privacy.yaml", "--log", "requests", "--workers", "2", folder=tmp_path
    ) as served:
        request = served.infer("signs", [[1.0, 0, 0]])["parameters"]["request_id"]
        one = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [[0, 1, 0]]}
        labels = [
            {"request_id": request, "label": f"of {ANN}"},
            {"label": "+49 170 1234567", "idempotency_key": f"from {ANN}", "inputs": [one]},
            {"label": CARD, "inputs": [one]},
        ]
        status, said = served.call("/v2/models/signs/feedback", {"feedback": labels})
        assert status == 200, said
        assert [each["stored"] for each in said["feedback"]] == [True, True, False]
        assert said["masked"] == 2
        client = Client(served.url, served.key)
        with caplog.at_level("WARNING", "mapsto"):
            job = client.adapt("signs", np.eye(3), [ANN, "y", "y"], way="logistic", wait=None)
            client.teach("signs", np.eye(3), [ANN, "y", "y"])
        assert (job.masked, client.job("signs", job.id).masked) == (1, 1)
        said_of = "labels changed by masking before they were stored: 1"
        assert [said_of in each for each in caplog.messages] == [True, True]
        assert "personal data" in said["feedback"][2]["reason"]
        several = {"name": "input", "datatype": "FP32", "shape": [2, 3], "data": [[0, 1, 0], [0, 0, 1]]}
        for names, code in (([ANN, "y"], 200), ([CARD, "y"], 400)):
            support = {"inputs": [several], "parameters": {"labels": names}}
            status, said = served.call("/v2/models/signs/adapt", support)
            assert status == code, said
        assert "CREDIT_CARD" in said["error"]
        assert CARD not in said["error"]
        key = served.key
    assert {each.label for each in State(tmp_path / "state.sqlite").feedback("signs")} >= {"of <EMAIL_ADDRESS>"}
    log = (tmp_path / "serve.log").read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {line["action"] for line in lines} >= {"infer", "feedback", "adapt"}
    assert {len(line["key"]) for line in lines if line["action"] == "infer"} == {24}, "a pseudonym"
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".yaml":
            content = path.read_bytes()
            assert not any(text.encode() in content for text in (ANN, CARD, "1234567")), path
    assert key

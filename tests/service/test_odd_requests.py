"""What odd requests come to: an error that says what is wrong, and never a wait, a crash or a wrong count."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.errors import DataError, DomainError
from mapsto.service.client import Client
from mapsto.service.inference_protocol import Given, cells, decode, tensor
from mapsto.service.refusal import Refusal
from mapsto.service.state import State
from tests.cli.packages import linear_package, table_package
from tests.command import mapsto
from tests.service.served import Served, serving
from tests.text.packages import text_package

CLASSES = ("low", "high")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("odd")
    linear_package(folder / "signs", [[1.0, 0, 0], [-1, 0, 0]], CLASSES)
    table_package(folder / "table")
    shutil.move(str(text_package(folder / "made")), folder / "texts")
    names = (folder / name for name in ("signs", "table", "texts"))
    with serving(*names, "--admin", "--learn", "none", "--deadline", "3", folder=folder) as service:
        yield service


def columns(**named: list[Any]) -> dict[str, Any]:
    kinds = {"age": "FP64", "town": "BYTES"}
    inputs = [
        {"name": name, "datatype": kinds.get(name, "FP64"), "shape": [len(values)], "data": values}
        for name, values in named.items()
    ]
    return {"inputs": inputs}


def test_a_table_of_no_rows_is_refused_at_once(served: Served) -> None:
    names = [each["name"] for each in served.call("/v2/models/table")[1]["parameters"]["raw_inputs"]]
    began = time.monotonic()
    status, found = served.call("/v2/models/table/infer", columns(**{name: [] for name in names}))
    assert (status, found["error"]) == (400, "the columns hold no row")
    assert time.monotonic() - began < 2


def test_more_samples_than_are_answered_at_once_are_refused(served: Served) -> None:
    most = 16_384
    for count, expected in ((most + 1, 413), (most, 200)):
        sent = {"name": "input", "datatype": "FP32", "shape": [count, 3], "data": [0.5] * 3 * count}
        status, found = served.call("/v2/models/signs/infer", {"inputs": [sent]})
        assert status == expected, found
        assert status == 200 or "at most 16384 are answered at once" in found["error"]


def test_texts_are_answered_as_by_the_package(served: Served) -> None:
    client = Client(served.url, served.key)
    answer = client.infer("texts", ["where is my card?", "eat a green pear"])
    assert answer.labels == ("card", "fruit")
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["my card is lost"]}]}
    status, found = served.call("/v2/models/texts/infer", body)
    assert (status, found["outputs"][1]["data"]) == (200, ["card"])
    body["inputs"][0]["data"] = [" "]
    status, found = served.call("/v2/models/texts/infer", body)
    assert status == 400
    assert "is empty" in found["error"]
    version = client.adapt(
        "texts", ["red apple", "green apple", "pay my bank", "transfer money"], ["food"] * 2 + ["money"] * 2
    )
    assert client.infer("texts", ["red apple"], version=version).labels == ("food",)


def test_a_promotion_twice_keeps_the_way_back(served: Served) -> None:
    client = Client(served.url, served.key)
    rows = np.array([[1.0, 0, 0], [0, 1, 0]], np.float32)
    version = client.adapt("signs", rows, ["a", "b"], shared=True)
    assert client.promote("signs", version) == "1"
    assert client.promote("signs", version) == "1"
    assert client.roll_back("signs") == "1"


@pytest.mark.parametrize(
    ("action", "parameters", "message"),
    [
        ("infer", {"timeout": "x"}, "timeout is a number of microseconds"),
        ("infer", {"timeout": -5}, "timeout is a number of microseconds"),
        ("infer", {"timeout": int("9" * 401)}, "timeout"),
        ("adapt", {"shared": "yes", "labels": ["a"]}, "shared is true or false"),
        ("adapt", {"labels": [1]}, "labels are a list of texts"),
        ("adapt", {"labels": ["a\0"]}, "U+0000"),
    ],
)
def test_parameters_of_another_kind_are_refused(
    served: Served, action: str, parameters: dict[str, Any], message: str
) -> None:
    item = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, 0]}
    status, found = served.call(f"/v2/models/signs/{action}", {"inputs": [item], "parameters": parameters})
    assert status == 400
    assert message in found["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"request_id": "x", "label": "a", "lable": "b"}, "lable"),
        ({"feedback": [{"request_id": "x", "row": "0", "label": "a"}]}, "row"),
        ({"feedback": [{"label": "a", "idempotency_key": "k" * 201}]}, "more than 200 characters"),
        ({}, "label"),
    ],
)
def test_wrong_feedback_is_refused_by_what_is_wrong(served: Served, body: dict[str, Any], message: str) -> None:
    status, found = served.call("/v2/models/signs/feedback", body)
    assert status == 400
    assert message in found["error"]


def test_an_answer_from_nan_names_no_class(served: Served) -> None:
    raw = struct.pack("<3f", float("nan"), 0, 0)
    item = {"name": "input", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [item]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    status, found = served.call("/v2/models/signs/infer", head + raw, headers=headers)
    assert status == 200
    assert found["outputs"][1]["data"] == [""]


def test_a_client_who_wishes_for_another_protocol_is_answered(served: Served) -> None:
    body = json.dumps({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, 0]}]}).encode()
    answer = _sent(
        served,
        b"POST /v2/models/signs/infer HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nContent-Length: %d\r\n\r\n%s"
        % (served.key.encode(), len(body), body),
    )
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_client_who_sends_no_more_is_answered(served: Served) -> None:
    answer = _sent(
        served,
        b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n" % served.key.encode(),
        end=True,
    )
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(served: Served) -> None:
    began = time.monotonic()
    answer = _sent(
        served, b"POST /v2/models/signs/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 413")
    assert time.monotonic() - began < 5


def _sent(served: Served, data: bytes, *, end: bool = False) -> bytes:
    host, _, port = served.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        return connection.recv(65536)


def test_a_second_service_on_one_state_is_refused(served: Served) -> None:
    done = mapsto("serve", served.folder / "signs", "--state", served.folder / "state.sqlite", "--port", 0, code=2)
    assert "a service runs on this state already" in done.err


def test_the_state_is_not_overwritten_by_its_backup(served: Served) -> None:
    state = served.folder / "state.sqlite"
    done = mapsto("state", "backup", "--state", state, "--out", state, "--force", code=2)
    assert "is the state itself" in done.err
    assert state.stat().st_mode & 0o077 == 0, "what clients sent is for nobody else"


@pytest.mark.parametrize(("labels", "message"), [(["a"], "1 labels for 2 samples"), (["a", None], "None is no label")])
def test_the_client_takes_one_label_a_sample(served: Served, labels: list[Any], message: str) -> None:
    client = Client(served.url, served.key)
    with pytest.raises(DataError, match=message):
        client.teach("signs", np.zeros((2, 3), np.float32), labels)


def test_a_key_from_a_file_is_taken_and_no_other_shown(served: Served) -> None:
    assert Client(served.url, served.key + "\n").metadata("signs")["name"] == "signs"
    with pytest.raises(DomainError) as refused:
        Client(served.url, "ключ")
    assert "ключ" not in str(refused.value)


def test_gaps_in_columns() -> None:
    given = Given("age", "FP64", (3,), b"[1.5, null, 2]", "")
    assert cells(given) == [1.5, None, 2.0]
    assert cells(Given("town", "BYTES", (2, 1), b'[["a"], [null]]', "")) == [b"a", None]
    with pytest.raises(Refusal, match="has 1 values"):
        cells(Given("age", "FP64", (3,), b"[null]", ""))


def test_small_requests_cost_little_memory() -> None:
    began = time.monotonic()
    long = json.dumps(["x" * 1_000_000, *["y"] * 2999]).encode()
    with pytest.raises(Refusal, match="holds what is no number"):
        tensor(Given("input", "FP32", (3000,), long, ""))
    with pytest.raises(Refusal, match="more data than its shape says"):
        tensor(Given("input", "FP32", (4,), b"[" + b"{}," * 1_000_000 + b"1]", ""))
    many = b'{"inputs": [' + b'{"name":"a","datatype":"FP32","shape":[1],"data":[1]},' * 20_000 + b"{}]}"
    with pytest.raises(Refusal, match="more than 10000 inputs"):
        decode(many)
    assert time.monotonic() - began < 2


def test_a_lease_far_ahead_is_of_a_clock_that_was_set_back(tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite")
    assert state.lease("m", "one", 7200)
    assert not state.lease("m", "two", 5000)
    assert state.lease("m", "two", 15)


def test_without_its_driver_a_database_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    done = mapsto("keys", "list", "--state", "postgresql://nobody@127.0.0.1/none", code=2)
    assert "postgres" in done.err


def test_a_model_has_a_name_that_stands_in_a_path(tmp_path: Path) -> None:
    package = linear_package(tmp_path / "signs", [[1.0, 0], [-1, 0]], CLASSES)
    for name in ("a/b", "", "a b"):
        done = mapsto("serve", f"{name}={package}", "--port", 0, code=2)
        assert "is no name of a model" in done.err

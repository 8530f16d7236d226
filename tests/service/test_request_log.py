"""The log says who asked for what and how it ended, and nothing of what was sent."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mapsto.errors import StoreError
from mapsto.service.signing_keys import SigningKeys
from mapsto.service.tokens import Tokens
from tests.cli.packages import linear_package
from tests.service.identity import AUDIENCE, ISSUER, Provider
from tests.service.in_process import InProcess, started
from tests.service.served import serving

BODY = {
    "inputs": [{"name": "input", "datatype": "FP32", "shape": [2, 3], "data": [2.7182818, 0, 0, 1, 1, 1]}],
    "id": "my-payload",
}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[InProcess]:
    with started(tmp_path, tokens=provided(tmp_path)) as running:
        yield running


PROVIDER = Provider()


def provided(folder: Path) -> Tokens:
    (folder / "keys.json").write_bytes(PROVIDER.key_set())
    return Tokens(SigningKeys(str(folder / "keys.json")), audience=AUDIENCE, issuer=ISSUER)


def test_a_request_is_one_line(service: InProcess) -> None:
    key = service.key(name="phone")
    service.ask("/v2/models/signs/infer", BODY, key=key)
    (line,) = service.log
    row = json.loads(line)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(row.pop("time"))).total_seconds()) < 60
    assert 0 < row.pop("ms") < 60_000
    assert row == {
        "key": "phone",
        "method": "POST",
        "action": "infer",
        "model": "signs",
        "version": "1",
        "status": 200,
    }
    made = service.ask("/v2/models/signs/adapt", {"inputs": [*BODY["inputs"], _labels()]}, key=key).json()
    service.ask(f"/v2/models/signs/versions/{made['model_version']}", key=key)
    service.ask("/v2/models/signs/feedback", b"{", key=key)
    service.ask("/v2/health/live")
    rows = [json.loads(line) for line in service.log[1:]]
    assert [(row["key"], row["action"], row["version"], row["status"]) for row in rows] == [
        ("phone", "adapt", "1", 200),
        ("phone", "", made["model_version"], 200),
        ("phone", "feedback", "", 400),
        (None, "live", "", 200),
    ]


def _labels() -> dict[str, object]:
    return {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["my-payload", "another"]}


def test_no_payload_key_token_or_header_is_written(service: InProcess) -> None:
    key, token = service.key(name="phone"), PROVIDER.token().decode()
    for secret in (key, token, "mapsto_wrong"):
        service.ask("/v2/models/signs/infer", BODY, key=secret, x_secret="my-header")
        service.ask("/v2/models/signs/feedback", {"label": "my-payload", **BODY}, key=secret)
        service.ask("/v2/models/signs/adapt", {"inputs": [*BODY["inputs"], _labels()]}, key=secret)
        for path in (f"/v2/models/{secret}/infer", f"/v2/models/signs/versions/{secret}/infer"):
            service.ask(path, BODY, key=secret)
        service.ask(f"/v2/{secret}", BODY, key=secret, method="my-payload")
    assert len(service.log) == 18
    assert {json.loads(line)["key"] for line in service.log} == {"phone", "token:a/ann", None}
    text = "".join(service.log)
    for secret in (key, token, "mapsto_", "my-payload", "2.718", "my-header", "Bearer"):
        assert secret not in text, secret


def test_where_the_service_fails_is_said_and_not_on_what(
    service: InProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object) -> None:
        raise ValueError(BODY["id"])

    def full(*arguments: object) -> None:
        raise StoreError("the state cannot be written (disk full)", where="/its/place")

    key = service.key()
    for path, name in (("/v2/models/signs/infer", "infer"), ("/v2/models/signs/versions", "versions")):
        body = BODY if name == "infer" else None
        monkeypatch.setattr(service.service, name, broken)
        answer = service.ask(path, body, key=key)
        assert (answer.status, list(answer.json())) == (500, ["error"])
        monkeypatch.setattr(service.service, name, full)
        answer = service.ask(path, body, key=key)
        assert (answer.status, answer.json()) == (503, {"error": "the state cannot be written (disk full)"})
        assert answer.headers["retry-after"]
    said = capsys.readouterr().err
    assert said.count("failed with ValueError") == 2
    assert "in broken" in said
    assert "my-payload" not in said + "".join(service.log)
    assert [json.loads(line)["status"] for line in service.log] == [500, 503] * 2


@pytest.mark.slow
def test_a_service_that_runs_logs_to_standard_error(tmp_path: Path) -> None:
    linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    (tmp_path / "keys.json").write_bytes(PROVIDER.key_set())
    options = ["--log", "requests", "--host-name", "mapsto.example", "--learn", "none"]
    options += ["--jwks", tmp_path / "keys.json", "--audience", AUDIENCE, "--issuer", ISSUER]
    with serving(tmp_path / "signs", *options, folder=tmp_path) as served:
        token = PROVIDER.token().decode()
        for key in (served.key, token):
            assert served.call("/v2/models/signs/infer", BODY, key=key)[0] == 200
        assert served.call("/v2", headers={"Host": "mapsto.example"})[0] == 200
        assert served.call("/v2", headers={"Host": "evil.example"})[0] == 421
        assert served.call("/v2/models/signs/rollback", b"")[0] == 403, "admin is off by default"
        assert served.call("/metrics")[0] == 403
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as greedy:
            greedy.sendall(b"GET /v2 HTTP/1.1\r\nhost: 127.0.0.1\r\na: " + b"b" * 40_000)
            assert greedy.recv(100).startswith(b"HTTP/1.1 431 "), "it runs with the limits of a connection"
        assert served.end() == 0
    text = (tmp_path / "serve.log").read_text()
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [row["status"] for row in rows] == [200, 200, 200, 421, 403, 403]
    assert rows[1]["key"] == "token:a/ann"
    said = text.split("\n", 5)[5]
    assert "my-payload" not in text
    assert token not in text
    assert served.key not in said

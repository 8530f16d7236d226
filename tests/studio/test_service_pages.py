"""The pages of a service: what they show by which key, forms that only they can send, and a service that is not there."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from mapsto.recipe.serving import Thresholds
from mapsto.service.client import Client, ServiceError
from mapsto.studio.application import application
from mapsto.studio.services import Samples, Services, alerts, loads
from mapsto.studio.site import Studio
from tests.command import mapsto
from tests.service.in_process import InProcess, started
from tests.studio.test_pages import text_of

METRICS = """\
# HELP mapsto_ready Whether every worker answers.
mapsto_ready 1.0
mapsto_state_up 1.0
mapsto_requests_total{kind="package",model="signs",route="infer",status="2xx"} 90.0
mapsto_requests_total{kind="package",model="signs",route="infer",status="5xx"} 10.0
mapsto_refusals_total{model="signs",reason="busy",route="infer"} 1.0
mapsto_request_duration_seconds_bucket{le="0.001",model="signs",route="infer"} 50.0
mapsto_request_duration_seconds_bucket{le="1.0",model="signs",route="infer"} 90.0
mapsto_request_duration_seconds_bucket{le="2.0",model="signs",route="infer"} 100.0
mapsto_request_duration_seconds_bucket{le="+Inf",model="signs",route="infer"} 100.0
mapsto_queue_samples{model="signs",pid="1"} 2.0
mapsto_queue_samples{model="signs",pid="2"} 3.0
mapsto_input_drift_p_value{model="signs",statistic="mean"} 1e-06
mapsto_online_accuracy_ratio{model="signs"} 0.6
mapsto_online_accuracy_before_ratio{model="signs"} 0.9
mapsto_online_accuracy_drop_p_value{model="signs"} 1e-05
mapsto_learner_lag_rows{model="signs"} 25.0
mapsto_learner_lag_seconds{model="signs"} 30.0
"""


class Asking(Client):
    """A client of a service in this process."""

    def __init__(self, service: InProcess, key: str) -> None:
        super().__init__("http://127.0.0.1:1", key)
        self._service, self._own = service, key

    def _sent(self, path: str, content: bytes | None) -> bytes:
        answer = self._service.ask(path, content, key=self._own)
        if answer.status >= 400:
            raise ServiceError(answer.json()["error"], status=answer.status, where="the service")
        return answer.body


@pytest.fixture
def service(tmp_path: Path) -> Iterator[InProcess]:
    with started(tmp_path) as found:
        yield found


def studio_of(client: Client) -> TestClient:
    return TestClient(
        application(Studio(folders=None, services=Services(client=lambda request: client, where="there")))
    )


def adapted(service: InProcess) -> str:
    """A version beside the package."""
    key = service.key(scopes=["adapt", "admin"])
    rows = {"name": "input", "datatype": "FP32", "shape": [4, 3], "data": [5, 0, 0, 4, 0, 0, -5, 0, 0, -4, 0, 0]}
    body = {"inputs": [rows], "parameters": {"labels": ["up", "up", "down", "down"], "shared": True}}
    answer = service.ask("/v2/models/signs/adapt", body, key=key)
    assert answer.status == 200, answer.body
    return answer.json()["model_version"]


def token_of(page: str) -> str:
    found = re.search(r'name="form_token" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def test_versions_are_promoted_and_rolled_back_by_forms(service: InProcess) -> None:
    version = adapted(service)
    with studio_of(Asking(service, service.key(scopes=["predict", "learn", "admin"]))) as studio:
        assert studio.get("/", follow_redirects=False).headers["location"] == "/service"
        page = studio.get("/service/signs")
        assert f"Promote version {version}" in page.text
        fields = {"form_token": token_of(page.text), "version": version}
        done = studio.post("/service/signs/promote", data=fields)
        assert done.status_code == 200
        assert f"Version {version} answers now." in text_of(done.text)
        assert service.service.active("signs") == version
        back = studio.post("/service/signs/rollback", data={"form_token": fields["form_token"]})
        assert "Version 1 answers again." in text_of(back.text)
        assert service.service.active("signs") == "1"


def test_a_form_is_taken_from_a_page_of_the_studio_alone(service: InProcess) -> None:
    version = adapted(service)
    client = Asking(service, service.key(scopes=["predict", "admin"]))
    with studio_of(client) as studio, studio_of(client) as other:
        token = token_of(studio.get("/service/signs").text)
        foreign = token_of(other.get("/service/signs").text)
        for fields, headers in (
            ({}, {}),
            ({"form_token": ""}, {}),
            ({"form_token": foreign}, {}),
            ({"form_token": token}, {"sec-fetch-site": "cross-site"}),
            ({"form_token": token}, {"cookie": "mapsto_studio_form=mine"}),
        ):
            answer = studio.post("/service/signs/promote", data=fields | {"version": version}, headers=headers)
            assert answer.status_code == 403, (fields, headers)
        assert studio.post("/service/signs/promote", content=b"x" * 100_000).status_code == 422
        assert studio.post("/service/signs/promote", content=b"\xff").status_code == 422
        assert studio.get("/service/signs/promote").status_code == 405
    assert service.service.active("signs") == "1"


def test_a_key_sees_what_it_may(service: InProcess) -> None:
    version = adapted(service)
    with studio_of(Asking(service, service.key(scopes=["predict"]))) as studio:
        overview = text_of(studio.get("/service").text)
        assert "Not shown: this key may predict; the request needs 'metrics' or 'admin'" in overview
        page = studio.get("/service/signs").text
        refused = studio.post("/service/signs/promote", data={"form_token": token_of(page), "version": version})
    assert refused.status_code == 403
    assert "needs 'admin'" in text_of(refused.text)
    assert "mapsto keys make" in text_of(refused.text)


def test_what_the_service_refuses_is_said(service: InProcess) -> None:
    with studio_of(Asking(service, service.key(scopes=["predict", "admin"]))) as studio:
        missing = studio.get("/service/sings")
        token = token_of(studio.get("/service/signs").text)
        unknown = studio.post("/service/signs/promote", data={"form_token": token, "version": "a-nothing"})
    assert missing.status_code == 404
    assert "Did you mean 'signs'?" in text_of(missing.text)
    assert unknown.status_code == 404
    assert "a-nothing" in text_of(unknown.text)
    with studio_of(Asking(service, "mapsto_unknown")) as studio:
        assert studio.get("/service").status_code == 401


def test_a_service_that_does_not_answer_is_said() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        client = Client(f"http://127.0.0.1:{nobody.getsockname()[1]}", "mapsto_key", tries=1, seconds=2)
        with studio_of(client) as studio:
            answer = studio.get("/service")
    assert answer.status_code == 502
    assert "cannot be reached" in text_of(answer.text)


def test_load_and_alerts_are_read_from_metrics() -> None:
    found = Samples(METRICS)
    (load,) = loads(["signs"], found)
    assert (load.requests, load.failed, load.refused, load.waiting) == (100, 10, 1, 5)
    assert load.p50 == pytest.approx(0.001)
    assert load.p99 == pytest.approx(1.9)
    said = alerts(["signs"], found, Thresholds(), now=0.0)
    assert {each.name for each in said} == {"MapstoErrors", "MapstoLatency", "MapstoInputDrift", "MapstoAccuracyDrop"}
    assert said[0].name == "MapstoErrors"
    assert said[0].critical
    assert alerts(
        ["signs"], found, Thresholds(errors=20, p99=3, drift=1e-7, accuracy_drop=50, learner_lag=10), now=0.0
    ) == [("MapstoLearnerBehind", "signs", "labels have waited 30 s to be learnt", False)]


def test_alerts_are_those_of_the_manual() -> None:
    from mapsto.service import monitoring

    text = Path(monitoring.__file__).read_text("utf-8")
    own = set(re.findall(r'Alert\(\s*"(\w+)"', Path(alerts.__code__.co_filename).read_text("utf-8")))
    assert len(own) >= 10
    assert all(f'"{name}"' in text for name in own)


def test_a_page_of_load_by_a_key_for_metrics_alone(service: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Asking(service, service.key(scopes=["metrics"]))
    info = 'mapsto_version_info{kind="package",model="signs",package="p",version="1"} 1.0\n'
    monkeypatch.setattr(client, "metrics", lambda: METRICS + info)
    with studio_of(client) as studio:
        said = text_of(studio.get("/service").text)
    assert "MapstoErrors signs : 10 % of the requests failed" in said
    assert "signs 100 – 10 1 1 ms 1.9 s 5" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--service", "http://127.0.0.1:1"], "a service is asked with a key"),
        (["--service", "127.0.0.1:1", "--key", "mapsto_k"], "is no address"),
    ],
)
def test_a_service_without_a_key_or_an_address_is_refused(tmp_path: Path, options: list[str], said: str) -> None:
    assert said in mapsto("studio", tmp_path, *options, code=2).err

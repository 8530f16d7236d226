"""`mapsto serve` over HTTP, with real clients: the protocol, adapting, feedback that is learnt from, and how it ends."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from mapsto.service.state import State
from tests.cli.packages import linear_package
from tests.service.served import Served, serving, until

CLASSES = ("low", "high")
WRONG = [[1.0, 0, 0], [-1, 0, 0]]
"""It answers 'low' where the first number is above 0, and the feedback says that this is wrong."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    linear_package(folder / "signs", WRONG, CLASSES)
    with serving(folder / "signs", "--admin", folder=folder) as served:
        yield served


def test_the_protocol_tells_what_is_served(service: Served) -> None:
    status, server = service.call("/v2")
    assert (status, server["name"]) == (200, "mapsto")
    assert "binary_tensor_data" in server["extensions"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/signs/ready", "/v2/models/signs/versions/1/ready"):
        assert service.call(path)[0] == 200, path
    status, model = service.call("/v2/models/signs")
    assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3]}]
    assert model["outputs"] == [
        {"name": "output", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
    ]
    assert service.call("/v2/models/none") == (404, {"error": "there is no model 'none'; the models are signs"})


def test_it_answers_rows(service: Served) -> None:
    found = service.infer("signs", [[2, 0, 0], [-3, 0, 0]], id="mine")
    assert (found["model_name"], found["id"]) == ("signs", "mine")
    scores, labels = found["outputs"]
    assert scores["data"] == [2, -2, -3, 3]
    assert labels["data"] == ["low", "high"]


def test_the_client_of_triton_is_answered_in_json_and_in_bytes(service: Served) -> None:
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(service.url.removeprefix("http://"))
    headers = {"Authorization": f"Bearer {service.key}"}
    assert client.is_server_live(headers=headers)
    assert client.is_server_ready(headers=headers)
    assert client.is_model_ready("signs", headers=headers)
    assert client.get_model_metadata("signs", headers=headers)["name"] == "signs"
    rows = np.array([[2, 0, 0], [-3, 0, 0]], np.float32)
    for binary in (False, True):
        for compressed in (None, "gzip", "deflate"):
            given = http.InferInput("input", [2, 3], "FP32")
            given.set_data_from_numpy(rows, binary_data=binary)
            wanted = [http.InferRequestedOutput(name, binary_data=binary) for name in ("output", "label")]
            found = client.infer(
                "signs",
                [given],
                outputs=wanted,
                headers=dict(headers),
                request_id="7",
                request_compression_algorithm=compressed,
            )
            np.testing.assert_array_equal(found.as_numpy("output"), [[2, -2], [-3, 3]])
            assert [each.decode() if isinstance(each, bytes) else each for each in found.as_numpy("label")] == [
                "low",
                "high",
            ]
            assert found.get_response()["id"] == "7"
    with pytest.raises(http.InferenceServerException, match="no output nothing"):
        client.infer("signs", [given], outputs=[http.InferRequestedOutput("nothing")], headers=headers)
    client.close()


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v2/models/signs/infer", b"{", 400, "no inference request"),
        (
            "/v2/models/none/infer",
            b'{"inputs":[{"name":"input","shape":[1],"datatype":"FP32","data":[1]}]}',
            404,
            "no model",
        ),
        (
            "/v2/models/signs/versions/9/infer",
            b'{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}',
            404,
            "no version",
        ),
        (
            "/v2/models/signs/infer",
            b'{"inputs":[{"name":"input","shape":[1,2],"datatype":"FP32","data":[1,2]}]}',
            400,
            r"the shape [-1, 3]",
        ),
        (
            "/v2/models/signs/infer",
            b'{"inputs":[{"name":"y","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}',
            400,
            "the model takes 'input'",
        ),
        ("/v2/nothing", None, 404, "Not Found"),
        ("/v2/models/signs/feedback", b"{}", 400, "no feedback"),
        ("/v2/models/signs/feedback", b'{"label": "a"}', 400, "give the request_id"),
        ("/v2/models/signs/feedback", b'{"label": "a", "request_id": "00"}', 404, "no request of yours"),
        (
            "/v2/models/signs/adapt",
            b'{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}',
            400,
            "an input 'label'",
        ),
    ],
)
def test_what_is_wrong_is_said_in_the_protocols_form(
    service: Served, path: str, body: Any, status: int, said: str
) -> None:
    found, tree = service.call(path, body)
    assert (found, list(tree)) == (status, ["error"])
    assert said in tree["error"]


def test_a_few_examples_become_a_version(service: Served) -> None:
    rows, labels = [[0, 1, 0], [0, 2, 0], [0, 0, 1], [0, 0, 2]], ["y", "y", "z", "z"]
    inputs = [
        {"name": "input", "datatype": "FP32", "shape": [4, 3], "data": rows},
        {"name": "label", "datatype": "BYTES", "shape": [4], "data": labels},
    ]
    status, made = service.call("/v2/models/signs/adapt", {"inputs": inputs})
    assert (status, made["classes"], made["examples"], made["shared"]) == (200, ["y", "z"], 4, False)
    item = {"name": "input", "datatype": "FP32", "shape": [2, 3], "data": [[0, 5, 0], [0, 0, 5]]}
    status, found = service.call(f"/v2/models/signs/versions/{made['model_version']}/infer", {"inputs": [item]})
    assert found["outputs"][1]["data"] == ["y", "z"]
    assert found["model_version"] == made["model_version"]
    listed = service.call("/v2/models/signs/versions")[1]
    assert made["model_version"] in [each["version"] for each in listed["versions"]]
    assert service.call(f"/v2/models/signs/versions/{made['model_version']}/promote", b"")[0] == 409, "it is private"


def test_feedback_becomes_a_version_that_answers_better(service: Served) -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):  # a fifth of them is held back, by chance: ten at least decide
        row = rng.normal(size=3).round(3).tolist()
        found = service.infer("signs", [row])
        label = CLASSES[int(row[0] > 0)]
        body = {"request_id": found["parameters"]["request_id"], "label": label}
        status, said = service.call("/v2/models/signs/feedback", body)
        assert (status, said["feedback"][0]["stored"]) == (200, True)
        assert service.call("/v2/models/signs/feedback", body)[1] == said, "it may be sent again"
        other = service.call("/v2/models/signs/feedback", body | {"label": "another"})[1]["feedback"][0]
        assert (other["stored"], other["reason"]) == (False, "it has another label already")
    end = time.monotonic() + 60
    while service.call("/v2/models/signs/versions")[1]["active"] == "1" and time.monotonic() < end:
        time.sleep(0.2)
    found = service.infer("signs", [[2, 0, 0], [-3, 0, 0]])
    assert found["model_version"].startswith("l-")
    assert found["outputs"][1]["data"] == ["high", "low"]
    status, back = service.call("/v2/models/signs/rollback", b"")
    assert (status, back["active"]) == (200, "1")
    assert service.infer("signs", [[2, 0, 0]])["outputs"][1]["data"] == ["low"]


def test_without_a_key_nothing_is_told_but_health(service: Served) -> None:
    for path in ("/v2", "/v2/models/signs", "/v2/models/signs/versions", "/metrics", "/v2/models/signs/learner"):
        for key in ("", "mapsto_wrong"):
            status, found = service.call(path, key=key)
            assert (status, list(found)) == (401, ["error"]), path
    assert service.call("/v2/models/signs/infer", b"{}", key="")[0] == 401
    assert service.call("/v2/health/ready", key="")[0] == 200


@pytest.mark.slow
def test_the_lines_for_curl_work(service: Served) -> None:
    lines = [line for line in service.said if line.startswith("curl")]
    assert len(lines) == 3
    for line in lines:
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        assert '"error"' not in done.stdout, done.stdout


def test_it_ends_with_0_and_what_was_begun_is_answered(tmp_path: Path) -> None:
    linear_package(tmp_path / "signs", WRONG, CLASSES)
    with serving(tmp_path / "signs", "--learn", "none", folder=tmp_path) as served:
        host, port = served.url.removeprefix("http://").split(":")
        half = socket.create_connection((host, int(port)))
        half.sendall(b"POST /v2/models/signs/infer HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000\r\n\r\n{")
        served.infer("signs", [[1, 2, 3]])
        assert served.end() == 0
        half.close()


@pytest.mark.slow
def test_all_processes_end_with_the_supervisor_and_so_does_the_key_of_the_run(tmp_path: Path) -> None:
    linear_package(tmp_path / "signs", WRONG, CLASSES)
    with serving(tmp_path / "signs", "--workers", 2, folder=tmp_path) as served:
        children = psutil.Process(served.process.pid).children(recursive=True)
        modules = sorted(part for child in children for part in child.cmdline() if part.startswith("mapsto.service."))
        assert modules == [f"mapsto.service.{name}" for name in ("fitter", "learner", "worker", "worker", "writer")]
        key = served.key
        served.process.kill()
        _, left = psutil.wait_procs(children, timeout=20)
        assert left == []
    (tmp_path / "serve.log").unlink()
    with serving(tmp_path / "signs", folder=tmp_path) as served:
        assert served.call("/v2/models/signs", key=key)[0] == 401
        assert served.call("/v2/models/signs")[0] == 200


@pytest.mark.slow
def test_what_was_acknowledged_outlives_kills_of_every_process(tmp_path: Path) -> None:
    """Kills of workers, the writer and the learner under load, SIGKILL each: every label that was acknowledged is there, once."""
    linear_package(tmp_path / "signs", WRONG, CLASSES)
    state = tmp_path / "state.sqlite"
    acknowledged: list[str] = []
    ended = threading.Event()

    def load(served: Served, number: int) -> None:
        rng = np.random.default_rng(number)
        while not ended.is_set():
            row = rng.normal(size=3).round(3).tolist()
            item = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [row]}
            event = f"{number}-{rng.integers(1 << 60)}"
            body = {"label": CLASSES[int(row[0] > 0)], "idempotency_key": event, "inputs": [item]}
            try:
                status, said = served.call("/v2/models/signs/feedback", body)
            except OSError:  # its worker was killed: nothing was acknowledged
                continue
            if status == 200:
                acknowledged.append(said["feedback"][0]["event"])

    with serving(tmp_path / "signs", "--workers", 2, folder=tmp_path) as served:
        threads = [threading.Thread(target=load, args=(served, number)) for number in range(3)]
        for thread in threads:
            thread.start()
        rng = np.random.default_rng(0)
        killed = 0
        while killed < 12:
            time.sleep(float(rng.uniform(0.5, 2.5)))
            children = psutil.Process(served.process.pid).children()
            victim = children[int(rng.integers(len(children)))]
            victim.kill()
            killed += 1
        time.sleep(3)
        ended.set()
        for thread in threads:
            thread.join()

        def is_ready() -> bool:
            try:
                return served.call("/v2/health/ready")[0] == 200
            except OSError:  # both workers are begun anew, one after the other the slower the more often they end
                return False

        until(is_ready)
        assert served.end() == 0
    held = State(state)
    stored: list[str] = []
    last = 0
    while rows := held.feedback("signs", after=last, most=1000):
        stored += [row.event for row in rows]
        last = rows[-1].position
    assert len(acknowledged) > 50
    assert len(set(stored)) == len(stored)
    assert set(acknowledged) <= set(stored)


@pytest.mark.slow
def test_a_package_that_breaks_is_refused_by_name_and_the_old_one_goes_on(tmp_path: Path) -> None:
    linear_package(tmp_path / "signs", WRONG, CLASSES)
    with serving(tmp_path / "signs", "--learn", "none", folder=tmp_path) as served:
        model = tmp_path / "signs" / "model.onnx"
        model.write_bytes(model.read_bytes()[:-10])
        served.process.send_signal(signal.SIGHUP)
        said_by = time.monotonic() + 30
        while "goes on as it was" not in (tmp_path / "serve.log").read_text() and time.monotonic() < said_by:
            time.sleep(0.1)
        assert "model 'signs' goes on as it was" in (tmp_path / "serve.log").read_text()
        assert served.infer("signs", [[2, 0, 0]])["outputs"][1]["data"] == ["low"]
        shutil.rmtree(tmp_path / "signs")
        linear_package(tmp_path / "signs", [[-1.0, 0, 0], [1, 0, 0]], CLASSES)
        served.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 30
        while served.infer("signs", [[2, 0, 0]])["outputs"][1]["data"] == ["low"] and time.monotonic() < end:
            time.sleep(0.1)
        assert served.infer("signs", [[2, 0, 0]])["outputs"][1]["data"] == ["high"]


def test_the_client_of_the_protocol_is_answered(service: Served) -> None:
    client_of = pytest.importorskip("open_inference.openapi.client").OpenInferenceClient
    types = pytest.importorskip("open_inference.openapi.types")
    import httpx

    with httpx.Client(headers={"Authorization": f"Bearer {service.key}"}) as http:
        client = client_of(base_url=service.url, httpx_client=http)
        client.check_server_liveness()
        client.check_server_readiness()
        client.check_model_readiness("signs")
        client.check_model_version_readiness("signs", "1")
        assert client.read_server_metadata().name == "mapsto"
        assert client.read_model_metadata("signs").inputs[0].shape == [-1, 3]
        request = types.InferenceRequest(
            id="7",
            inputs=[types.RequestInput(name="input", shape=[1, 3], datatype="FP32", data=[2.0, 0.0, 0.0])],
            outputs=[types.RequestOutput(name="label")],
        )
        found = client.model_version_infer("signs", "1", request=request)
        assert (found.id, [output.name for output in found.outputs]) == ("7", ["label"])


def test_the_routes_are_described_with_examples(service: Served) -> None:
    status, tree = service.call("/openapi.json")
    assert (status, tree["info"]["title"]) == (200, "mapsto")
    paths = tree["paths"]
    assert {"/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer", "/v2/models/{name}/adapt"} <= set(
        paths
    )
    for path in ("/v2/models/{name}/infer", "/v2/models/{name}/adapt", "/v2/models/{name}/feedback"):
        body = paths[path]["post"]["requestBody"]["content"]["application/json"]
        assert body["example"], path
    adapt, job = paths["/v2/models/{name}/adapt"]["post"], paths["/v2/models/{name}/jobs/{job}"]["get"]
    for status in ("200", "202", "429"):
        assert adapt["responses"][status]["content"]["application/json"]["example"], status
    assert job["responses"]["200"]["content"]["application/json"]["example"]["state"] == "done"
    assert service.call("/openapi.json", key="")[0] == 401

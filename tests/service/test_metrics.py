"""What the service tells Prometheus: right sums from several workers, bounded labels, and names by the rules."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from mapsto.service.batching import Batcher
from mapsto.service.keys import made
from mapsto.service.metrics import Metrics
from mapsto.service.monitoring import Monitor, files
from mapsto.service.state import State
from tests.cli.packages import linear_package
from tests.service.served import Served, serving

CLASSES = ("low", "high")


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Each sample by its name and its labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(text: str, name: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    return sum(
        value for (sample, own), value in values(text).items() if sample == name and set(labels.items()) <= set(own)
    )


def test_labels_are_bounded_whatever_clients_send() -> None:
    metrics = Metrics(["m"])
    for number in range(50):
        metrics.request("infer", f"x{number}", f"v{number}", 404, 0.01)
        metrics.request("infer", "m", f"v{number}", 404, 0.01)
        metrics.request("infer", "m", f"a-{number}", 200, 0.01)
    text = metrics.text().decode()
    own = [dict(labels) for (name, labels) in values(text) if name == "mapsto_requests_total"]
    assert {each["model"] for each in own} == {"m", "other"}
    assert {each["kind"] for each in own} == {"package", "learned", "adapted", "other", ""}
    assert len(own) < 20
    assert of(text, "mapsto_requests_total", model="m", kind="adapted", status="2xx") == 50
    assert of(text, "mapsto_refusals_total", reason="not_found") == 100


def test_a_busy_model_is_told_from_a_key_that_asks_too_often() -> None:
    batcher = Batcher(lambda samples: [samples], seconds=10.0, most_wait=0.1)
    metrics = Metrics(["m"])

    async def asked() -> list[Any]:
        deadline = time.perf_counter() + 60
        row = np.zeros((1, 1), np.float32)
        tasks = [batcher.submit(row, deadline=deadline) for _ in range(3)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    for refusal in asyncio.run(asked())[1:]:
        metrics.request("infer", "m", "", refusal.status, 0.01, refusal.reason)
    metrics.request("infer", "m", "", 429, 0.01)
    text = metrics.text().decode()
    assert of(text, "mapsto_refusals_total", reason="busy") == 2
    assert of(text, "mapsto_refusals_total", reason="rate") == 1


def test_refusals_below_the_application_are_counted() -> None:
    metrics = Metrics(["m"])
    for status in (400, 408, 431, 503, 503):
        metrics.closed(status)
    text = metrics.text().decode()
    found = {
        reason: of(text, "mapsto_refusals_total", reason=reason) for reason in ("too_slow", "headers", "connections")
    }
    assert found == {"too_slow": 1, "headers": 1, "connections": 2}
    assert of(text, "mapsto_requests_total") == 0, "they were requests to nobody"


def test_what_was_observed_is_counted_once() -> None:
    metrics = Metrics(["m"])
    observe = metrics.batch("m")
    for seconds in (0.0005, 0.003, 0.003, 100):
        metrics.request("infer", "m", "1", 200, seconds)
        observe(3, seconds, 0.0)
    for text in (metrics.text().decode(), metrics.text().decode()):
        assert of(text, "mapsto_requests_total") == 4
        assert of(text, "mapsto_request_duration_seconds_sum") == pytest.approx(100.0065)
        assert of(text, "mapsto_request_duration_seconds_bucket", le="0.0005") == 1
        assert of(text, "mapsto_request_duration_seconds_bucket", le="0.005") == 3
        assert of(text, "mapsto_request_duration_seconds_bucket", le="30.0") == 3
        assert of(text, "mapsto_request_duration_seconds_bucket", le="+Inf") == 4
        assert of(text, "mapsto_batch_samples_bucket", le="2.0") == 0
        assert of(text, "mapsto_batch_samples_bucket", le="4.0") == 4


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two workers."""
    folder = tmp_path_factory.mktemp("watched")
    linear_package(folder / "signs", [[-1.0, 0, 0], [1, 0, 0]], CLASSES)
    with serving(folder / "signs", "--admin", "--learn", "none", "--workers", "2", folder=folder) as served:
        yield served


def scraped(service: Served) -> str:
    time.sleep(1.3)  # each worker hands over what it counted once a second
    status, text = service.raw("/metrics")
    assert status == 200, text
    return text


def test_the_sums_of_two_workers(service: Served) -> None:
    rng = np.random.default_rng(0)
    for _ in range(11):
        service.infer("signs", rng.normal(size=(100, 3)).tolist())
    for place in range(40):
        row = rng.normal(size=3)
        found = service.infer("signs", [row.tolist()])
        right = CLASSES[int(row[0] > 0)] if place % 4 else "other"
        body = {"request_id": found["parameters"]["request_id"], "label": right}
        assert service.call("/v2/models/signs/feedback", body)[0] == 200
    assert service.call("/v2/models/nothing/infer", b"{}")[0] == 400
    text = scraped(service)
    assert of(text, "mapsto_requests_total", model="signs", route="infer", kind="package", status="2xx") == 51
    assert of(text, "mapsto_request_duration_seconds_count", model="signs", route="infer") == 51
    assert of(text, "mapsto_batch_samples_sum", model="signs") == 11 * 100 + 40
    assert of(text, "mapsto_refusals_total", model="other", reason="invalid") == 1
    assert of(text, "mapsto_feedback_labels_total", model="signs", result="stored") == 40
    assert of(text, "mapsto_online_accuracy_ratio", model="signs") == 0.75
    assert ("mapsto_learner_lag_rows", (("model", "signs"),)) not in values(text), "nothing is to be learnt"
    assert of(text, "mapsto_version_info", model="signs", version="1", kind="package") == 1
    assert of(text, "mapsto_keys", status="valid") == 0, "the key of the run is not stored"
    made(State(service.folder / "state.sqlite"), name="stored")
    assert of(scraped(service), "mapsto_keys", status="valid") == 1
    assert of(text, "mapsto_ready") == of(text, "mapsto_state_up") == 1
    count = of(text, "mapsto_confidence_ratio_count", model="signs", kind="package")
    assert count == of(text, "mapsto_confidence_ratio_bucket", model="signs", le="1.0") > 0
    assert 0.5 < of(text, "mapsto_confidence_ratio_sum", model="signs") / count < 1.0
    assert of(text, "mapsto_confidence_ratio_bucket", model="signs", le="0.4") == 0, (
        "of two classes one has a half or more"
    )
    assert of(text, "mapsto_input_drift_reference_samples", model="signs") == 500


def test_shifted_inputs_are_a_drift(service: Served) -> None:
    rng = np.random.default_rng(1)
    names = [("mapsto_input_drift", (("model", "signs"),))]
    for shift, drifted in ((0.0, 0.0), (2.0, 1.0)):
        for _ in range(5):
            service.infer("signs", rng.normal([0, shift, 0], size=(100, 3)).tolist())
        found = values(scraped(service))
        assert [found[name] for name in names] == [drifted]
    chances = {dict(labels)["statistic"]: value for (name, labels), value in found.items() if name.endswith("p_value")}
    assert chances["confidence"] > 0.001, "the class does not depend on what shifted"


def test_names_are_by_the_rules(service: Served) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    text = scraped(service)
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_alarms_and_the_dashboard_name_metrics_that_there_are(service: Served) -> None:
    text = scraped(service)
    there = {name for name, _ in values(text)}
    there |= {family.name for family in text_string_to_metric_families(text)}  # without a value at the moment
    made = files(Monitor())
    rules = yaml.safe_load(made["alerts.yml"])["groups"][0]["rules"]
    shown = [target["expr"] for panel in json.loads(made["dashboard.json"])["panels"] for target in panel["targets"]]
    named = {name for text in [rule["expr"] for rule in rules] + shown for name in re.findall(r"mapsto_\w+", text)}
    assert len(named) > 15
    assert named <= there


def test_a_key_of_the_scope_metrics_reads_them_and_nothing_else(service: Served, tmp_path_factory: Any) -> None:
    state = State(service.folder / "state.sqlite")
    _, key = made(state, name="prometheus", scopes=["metrics"])
    _, other = made(state, name="client", scopes=["predict"])
    state.close()
    time.sleep(0.6)
    assert service.raw("/metrics", key=key)[0] == 200
    assert service.call("/v2/models/signs", key=key)[0] == 403
    assert service.call("/metrics", key=other)[0] == 403


@pytest.mark.slow
def test_what_a_killed_worker_counted_stays_in_the_sums(tmp_path: Path) -> None:
    linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], CLASSES)
    with serving(tmp_path / "signs", "--admin", "--learn", "none", "--workers", "2", folder=tmp_path) as served:
        for _ in range(40):
            served.infer("signs", [[1, 2, 3]])
        before = of(scraped(served), "mapsto_requests_total", route="infer")
        own = subprocess.run(
            ["pgrep", "-f", "mapsto.service.worker", "-P", str(served.process.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        subprocess.run(["kill", "-9", own.stdout.split()[0]], check=True)
        end = time.monotonic() + 60
        while "is started again" not in (tmp_path / "serve.log").read_text() and time.monotonic() < end:
            time.sleep(0.1)
        served.infer("signs", [[1, 2, 3]])
        text = scraped(served)
        assert (before, of(text, "mapsto_requests_total", route="infer")) == (40, 41)
        assert of(text, "mapsto_queue_samples") == 0

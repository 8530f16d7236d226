"""`mapsto monitor init`: files that Prometheus, Alertmanager and Grafana take."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mapsto.service.monitoring import Monitor, Thresholds, files
from mapsto.service.state import State
from tests.cli.packages import linear_package
from tests.command import mapsto


def tool(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed (Debian: prometheus, prometheus-alertmanager)")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in files(Monitor(webhook="http://127.0.0.1:9/alarms", interval=0.5, window=4)).items():
        (tmp_path / name).write_text(content)
    (tmp_path / "key").write_text("k")
    return tmp_path


def test_prometheus_and_alertmanager_take_their_files(folder: Path) -> None:
    assert "SUCCESS: 13 rules found" in tool("promtool", "check", "config", str(folder / "prometheus.yml"))
    assert "SUCCESS" in tool("amtool", "check-config", str(folder / "alertmanager.yml"))


RULES = [
    # alert, series over the minutes 0 to 20, labels of the alarm
    ("MapstoDown", {'up{job="mapsto", instance="i"}': "0x20"}, {"instance": "i"}),
    ("MapstoStateUnreachable", {'mapsto_state_up{job="mapsto", instance="i"}': "0x20"}, {"instance": "i"}),
    (
        "MapstoBusy",
        {
            'mapsto_refusals_total{job="mapsto", model="m", route="infer", reason="busy"}': "0+3x20",
            'mapsto_requests_total{job="mapsto", model="m", route="infer", status="4xx"}': "0+3x20",
            'mapsto_requests_total{job="mapsto", model="m", route="infer", status="2xx"}': "0+97x20",
        },
        {"model": "m"},
    ),
    (
        "MapstoOverload",
        {
            'mapsto_refusals_total{job="mapsto", instance="i", model="other", route="other", reason="overload"}': "0+3x20",
            'mapsto_requests_total{job="mapsto", instance="i", model="m", route="infer", status="2xx"}': "0+97x20",
        },
        {"instance": "i"},
    ),
    (
        "MapstoLearnerBehind",
        {
            'mapsto_learner_lag_seconds{job="mapsto", model="m"}': "0+60x20",
            'mapsto_learner_lag_rows{job="mapsto", model="m"}': "25x20",
        },
        {"model": "m"},
    ),
    (
        "MapstoFeedbackNotStored",
        {'mapsto_refusals_total{job="mapsto", model="m", route="feedback", reason="unavailable"}': "0+1x20"},
        {"model": "m", "route": "feedback", "reason": "unavailable"},
    ),
    ("MapstoKeyEnds", {'mapsto_key_next_expiry_timestamp_seconds{job="mapsto"}': "500000x20"}, {}),
]
QUIET: list[tuple[str, dict[str, str]]] = [
    (
        "MapstoLearnerBehind",  # too few labels for a version
        {
            'mapsto_learner_lag_seconds{job="mapsto", model="m"}': "0+60x20",
            'mapsto_learner_lag_rows{job="mapsto", model="m"}': "5x20",
        },
    ),
    (
        "MapstoErrors",  # the clients' own mistakes
        {
            'mapsto_requests_total{job="mapsto", model="m", status="4xx"}': "0+50x20",
            'mapsto_requests_total{job="mapsto", model="m", status="5xx"}': "0x20",
        },
    ),
    (
        "MapstoAccuracyDrop",  # a drop that chance explains
        {
            'mapsto_online_accuracy_before_ratio{job="mapsto", model="m"}': "0.9x20",
            'mapsto_online_accuracy_ratio{job="mapsto", model="m"}': "0.7x20",
            'mapsto_online_accuracy_drop_p_value{job="mapsto", model="m"}': "0.02x20",
        },
    ),
]


def test_alarms_are_for_what_they_say(folder: Path) -> None:
    def case(series: dict[str, str], alert: str, labels: dict[str, str] | None) -> dict[str, Any]:
        severities = {
            rule["alert"]: rule["labels"]["severity"]
            for rule in yaml.safe_load((folder / "alerts.yml").read_text())["groups"][0]["rules"]
        }
        own: Any = {"job": "mapsto"} if alert not in ("MapstoBusy", "MapstoErrors", "MapstoOverload") else {}
        expected = [] if labels is None else [{"exp_labels": {"severity": severities[alert], **own, **labels}}]
        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [{"eval_time": "18m", "alertname": alert, "exp_alerts": expected}],
        }

    (folder / "alerts.yml").write_text(files(Monitor())["alerts.yml"].replace("annotations:", "x:"))
    rules = yaml.safe_load((folder / "alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        del rule["x"]  # what is said is for people
    (folder / "alerts.yml").write_text(yaml.safe_dump(rules))
    tests = [case(series, alert, labels) for alert, series, labels in RULES]
    tests += [case(series, alert, None) for alert, series in QUIET]
    tree = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "tests.yml").write_text(yaml.safe_dump(tree))
    assert "SUCCESS" in tool("promtool", "test", "rules", str(folder / "tests.yml"))


def test_the_dashboard_is_one_of_grafana() -> None:
    board = json.loads(files(Monitor(thresholds=Thresholds(p99=0.3)))["dashboard.json"])
    assert (board["uid"], board["schemaVersion"], bool(board["title"])) == ("mapsto-service", 39, True)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) == 16
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + 8)}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["type"] == "timeseries"
        assert panel["targets"]
        assert all(target["expr"] and target["refId"] and target["datasource"] for target in panel["targets"])
    (latency,) = [panel for panel in board["panels"] if panel["title"] == "Latency of inference"]
    assert latency["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"] == 0.3


def test_a_folder_with_a_key_of_its_own(tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite"
    command = ["monitor", "init", str(tmp_path / "watch"), "--state", str(state), "--errors", "5"]
    mapsto(*command, code=0)
    key = tmp_path / "watch" / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    (row,) = State(state).all_keys()
    assert row["scopes"] == "metrics"
    assert "> 5.0" in (tmp_path / "watch" / "alerts.yml").read_text()
    said = mapsto(*command, code=2)
    assert "holds prometheus.yml already; give another folder, or --force" in said.err
    before = key.read_text()
    mapsto(*command, "--force", code=0)
    assert (key.read_text(), len(State(state).all_keys())) == (before, 1)


def test_limits_come_from_the_recipe_of_the_run_and_what_is_typed_goes_first(tmp_path: Path) -> None:
    linear_package(tmp_path / "run" / "package", [[1.0], [-1]], ("a", "b"))
    (tmp_path / "run" / "recipe.yaml").write_text("serve: {alerts: {errors: 7, p99: 0.125, key_days: 3}}")
    mapsto("monitor", "init", tmp_path / "watch", tmp_path / "run", "--errors", "1.0", code=0)
    rules = yaml.safe_load((tmp_path / "watch" / "alerts.yml").read_text())["groups"][0]["rules"]
    limits = {rule["alert"]: rule["expr"].rpartition(" ")[2] for rule in rules}
    assert (limits["MapstoErrors"], limits["MapstoLatency"], limits["MapstoQueue"]) == ("1.0", "0.125", "0.25")
    assert limits["MapstoKeyEnds"] == str(3.0 * 86_400)


def test_a_service_with_tls_is_watched_by_its_certificates(tmp_path: Path) -> None:
    for name in ("ca.pem", "own.pem", "own.key"):
        (tmp_path / name).touch()
    given = {"--ca": "ca.pem", "--client-cert": "own.pem", "--client-key": "own.key"}
    options = [part for option, name in given.items() for part in (option, str(tmp_path / name))]
    mapsto("monitor", "init", tmp_path / "watch", "--url", "https://127.0.0.1:8443", *options, code=0)
    (job,) = yaml.safe_load((tmp_path / "watch" / "prometheus.yml").read_text())["scrape_configs"]
    names = dict(zip(("ca_file", "cert_file", "key_file"), given.values(), strict=True))
    assert job["tls_config"] == {name: str(tmp_path / place) for name, place in names.items()}
    assert job["scheme"] == "https"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--url", "localhost:8080"], "'localhost:8080' is no address of a service"),
        (["--webhook", "alarms"], "'alarms' is no address"),
        (["--ca", "ca.pem"], "there is no TLS at 'http://127.0.0.1:8080'"),
        (["--url", "https://a:1", "--ca", "no.pem"], "there is no file"),
        (["--url", "https://a:1", "--client-cert", "no.pem"], "a certificate and its key go together"),
        (["--interval", "60", "--window", "120"], "120 s hold fewer than four looks of 60 s"),
    ],
)
def test_what_cannot_be_watched_is_refused(tmp_path: Path, given: list[str], said: str) -> None:
    assert said in mapsto("monitor", "init", str(tmp_path / "watch"), *given, code=2).err
    assert not (tmp_path / "watch").exists()

"""What Prometheus, Alertmanager and Grafana need to watch a service: their configurations as files of a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from mapsto.errors import SpecError, command
from mapsto.recipe.serving import Thresholds

__all__ = ["KEY", "Monitor", "Thresholds", "files"]

KEY = "key"
"""The file that holds the key with which metrics are read."""
_OF = 'job="mapsto"'
_DAY = 86_400
_VALUE = '{{ $value | printf "%.3g" }}'
"""What stands for VALUE in the texts of alarms."""


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """How a service is watched."""

    url: str = "http://127.0.0.1:8080"
    alertmanager: str = "127.0.0.1:9093"
    """Its address, host:port."""
    webhook: str = ""
    """Where alerts are sent to; empty: they are only shown."""
    ca: str = ""
    """A file in PEM: of whom the service has its certificate; empty: of whom the system trusts."""
    client_cert: str = ""
    """A file in PEM: the certificate that the service asks of its clients; empty: it asks none."""
    client_key: str = ""
    """The private key of `client_cert`."""
    interval: float = 15.0
    """Seconds between two scrapes."""
    window: float = 300.0
    """Seconds over which rates are taken."""
    hold: float = 120.0
    """Seconds for which a condition holds before it alarms."""
    thresholds: Thresholds = field(default_factory=Thresholds)


def files(monitor: Monitor) -> dict[str, str]:
    """The files by name, without the key. Raises `SpecError` for an address that is none."""
    rules = {"groups": [{"name": "mapsto", "rules": _alerts(monitor)}]}
    return {
        "prometheus.yml": _yaml(_prometheus(monitor), "Prometheus reads the metrics of a service."),
        "alerts.yml": _yaml(rules, "What is an alarm."),
        "alertmanager.yml": _yaml(_alertmanager(monitor), "Where alarms go."),
        "dashboard.json": json.dumps(_dashboard(monitor), indent=2) + "\n",
        "README.md": _README.format(alertmanager=monitor.alertmanager, port=monitor.alertmanager.rpartition(":")[2]),
    }


_README = """# A service, watched

    prometheus --config.file=prometheus.yml --storage.tsdb.path=data --web.listen-address=127.0.0.1:9090
    prometheus-alertmanager --config.file=alertmanager.yml --storage.path=data-alerts \\
        --web.listen-address={alertmanager} --cluster.listen-address=

(Debian: `apt install prometheus prometheus-alertmanager`; elsewhere Alertmanager's program is called `alertmanager`.) Start both in this
folder. Alarms are listed at http://127.0.0.1:9090/alerts and sent by Alertmanager, http://{alertmanager}.

- `key` holds a key of the service with the scope `metrics`, readable by you alone: let Prometheus run as you, or give the file to its user.
- `prometheus.yml` names the service, `alerts.yml` what is an alarm, `alertmanager.yml` where it goes. Check changes with
  `promtool check config prometheus.yml` and `amtool check-config alertmanager.yml`.
- `dashboard.json` is for Grafana: Dashboards, New, Import; choose your Prometheus as its data source.

What each alarm means and what to do is in mapsto's manual, "Watch a service".
"""


def _yaml(tree: Any, title: str) -> str:
    return f"# {title} Made by `{command('mapsto monitor init')}`.\n{yaml.safe_dump(tree, sort_keys=False, width=160)}"


def _prometheus(monitor: Monitor) -> dict[str, Any]:
    parts = urlsplit(monitor.url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.username:
        raise SpecError(
            f"'{monitor.url}' is no address of a service", where="--url", hint="give http://HOST:PORT or https://HOST"
        )
    return {
        "global": {
            "scrape_interval": _duration(monitor.interval),
            "scrape_timeout": _duration(min(10.0, monitor.interval)),
            "evaluation_interval": _duration(monitor.interval),
        },
        "rule_files": ["alerts.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [monitor.alertmanager]}]}]},
        "scrape_configs": [
            {
                "job_name": "mapsto",
                "scheme": parts.scheme,
                "metrics_path": f"{parts.path.rstrip('/')}/metrics",
                "authorization": {"type": "Bearer", "credentials_file": KEY},
                "static_configs": [{"targets": [parts.netloc]}],
                **_tls(monitor, parts.scheme),
            }
        ],
    }


def _tls(monitor: Monitor, scheme: str) -> dict[str, Any]:
    given = {"ca_file": monitor.ca, "cert_file": monitor.client_cert, "key_file": monitor.client_key}
    options = dict(zip(given, ("--ca", "--client-cert", "--client-key"), strict=True))
    named = {name: str(Path(place).absolute()) for name, place in given.items() if place}
    if named and scheme != "https":
        raise SpecError(
            f"there is no TLS at '{monitor.url}'", where=options[next(iter(named))], hint="give --url https://HOST:PORT"
        )
    if ("cert_file" in named) != ("key_file" in named):
        raise SpecError("a certificate and its key go together", where="--client-cert", hint="give --client-key too")
    for name, place in named.items():
        if not Path(place).is_file():
            raise SpecError(f"there is no file {place}", where=options[name], hint="give a file in PEM")
    return {"tls_config": named} if named else {}


def _alertmanager(monitor: Monitor) -> dict[str, Any]:
    receiver: dict[str, Any] = {"name": "operators"}
    if monitor.webhook:
        if urlsplit(monitor.webhook).scheme not in ("http", "https"):
            raise SpecError(f"'{monitor.webhook}' is no address", where="--webhook", hint="give http://… or https://…")
        receiver["webhook_configs"] = [{"url": monitor.webhook, "send_resolved": True}]
    return {
        "route": {
            "receiver": "operators",
            "group_by": ["alertname", "model"],
            "group_wait": _duration(2 * monitor.interval),
            "group_interval": _duration(4 * monitor.interval),
            "repeat_interval": _duration(max(4 * 3600.0, 4 * monitor.interval)),
        },
        "receivers": [receiver],
        # while a service is down, what it said last is no news
        "inhibit_rules": [
            {
                "source_matchers": ["alertname = MapstoDown"],
                "target_matchers": ["alertname =~ Mapsto.+", "alertname != MapstoDown"],
                "equal": ["instance"],
            }
        ],
    }


def _alerts(monitor: Monitor) -> list[dict[str, Any]]:
    limit, window = monitor.thresholds, _duration(monitor.window)

    def rate(metric: str, labels: str = "", by: str = "model") -> str:
        chosen = f"{_OF}, {labels}" if labels else _OF
        return f"sum by ({by}) (rate({metric}{{{chosen}}}[{window}]))"

    requests = "mapsto_requests_total"
    failed, refused = rate(requests, 'status="5xx"'), rate("mapsto_refusals_total", 'reason="busy"')
    share, busy = (f"100 * {part} / {rate(requests)}" for part in (failed, refused))
    p99, wait = (
        f"histogram_quantile(0.99, {rate(metric, labels, 'model, le')})"
        for metric, labels in (
            ("mapsto_request_duration_seconds_bucket", 'route="infer"'),
            ("mapsto_queue_wait_seconds_bucket", ""),
        )
    )
    unread = rate("mapsto_refusals_total", 'reason="overload"', "instance")
    flood = f"100 * {unread} / ({unread} + {rate(requests, by='instance')})"
    drop = f"100 * (mapsto_online_accuracy_before_ratio{{{_OF}}} - mapsto_online_accuracy_ratio{{{_OF}}})"
    lag = f"mapsto_learner_lag_seconds{{{_OF}}} > {limit.learner_lag} and mapsto_learner_lag_rows{{{_OF}}} >= 20"
    unstored = f'increase(mapsto_refusals_total{{{_OF}, route="feedback", reason="unavailable"}}[{window}]) > 0'
    rows = [
        ("MapstoDown", f"up{{{_OF}}} == 0", "critical", "The service gives no metrics"),
        ("MapstoNotReady", f"mapsto_ready{{{_OF}}} == 0", "critical", "The service is not ready"),
        ("MapstoStateUnreachable", f"mapsto_state_up{{{_OF}}} == 0", "critical", "The state cannot be read"),
        ("MapstoErrors", f"{share} > {limit.errors}", "critical", "VALUE % of the requests fail"),
        (
            "MapstoLatency",
            f"{p99} > {limit.p99}",
            "warning",
            "The slowest 1 % of the requests take VALUE s or more",
        ),
        ("MapstoQueue", f"{wait} > {limit.queue_wait}", "warning", "Requests wait VALUE s for the model"),
        (
            "MapstoBusy",
            f"{busy} > {limit.refused}",
            "warning",
            "VALUE % of the requests are refused: the model is busy",
        ),
        (
            "MapstoOverload",
            f"{flood} > {limit.refused}",
            "warning",
            "VALUE % of the requests are refused unread: more come than the service can answer",
        ),
        (
            "MapstoInputDrift",
            f"min by (model) (mapsto_input_drift_p_value{{{_OF}}}) < {limit.drift}",
            "warning",
            "Inputs are not as they were: p = VALUE",
        ),
        (
            "MapstoAccuracyDrop",
            f"{drop} > {limit.accuracy_drop} and mapsto_online_accuracy_drop_p_value{{{_OF}}} < 0.001",
            "warning",
            "Of the last 100 labels VALUE points fewer were answered right than before",
        ),
        ("MapstoLearnerBehind", lag, "warning", "Labels have waited VALUE s to be learnt"),
        ("MapstoFeedbackNotStored", unstored, "critical", "Labels were refused, for they could not be stored"),
        (
            "MapstoKeyEnds",
            f"mapsto_key_next_expiry_timestamp_seconds{{{_OF}}} - time() < {limit.key_days * _DAY}",
            "info",
            "A key ends within {{ $value | humanizeDuration }}",
        ),
    ]
    return [
        {
            "alert": name,
            "expr": expression,
            "for": _duration(monitor.hold),
            "labels": {"severity": severity},
            "annotations": {
                "summary": f"{text.replace('VALUE', _VALUE)}{{{{ with $labels.model }}}} (model {{{{ . }}}}){{{{ end }}}}.",
                "manual": f"Watch a service, {name}",
            },
        }
        for name, expression, severity, text in rows
    ]


def _dashboard(monitor: Monitor) -> dict[str, Any]:
    model, span = f'{_OF}, model=~"$model"', "[$__rate_interval]"

    def rate(metric: str, by: str, labels: str = "") -> str:
        return f"sum by ({by}) (rate({metric}{{{model}{labels}}}{span}))"

    def quantile(share: float, metric: str, labels: str = "") -> str:
        return f"histogram_quantile({share}, {rate(f'{metric}_bucket', 'model, le', labels)})"

    def mean(metric: str) -> str:
        return f"{rate(f'{metric}_sum', 'model')} / {rate(f'{metric}_count', 'model')}"

    def value(metric: str) -> str:
        return f"{metric}{{{model}}}"

    latency, infer = "mapsto_request_duration_seconds", ', route="infer"'
    panels: Sequence[tuple[str, str, Mapping[str, str]]] = [
        (
            "Requests",
            "reqps",
            {"{{model}} {{route}} {{status}}": rate("mapsto_requests_total", "model, route, status")},
        ),
        (
            "Latency of inference",
            "s",
            {f"{{{{model}}}} p{round(100 * share)}": quantile(share, latency, infer) for share in (0.5, 0.9, 0.99)},
        ),
        ("Refused", "reqps", {"{{model}} {{route}} {{reason}}": rate("mapsto_refusals_total", "model, route, reason")}),
        (
            "Wait in the queue",
            "s",
            {
                "{{model}} p99": quantile(0.99, "mapsto_queue_wait_seconds"),
                "{{model}} expected now": value("mapsto_queue_expected_wait_seconds"),
            },
        ),
        ("Samples that wait or run", "short", {"{{model}}": value("mapsto_queue_samples")}),
        ("Samples of a batch, mean", "short", {"{{model}}": mean("mapsto_batch_samples")}),
        ("Seconds of a batch, mean", "s", {"{{model}}": mean("mapsto_batch_duration_seconds")}),
        (
            "Confidence",
            "percentunit",
            {
                "{{model}} mean": mean("mapsto_confidence_ratio"),
                "{{model}} lowest tenth": quantile(0.1, "mapsto_confidence_ratio"),
            },
        ),
        (
            "Drift of inputs: p-values (an alarm below the line)",
            "short",
            {"{{model}} {{statistic}}": value("mapsto_input_drift_p_value")},
        ),
        (
            "Right answers by labels",
            "percentunit",
            {
                "{{model}} last 100": value("mapsto_online_accuracy_ratio"),
                "{{model}} before": value("mapsto_online_accuracy_before_ratio"),
                "{{model}} faded": value("mapsto_online_accuracy_faded_ratio"),
            },
        ),
        ("Labels", "short", {"{{model}} {{result}}": rate("mapsto_feedback_labels_total", "model, result")}),
        ("Labels not learnt yet", "short", {"{{model}}": value("mapsto_learner_lag_rows")}),
        ("Age of the first label not learnt", "s", {"{{model}}": value("mapsto_learner_lag_seconds")}),
        ("Version that answers", "short", {"{{model}} {{version}} ({{kind}})": value("mapsto_version_info")}),
        ("Labels that wait to be stored", "short", {"requests": f"mapsto_feedback_queue_requests{{{_OF}}}"}),
        ("Keys", "short", {"{{status}}": f"mapsto_keys{{{_OF}}}"}),
    ]
    limits = {
        "Latency of inference": monitor.thresholds.p99,
        "Wait in the queue": monitor.thresholds.queue_wait,
        "Drift of inputs: p-values (an alarm below the line)": monitor.thresholds.drift,
        "Age of the first label not learnt": monitor.thresholds.learner_lag,
    }
    return {
        "uid": "mapsto-service",
        "title": "mapsto: a service",
        "tags": ["mapsto"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                {
                    "name": "model",
                    "type": "query",
                    "label": "Model",
                    "datasource": _SOURCE,
                    "query": {"query": "label_values(mapsto_version_info, model)", "refId": "models"},
                    "includeAll": True,
                    "multi": True,
                    "refresh": 2,
                },
            ]
        },
        "panels": [
            _panel(number, title, unit, targets, limits.get(title))
            for number, (title, unit, targets) in enumerate(panels)
        ],
    }


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _panel(number: int, title: str, unit: str, targets: Mapping[str, str], limit: float | None) -> dict[str, Any]:
    custom: dict[str, Any] = {"fillOpacity": 5}
    defaults: dict[str, Any] = {"unit": unit, "min": 0, "custom": custom}
    if limit is not None:
        custom["thresholdsStyle"] = {"mode": "line"}
        steps = [{"color": "green", "value": None}, {"color": "red", "value": limit}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    if title.startswith("Drift"):
        custom["scaleDistribution"] = {"type": "log", "log": 10}
        del defaults["min"]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": _SOURCE,
        "gridPos": {"x": 8 * (number % 3), "y": 8 * (number // 3), "w": 8, "h": 8},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend, "datasource": _SOURCE}
            for place, (legend, expression) in enumerate(targets.items())
        ],
    }


def _duration(seconds: float) -> str:
    """As Prometheus writes it.

    >>> _duration(300), _duration(0.2)
    ('5m', '200ms')
    """
    if seconds >= 60 and seconds % 60 == 0:
        return f"{round(seconds / 60)}m"
    return f"{round(seconds)}s" if seconds == round(seconds) else f"{max(1, round(1000 * seconds))}ms"

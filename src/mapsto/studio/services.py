"""A running service as pages take it: whom to ask, and what its metrics say of health, load and alerts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from mapsto.recipe.serving import Thresholds
from mapsto.service.client import Client

if TYPE_CHECKING:
    from fastapi import Request

    from mapsto.service.request_handler import Who

__all__ = ["Alert", "Load", "Samples", "Services", "alerts", "loads"]

_DAY = 86_400.0
_LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_FEW_REQUESTS = 20


@dataclass
class Services:
    """The service that the studio shows."""

    client: Callable[[Request], Client | None]
    """Who asks it for a request; None: nobody has said who he is."""
    where: str
    """Its address, for people."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    """Beyond which there is an alert."""
    who: Who | None = None
    """Tells who signs in, by a key or a token; None: nobody has to."""
    last: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """Of each model: when it was looked at last, and the requests until then."""

    def rate(self, model: str, requests: float) -> float | None:
        """Requests a second since the last look at least a second ago; None at the first."""
        now = time.monotonic()
        before = self.last.get(model)
        if before is None or now - before[0] > 1.0:
            self.last[model] = (now, requests)
        if before is None or now - before[0] <= 1.0 or requests < before[1]:
            return None
        return (requests - before[1]) / (now - before[0])


class Alert(NamedTuple):
    """Something that is not as it should be, by the name that the manual has for it."""

    name: str
    model: str
    said: str
    critical: bool


class Load(NamedTuple):
    """What a model has to do."""

    model: str
    requests: float
    failed: float
    refused: float
    p50: float | None
    """Seconds of an inference, half of them below; estimated from a histogram. None: there was none."""
    p99: float | None
    waiting: float
    wait: float
    """Seconds that a request is expected to wait."""
    accuracy: float | None
    """Share of right answers among the last labels."""
    lag: float | None
    """Labels in no version yet."""


class Samples:
    r"""Metrics in Prometheus' text format.

    >>> found = Samples('mapsto_ready 1.0\nmapsto_requests_total{model="a",status="2xx"} 7.0\n# HELP x y')
    >>> found.one("mapsto_ready"), found.sum("mapsto_requests_total", model="a")
    (1.0, 7.0)
    """

    def __init__(self, text: str) -> None:
        self._rows: dict[str, list[tuple[dict[str, str], float]]] = {}
        for line in text.splitlines():
            match = None if line.startswith("#") else _LINE.match(line)
            if match is not None:
                try:
                    value = float(match[3])
                except ValueError:
                    continue  # no sample, whatever it is
                labels = dict(_LABEL.findall(match[2] or ""))
                self._rows.setdefault(match[1], []).append((labels, value))

    def rows(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """The samples of a metric that have these labels."""
        wanted = labels.items()
        return [(own, value) for own, value in self._rows.get(name, []) if wanted <= own.items()]

    def sum(self, name: str, **labels: str) -> float:
        """Their sum; 0 where there are none."""
        return sum(value for _, value in self.rows(name, **labels))

    def one(self, name: str, **labels: str) -> float | None:
        """The first of them; None where there is none."""
        return next((value for _, value in self.rows(name, **labels)), None)

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        r"""Below which a share of a histogram's observations lies, as Prometheus estimates it; None where there are none.

        >>> text = 't_bucket{le="1.0"} 5.0\nt_bucket{le="2.0"} 10.0\nt_bucket{le="+Inf"} 10.0'
        >>> Samples(text).quantile(0.75, "t")
        1.5
        """
        counts: dict[float, float] = {}
        for own, value in self.rows(f"{name}_bucket", **labels):
            bound = float(own["le"].replace("+Inf", "inf"))
            counts[bound] = counts.get(bound, 0.0) + value
        bounds = sorted(counts)
        if not bounds or not counts[bounds[-1]]:
            return None
        rank, low, below = share * counts[bounds[-1]], 0.0, 0.0
        for bound in bounds:
            if counts[bound] >= rank:
                if bound == float("inf") or counts[bound] == below:
                    return low
                return low + (bound - low) * (rank - below) / (counts[bound] - below)
            low, below = bound, counts[bound]
        return low


def loads(models: Iterable[str], found: Samples) -> list[Load]:
    """What each model has had to do since the service began."""
    duration = "mapsto_request_duration_seconds"
    return [
        Load(
            model,
            found.sum("mapsto_requests_total", model=model),
            found.sum("mapsto_requests_total", model=model, status="5xx"),
            found.sum("mapsto_refusals_total", model=model),
            found.quantile(0.5, duration, model=model, route="infer"),
            found.quantile(0.99, duration, model=model, route="infer"),
            found.sum("mapsto_queue_samples", model=model),
            max((value for _, value in found.rows("mapsto_queue_expected_wait_seconds", model=model)), default=0.0),
            found.one("mapsto_online_accuracy_ratio", model=model),
            found.one("mapsto_learner_lag_rows", model=model),
        )
        for model in models
    ]


def alerts(models: Iterable[str], found: Samples, limit: Thresholds, *, now: float) -> list[Alert]:
    """What is not as it should be at this moment: the alerts of `mapsto.service.monitoring`, rates being those since the service began."""
    said: list[Alert] = []
    if found.one("mapsto_ready") == 0:
        said.append(Alert("MapstoNotReady", "", "the service is not ready", True))
    if found.one("mapsto_state_up") == 0:
        said.append(Alert("MapstoStateUnreachable", "", "the state cannot be read", True))
    ends = found.one("mapsto_key_next_expiry_timestamp_seconds")
    if ends is not None and ends - now < limit.key_days * _DAY:
        said.append(
            Alert(
                "MapstoKeyEnds", "", f"a key without a successor ends in {max(0.0, ends - now) / _DAY:.1f} days", False
            )
        )
    for model in models:
        said += _of_model(model, found, limit)
    return sorted(said, key=lambda each: not each.critical)


def _of_model(model: str, found: Samples, limit: Thresholds) -> Iterable[Alert]:
    requests = found.sum("mapsto_requests_total", model=model)
    if requests >= _FEW_REQUESTS:
        failed = 100 * found.sum("mapsto_requests_total", model=model, status="5xx") / requests
        busy = 100 * found.sum("mapsto_refusals_total", model=model, reason="busy") / requests
        if failed > limit.errors:
            yield Alert("MapstoErrors", model, f"{failed:.3g} % of the requests failed", True)
        if busy > limit.refused:
            yield Alert("MapstoBusy", model, f"{busy:.3g} % of the requests were refused: the model is busy", False)
    p99 = found.quantile(0.99, "mapsto_request_duration_seconds", model=model, route="infer")
    if p99 is not None and p99 > limit.p99:
        yield Alert("MapstoLatency", model, f"the slowest 1 % of the requests take {p99:.3g} s or more", False)
    wait = found.quantile(0.99, "mapsto_queue_wait_seconds", model=model)
    if wait is not None and wait > limit.queue_wait:
        yield Alert("MapstoQueue", model, f"requests wait {wait:.3g} s for the model", False)
    chance = min((value for _, value in found.rows("mapsto_input_drift_p_value", model=model)), default=1.0)
    if chance < limit.drift:
        yield Alert("MapstoInputDrift", model, f"inputs are not as they were: p = {chance:.2g}", False)
    yield from _of_labels(model, found, limit)


def _of_labels(model: str, found: Samples, limit: Thresholds) -> Iterable[Alert]:
    now, before, chance = (
        found.one(f"mapsto_online_accuracy_{name}", model=model) for name in ("ratio", "before_ratio", "drop_p_value")
    )
    if now is not None and before is not None and chance is not None:
        drop = 100 * (before - now)
        if drop > limit.accuracy_drop and chance < 0.001:
            yield Alert(
                "MapstoAccuracyDrop", model, f"of the last labels {drop:.3g} points fewer were answered right", False
            )
    rows, seconds = (found.one(f"mapsto_learner_lag_{name}", model=model) or 0.0 for name in ("rows", "seconds"))
    if rows >= 20 and seconds > limit.learner_lag:
        yield Alert("MapstoLearnerBehind", model, f"labels have waited {seconds:.0f} s to be learnt", False)
    lost = found.sum("mapsto_refusals_total", model=model, route="feedback", reason="unavailable")
    if lost:
        yield Alert("MapstoFeedbackNotStored", model, f"{lost:.0f} requests with labels could not be stored", True)

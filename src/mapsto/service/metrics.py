"""Metrics of the service for Prometheus: what each request adds to costs microseconds, what costs more is read when it is scraped.

Labels are bounded: a model that there is not is ``other``, a version is its kind, a status its class; no key and no tenant is one. With
several workers each writes files that any of them sums up (prometheus-client's multi-process mode), which `Metrics` follows where
``PROMETHEUS_MULTIPROC_DIR`` was set before prometheus-client was imported.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from mapsto.atomic import new_file
from mapsto.errors import MapstoError
from mapsto.service.drift import LEAST, LEVEL, REFERENCE, WINDOW, Reference
from mapsto.service.online_accuracy import ROWS, online_accuracy
from mapsto.service.refusal import REASON
from mapsto.service.request_handler import Application, Receive, Scope, Send
from mapsto.service.served_model import BASE, KeptScores, OwnHead, ServedModel
from mapsto.service.service import Service
from mapsto_runtime import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from prometheus_client.metrics_core import Metric

__all__ = ["FOLDER_VARIABLE", "Metrics", "forget_process"]

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Of the environment: a folder, made anew at each start of the service, where its workers write what they count."""
OTHER = "other"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_ROUTES = frozenset(("adapt", "feedback", "versions", "promote", "rollback", "learner", "jobs"))
_REASONS = {
    400: "invalid",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method",
    408: "too_slow",
    409: "conflict",
    410: "gone",
    413: "too_large",
    415: "unsupported",
    421: "unknown_host",
    429: "rate",
    431: "headers",
    499: "client_gone",
    500: "model_failed",
    503: "unavailable",
    504: "deadline",
}
_REASONS_OF_CONNECTIONS = {400: "invalid", 408: "too_slow", 413: "too_large", 431: "headers", 503: "connections"}
_KINDS = {"a-": "adapted", "l-": "learned"}
_TICK = 1.0
"""Seconds between two looks at what waits and at what was answered."""
_LOOKED_AT = 256
"""Answers of a model whose confidence is looked at each time, at most."""


def forget_process(number: int, folder: Path) -> None:
    """Remove what a process that ended said of itself; what it counted stays in the sums, which would fall otherwise."""
    mark_process_dead(number, str(folder))


class _Tally:
    """Counts of one histogram, added to by one thread in a microsecond, and handed over by another from time to time.

    prometheus-client's own histogram takes 2.5 µs an observation, and 5.7 with several processes.
    """

    __slots__ = ("_bounds", "_counts", "_handed", "_histogram", "_sum", "_summed", "counters")

    def __init__(self, histogram: Histogram, bounds: tuple[float, ...]) -> None:
        self._histogram, self._bounds = histogram, bounds
        self.counters: list[Counter] = []
        """They grow with the number of observations."""
        self._counts, self._handed = [0] * (len(bounds) + 1), [0] * (len(bounds) + 1)
        self._sum = self._summed = 0.0

    def add(self, value: float) -> None:
        """An observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def hand_over(self) -> None:
        """Add what is new to the histogram and the counters."""
        counts, total = (
            self._counts.copy(),
            self._sum,
        )  # nothing is reset, so that no observation of this moment is lost
        new = [now - before for now, before in zip(counts, self._handed, strict=True)]
        if not any(new):
            return
        _add(self._histogram, new, total - self._summed)
        for counter in self.counters:
            counter.inc(sum(new))
        self._handed, self._summed = counts, total


class Metrics:
    """The metrics of one process.

    Parameters
    ----------
    models
        The names of those that are served.

    Its methods are what the service's parts are to tell: `request` is for `RequestHandler`, `batch` for each `Batcher`, `around` for the
    application of the other routes. `follow` starts what looks at the service from time to time.
    """

    def __init__(self, models: Sequence[str]) -> None:
        self._models = frozenset(models)
        self._service: Service | None = None
        self._registry = own = CollectorRegistry()
        self._requests = Counter(
            "mapsto_requests",
            "Requests that were answered, by the kind of version and the class of status.",
            ("model", "route", "kind", "status"),
            registry=own,
        )
        self._latency = Histogram(
            "mapsto_request_duration_seconds",
            "From a request's headers to its answer.",
            ("model", "route"),
            buckets=_SECONDS,
            registry=own,
        )
        self._refusals = Counter(
            "mapsto_refusals", "Requests that were refused.", ("model", "route", "reason"), registry=own
        )
        self._refused_unread = self._refusals.labels(OTHER, OTHER, "overload")
        self._closed = {
            status: self._refusals.labels(OTHER, OTHER, reason) for status, reason in _REASONS_OF_CONNECTIONS.items()
        }
        self._batch_size = Histogram(
            "mapsto_batch_samples", "Samples that ran together.", ("model",), buckets=_SAMPLES, registry=own
        )
        self._batch_time = Histogram(
            "mapsto_batch_duration_seconds", "Of a batch.", ("model",), buckets=_SECONDS, registry=own
        )
        self._queue_time = Histogram(
            "mapsto_queue_wait_seconds",
            "Of the request of each batch that waited longest.",
            ("model",),
            buckets=_SECONDS,
            registry=own,
        )
        self._confidence = Histogram(
            "mapsto_confidence_ratio",
            f"Probability of the answered class, of at most {_LOOKED_AT} answers a second and worker.",
            ("model", "kind"),
            buckets=_SHARES,
            registry=own,
        )
        self._not_finite = Counter(
            "mapsto_answers_not_finite",
            f"Answers from NaN or infinity, of at most {_LOOKED_AT} a second and worker.",
            ("model",),
            registry=own,
        )
        self._labels = Counter("mapsto_feedback_labels", "Labels that were given.", ("model", "result"), registry=own)
        self._queue_samples = Gauge(
            "mapsto_queue_samples",
            "Samples that wait or run.",
            ("model",),
            registry=own,
            multiprocess_mode="livesum",
        )
        self._queue_wait = Gauge(
            "mapsto_queue_expected_wait_seconds",
            "What a request of now is expected to wait.",
            ("model",),
            registry=own,
            multiprocess_mode="livemax",
        )
        self._writer = Gauge(
            "mapsto_feedback_queue_requests",
            "Requests whose labels wait to be stored.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self._ready = Gauge("mapsto_ready", "Whether every worker answers.", registry=own, multiprocess_mode="livemin")
        self._answered: dict[tuple[str, str, str, int, str], _Tally] = {}
        self._tallies: list[_Tally] = []
        self._looked: dict[tuple[str, str], int] = {}
        self._heads: dict[str, OwnHead | KeptScores | None] = {}
        for model in models:
            self._begin(model)
        self._ends: Gauge | None = None
        self._certificate: Callable[[], float] | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()

    # -- what is told

    def request(self, route: str, model: str, version: str, status: int, seconds: float, reason: str = "") -> None:
        """A request for inference, or feedback."""
        if model not in self._models:
            model, kind = OTHER, OTHER if route == "infer" else ""
        elif route != "infer":
            kind = ""
        else:
            if not version and self._service is not None:
                version = self._service.active(model)
            kind = _kind(version)
        self._count(model, route, kind, status, seconds, reason)

    def refused_unread(self) -> None:
        """A request that was not read, since there were too many."""
        self._refused_unread.inc()

    def closed(self, status: int) -> None:
        """A request that broke the limits of a connection, before it was anyone's."""
        self._closed[status].inc()

    def batch(self, model: str) -> Callable[[int, float, float], None]:
        """What is to be told of each batch of a model."""
        size = self._tally(self._batch_size.labels(model), _SAMPLES).add
        duration = self._tally(self._batch_time.labels(model), _SECONDS).add
        wait = self._tally(self._queue_time.labels(model), _SECONDS).add

        def observe(count: int, seconds: float, waited: float) -> None:
            size(count)
            duration(seconds)
            wait(waited)

        return observe

    def feedback(self, model: str, stored: int, known: int) -> None:
        """Labels."""
        self._labels.labels(model, "stored").inc(stored)
        self._labels.labels(model, "duplicate").inc(known)

    def around(self, application: Application) -> Application:
        """An application whose requests are counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await application(scope, receive, send)
                return
            began, status = time.perf_counter(), 500

            async def noted(message: Any) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await application(scope, receive, noted)
            finally:
                model, route = self._route(scope.get("path", ""))
                self._count(model, route, "", status, time.perf_counter() - began, scope.get(REASON, ""))

        return counted

    def certificate(self, ends: Callable[[], float]) -> None:
        """When the certificate of TLS ends."""
        self._certificate = ends
        self._ends = Gauge(
            "mapsto_tls_certificate_expiry_timestamp_seconds",
            "When the certificate ends.",
            registry=self._registry,
            multiprocess_mode="livemin",
        )
        self._ends.set(ends())

    # -- what is scraped

    def follow(self, service: Service) -> None:
        """Look at a service from now on."""
        self._service = service
        service.observe_feedback = self.feedback
        self._registry.register(_Collected(service, self._head))
        threading.Thread(target=self._work, name="metrics", daemon=True).start()

    def text(self) -> bytes:
        """All metrics, of every process, in Prometheus' text format."""
        self._look()
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder is None or self._service is None:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)
        registry.register(_Collected(self._service, self._head))
        return generate_latest(registry)

    def close(self) -> None:
        """Look no more."""
        self._ended.set()

    # -- private

    def _count(self, model: str, route: str, kind: str, status: int, seconds: float, reason: str = "") -> None:
        tally = self._answered.get((model, route, kind, status, reason))
        if tally is None:
            tally = self._tally(self._latency.labels(model, route), _SECONDS)
            counters = [self._requests.labels(model, route, kind, f"{status // 100}xx")]
            if status >= 400:
                counters.append(self._refusals.labels(model, route, reason or _REASONS.get(status, OTHER)))
            tally.counters = counters
            self._answered[model, route, kind, status, reason] = tally
        tally.add(seconds)

    def _tally(self, histogram: Histogram, bounds: tuple[float, ...]) -> _Tally:
        tally = _Tally(histogram, bounds)
        self._tallies.append(tally)
        return tally

    def _begin(self, model: str) -> None:
        """Let what alarms look at be 0 from the start: of a series that comes with its first failure Prometheus sees no growth."""
        for status in ("2xx", "4xx", "5xx"):
            for kind in ("package", *_KINDS.values()):
                self._requests.labels(model, "infer", kind, status)
            for route in ("adapt", "feedback"):
                self._requests.labels(model, route, "", status)
        self._latency.labels(model, "infer")
        self._refusals.labels(model, "infer", "busy")
        self._refusals.labels(model, "feedback", "unavailable")

    def _route(self, path: str) -> tuple[str, str]:
        parts = path.split("/")
        model = parts[3] if len(parts) > 3 and parts[2] == "models" else ""
        if model and model not in self._models:
            model = OTHER
        action = parts[4] if len(parts) == 6 and parts[4] == "jobs" else parts[-1]
        return model, action if model and action in _ROUTES else OTHER

    def _work(self) -> None:
        while not self._ended.wait(_TICK):
            self._look()

    def _look(self) -> None:
        """Take over what was counted and what waits, and the confidence of what was answered since the last time."""
        service = self._service
        with self._lock:
            for tally in list(self._tallies):
                tally.hand_over()
            if service is None:
                return
            self._ready.set(service.ready)
            if self._ends is not None and self._certificate is not None:
                self._ends.set(self._certificate())
            self._writer.set(service.writer.waiting)
            for name in service.names:
                model = service.model(name)
                self._queue_samples.labels(name).set(model.batcher.waiting)
                self._queue_wait.labels(name).set(model.batcher.wait)
                self._look_at_answers(service, model)

    def _look_at_answers(self, service: Service, model: ServedModel) -> None:
        kept, key = service.kept(model.name), (model.name, model.digest)
        if kept is None:
            return
        rows = kept.latest(_LOOKED_AT, own=True)
        rows = rows[rows["row"] > self._looked.get(key, kept.first - 1)]  # not those of the process before this one
        if not len(rows):
            return
        self._looked[key] = int(rows["row"].max())
        whole = _finite(rows)
        self._not_finite.labels(model.name).inc(len(rows) - len(whole))
        rows = whole
        for version in np.unique(rows["version"]).tolist():
            name = version.decode()
            head = self._head(model) if name == BASE else service.head(model.name, name)
            if head is None:
                continue
            shares = _confidence(head.scores(rows["features"][rows["version"] == version]))
            counts = np.bincount(np.searchsorted(_SHARES, shares), minlength=len(_SHARES) + 1)
            _add(self._confidence.labels(model.name, _kind(name)), counts.tolist(), float(shares.sum()))

    def _head(self, model: ServedModel) -> OwnHead | KeptScores | None:
        """The package's own head, opened once; None where it cannot be had apart."""
        if model.digest not in self._heads:
            head = None
            with contextlib.suppress(MapstoError):
                head = model.own_head()
            self._heads[model.digest] = head
        return self._heads[model.digest]


class _Collected(Collector):
    """What is read from the state and from the answers of all workers when it is asked for."""

    def __init__(self, service: Service, head: Callable[[ServedModel], OwnHead | KeptScores | None]) -> None:
        self._service, self._head = service, head

    def collect(self) -> Iterator[Metric]:
        yield _gauge("mapsto_build_info", "The version of mapsto.", ("version",), [((__version__,), 1.0)])
        reachable = True
        try:
            yield from self._of_state()
        except MapstoError:
            reachable = False
        yield _gauge("mapsto_state_up", "Whether the state can be read.", (), [((), float(reachable))])
        yield from self._of_inputs()

    def _of_state(self) -> Iterator[Metric]:
        service, state, now = self._service, self._service.state, time.time()
        keys = state.all_keys()
        ends = [min(row["expires"] or np.inf, row["revoked"] or np.inf) for row in keys]
        valid = [end for end in ends if end > now]
        yield _gauge(
            "mapsto_keys",
            "Stored API keys.",
            ("status",),
            [(("valid",), len(valid)), (("ended",), len(ends) - len(valid))],
        )
        last: dict[str, float] = {}  # of each name: a key that was rotated has a successor
        for row, end in zip(keys, ends, strict=True):
            last[row["id"]] = max(end, last.get(row["id"], 0.0))
        expiring = [end for end in last.values() if end > now and np.isfinite(end)]
        yield _gauge(
            "mapsto_key_next_expiry_timestamp_seconds",
            "When the next valid key ends that has no successor.",
            (),
            [((), min(expiring))] if expiring else [],
        )
        models = [service.model(name) for name in service.names]
        versions = [(each.name, service.active(each.name), each.digest[:12]) for each in models]
        yield _gauge(
            "mapsto_version_info",
            "The version that answers.",
            ("model", "version", "kind", "package"),
            [((name, version, _kind(version), digest), 1.0) for name, version, digest in versions],
        )
        marked = [((name,), float(version in state.marked(name))) for name, version, _ in versions]
        yield _gauge(
            "mapsto_version_marked",
            "1: the version that answers learnt from what was erased since.",
            ("model",),
            marked,
        )
        yield _gauge(
            "mapsto_erasures_unfinished",
            "Erasures that were begun and have not ended.",
            (),
            [((), len(state.to_erase()))],
        )
        deleted = CounterMetricFamily(
            "mapsto_deletions",
            "What was deleted for its age or with somebody, or was masked, by kind.",
            labels=("kind",),
        )
        for kind, count in state.deletions().items():
            deleted.add_metric((kind,), count)
        yield deleted
        learning = [each.name for each in models if each.adapts]
        jobs = service.jobs.counts()
        open_ = [((name, state), jobs.get((name, state), 0)) for name in learning for state in ("queued", "running")]
        yield _gauge("mapsto_adapt_jobs", "Jobs of adapting that have not ended.", ("model", "state"), open_)
        yield from self._of_learning(learning, now)
        yield from self._of_labels([each.name for each in models if service.kept(each.name) is not None])

    def _of_learning(self, names: Sequence[str], now: float) -> Iterator[Metric]:
        state = self._service.state
        rows: list[tuple[tuple[str, ...], float]] = []
        seconds: list[tuple[tuple[str, ...], float]] = []
        for name in names:
            status = state.learner_status(name)
            if status is None and not state.learns(name):  # nothing is to be learnt
                continue
            count, first = state.behind(name, 0 if status is None else status[0])
            rows.append(((name,), count))
            seconds.append(((name,), 0.0 if first is None else max(0.0, now - first)))
        yield _gauge("mapsto_learner_lag_rows", "Labels that are in no version yet.", ("model",), rows)
        yield _gauge("mapsto_learner_lag_seconds", "Age of the first label in no version yet.", ("model",), seconds)

    def _of_labels(self, names: Sequence[str]) -> Iterator[Metric]:
        state = self._service.state
        found = {name: online_accuracy(state.served_right(name, most=ROWS)) for name in names}
        said = {name: each for name, each in found.items() if each is not None}

        def family(name: str, text: str, values: Iterable[tuple[str, float | None]]) -> GaugeMetricFamily:
            return _gauge(name, text, ("model",), [((model,), each) for model, each in values if each is not None])

        yield family(
            "mapsto_online_accuracy_ratio",
            "Share of right answers among the last 100 labels for what was served.",
            ((name, each.recent) for name, each in said.items()),
        )
        yield family(
            "mapsto_online_accuracy_faded_ratio",
            "Share of right answers, each label weighing 1 % less than the next.",
            ((name, each.faded) for name, each in said.items()),
        )
        yield family(
            "mapsto_online_accuracy_before_ratio",
            "Share of right answers among the 900 labels before the last 100.",
            ((name, each.before) for name, each in said.items()),
        )
        yield family(
            "mapsto_online_accuracy_drop_p_value",
            "Of so few right answers among the last 100 by chance (Fisher's exact test).",
            ((name, each.drop_p_value) for name, each in said.items()),
        )
        yield family(
            "mapsto_online_accuracy_labels",
            "Labels that these are of.",
            ((name, each.labels) for name, each in said.items()),
        )

    def _of_inputs(self) -> Iterator[Metric]:
        chances: list[tuple[tuple[str, ...], float]] = []
        drift: list[tuple[tuple[str, ...], float]] = []
        samples: list[tuple[tuple[str, ...], float]] = []
        reference: list[tuple[tuple[str, ...], float]] = []
        for name in self._service.names:
            found = self._drift(self._service.model(name))
            if found is None:
                continue
            p_values, late, held = found
            samples.append(((name,), late))
            reference.append(((name,), held))
            if p_values:
                drift.append(((name,), float(min(p_values.values()) < LEVEL)))
                chances += [((name, statistic), value) for statistic, value in p_values.items()]
        yield _gauge("mapsto_input_drift", "1: inputs are not as they were before.", ("model",), drift)
        yield _gauge(
            "mapsto_input_drift_p_value",
            "Of late inputs being as those before, corrected for the number of statistics.",
            ("model", "statistic"),
            chances,
        )
        yield _gauge("mapsto_input_drift_samples", "Late inputs that are compared.", ("model",), samples)
        yield _gauge(
            "mapsto_input_drift_reference_samples",
            f"Inputs that they are compared with, {REFERENCE // 2} once there were {REFERENCE}.",
            ("model",),
            reference,
        )

    def _drift(self, model: ServedModel) -> tuple[dict[str, float], int, int] | None:
        """Corrected p-values, none before there is enough; and the rows of both sides. None for a model that keeps no features."""
        kept = self._service.kept(model.name)
        if kept is None:
            return None
        path = kept.folder / "reference.npz"
        try:
            if not path.is_file():
                rows = _finite(kept.latest(2 * REFERENCE))[-REFERENCE:]
                if len(rows) < REFERENCE:
                    return {}, 0, 0
                confidence = self._confidence(model, rows["features"])
                made = Reference.of(rows["features"], confidence, until=float(rows["time"][-1]))
                with new_file(path) as file:
                    file.write_bytes(made.content())
            reference = Reference.read(path.read_bytes())
        except (MapstoError, OSError):
            return {}, 0, 0
        rows = _finite(kept.latest(WINDOW))
        features = rows["features"][rows["time"] > reference.until]  # not those of the reference itself
        held = reference.values.shape[1]
        if len(features) < LEAST:
            return {}, len(features), held
        return reference.p_values(features, self._confidence(model, features)), len(features), held

    def _confidence(self, model: ServedModel, features: NDArray[np.float32]) -> NDArray[np.float64] | None:
        head = self._head(model)
        return None if head is None else _confidence(head.scores(features))


def _finite(rows: NDArray[Any]) -> NDArray[Any]:
    """The rows of answers without those in which a number is NaN or infinite."""
    return rows[np.isfinite(rows["features"]).all(1)]


def _add(histogram: Histogram, counts: Sequence[int], total: float) -> None:
    """Observations by bucket, the last beyond all bounds, and their sum."""
    for bucket, count in zip(histogram._buckets, counts, strict=True):
        if count:
            bucket.inc(count)
    histogram._sum.inc(total)


def _confidence(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,), the softmax' largest probability of scores (N, K)."""
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(1, keepdims=True)
    return 1 / np.exp(shifted).sum(1)


def _gauge(
    name: str, text: str, labels: Sequence[str], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for each, value in values:
        family.add_metric(each, value)
    return family


def _kind(version: str) -> str:
    return "package" if version == BASE else _KINDS.get(version[:2], OTHER)

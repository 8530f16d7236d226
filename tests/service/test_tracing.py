"""Traces of the service, as a collector on loopback receives them by OTLP over HTTP."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra tracing is not installed")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mapsto.errors import SpecError
from mapsto.service.access import Access
from mapsto.service.batching import Batcher
from mapsto.service.request_handler import RequestHandler
from mapsto.service.tracing import LearnTraces, Tracing, TracingSettings
from tests.cli.packages import linear_package
from tests.service.in_process import InProcess, started
from tests.service.served import serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KEPT, DROPPED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
BODY = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [2, 3], "data": [7.5, 0, 0, -3, 0, 0]}]}


class Collector:
    """Takes spans, as a collector of OpenTelemetry does."""

    def __init__(self, port: int = 0) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.content = b""
        own = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                own.take(self.path, body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        self.content += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append({each.key: each.value.string_value for each in resource.resource.attributes})
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def wait(self, wanted: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not wanted() and time.monotonic() < end:
            time.sleep(0.05)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def _unobserved(*told: Any) -> None:
    """Nobody asks."""


class Traced:
    """A service in process whose requests are traced, with a learner that is told of them."""

    def __init__(self, service: InProcess, collector: Collector, folder: Path, ratio: float = 1.0) -> None:
        self.rest, self.key = service, service.key(scopes=["predict", "learn"])
        self.tracing = Tracing(TracingSettings(endpoint=collector.url, ratio=ratio), role="worker")
        self.learning = LearnTraces(Tracing(TracingSettings(endpoint=collector.url), role="learner"), folder / "s")
        service.service.writer = self.tracing.writing(service.service.writer, folder / "s")
        self.who = Access(service.service.keys).caller
        self.observe = self.tracing.observing(_unobserved, lambda: service.service.names)
        handler = RequestHandler(service.service, service.routes, self.who, self.observe)
        service.application._application = self.tracing.around(handler)  # pyright: ignore

    def close(self) -> None:
        self.tracing.close()
        self.learning.close()


@pytest.fixture
def traced(tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    with started(tmp_path) as service:
        found = Traced(service, collector, tmp_path)
        monkeypatch.setattr(Batcher, "trace", found.tracing.batch)
        yield found


def require_order(*spans: Any) -> None:
    """Each ends before the next begins."""
    for span, later in pairwise(spans):
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= later.start_time_unix_nano + 1000


def test_a_request_is_traced_from_its_caller_to_its_answer(traced: Traced, collector: Collector) -> None:
    answer = traced.rest.ask("/v2/models/signs/infer", BODY, key=traced.key, traceparent=KEPT, tracestate="a=secret")
    assert answer.status == 200
    traced.close()
    (request,) = collector.named("infer")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(request) == {
        "mapsto.protocol": "http",
        "mapsto.model": "signs",
        "http.response.status_code": 200,
    }
    parts = [collector.named(name)[0] for name in ("queue", "model", "answer")]
    assert all(each.parent_span_id == request.span_id and each.trace_id == request.trace_id for each in parts)
    assert attributes(parts[1]) == {"mapsto.samples": 2, "mapsto.batch_samples": 2}
    require_order(*parts)
    assert request.start_time_unix_nano <= parts[0].start_time_unix_nano
    assert parts[2].end_time_unix_nano <= request.end_time_unix_nano
    assert abs(request.end_time_unix_nano / 1e9 - time.time()) < 60
    assert {"service.name": "mapsto", "mapsto.process": "worker"}.items() <= collector.resources[0].items()
    for held in (b"secret", traced.key.encode(), b"/v2/", b"low"):
        assert held not in collector.content


def test_feedback_is_traced_until_it_is_learnt(traced: Traced, collector: Collector) -> None:
    request = traced.rest.ask("/v2/models/signs/infer", BODY, key=traced.key).json()["parameters"]["request_id"]
    labels = {"feedback": [{"request_id": request, "row": row, "label": "private"} for row in (0, 1)]}
    assert traced.rest.ask("/v2/models/signs/feedback", labels, key=traced.key, traceparent=KEPT).status == 200
    traced.learning.stepped("signs", 1, 1, time.time_ns())
    assert traced.learning._waiting, "the second label is not learnt yet"
    began = time.time_ns()
    traced.learning.stepped("signs", 2, 1, began)
    traced.close()
    (feedback,), (write,), (learn,) = (collector.named(name) for name in ("feedback", "write", "learn"))
    assert feedback.parent_span_id.hex() == PARENT
    assert {write.parent_span_id, learn.parent_span_id} == {feedback.span_id}
    assert {write.trace_id.hex(), learn.trace_id.hex()} == {TRACE}
    assert (attributes(write), attributes(learn)) == ({"mapsto.labels": 2}, {"mapsto.labels": 1})
    require_order(write, learn)
    assert b"private" not in collector.content


def test_the_learner_may_be_faster_than_word_of_a_trace(traced: Traced, collector: Collector) -> None:
    began = time.time_ns()
    traced.learning.stepped("signs", 5, 5, began)
    traced.tracing._learner.tell("signs", 3, KEPT)  # pyright: ignore
    traced.learning.stepped("signs", 5, 0, time.time_ns())
    traced.close()
    (learn,) = collector.named("learn")
    assert (learn.start_time_unix_nano, learn.trace_id.hex()) == (began, TRACE)


def test_the_caller_decides_and_else_the_ratio(tmp_path: Path, collector: Collector) -> None:
    with started(tmp_path) as service:
        traced = Traced(service, collector, tmp_path, ratio=0.0)
        for parent in (KEPT, DROPPED, "nonsense"):
            assert service.ask("/v2/models/signs/infer", BODY, key=traced.key, traceparent=parent).status == 200
        assert service.ask("/v2/models/signs/infer", BODY, key=traced.key).status == 200
        traced.close()
    assert [span.trace_id.hex() for span in collector.named("infer")] == [TRACE]


def test_what_is_refused_or_somewhere_else_has_no_text_of_its_client(traced: Traced, collector: Collector) -> None:
    assert traced.rest.ask("/v2/models/secret/infer", BODY, key=traced.key).status == 404
    assert traced.rest.ask("/v2/secret", key=traced.key).status == 404
    assert traced.rest.ask("/v2/health/live").status == 200
    traced.close()
    names = {span.name: attributes(span) for span in collector.spans}
    assert {name: held["http.response.status_code"] for name, held in names.items()} == {
        "infer": 404,
        "other": 404,
        "live": 200,
    }
    assert b"secret" not in collector.content


def test_calls_of_grpc_are_traced(traced: Traced, collector: Collector) -> None:
    pytest.importorskip("grpc", reason="the extra grpc is not installed")
    import grpc.aio

    from mapsto.service.grpc_server import GrpcServer
    from tests.service.test_grpc import asked, typed

    server = GrpcServer(traced.rest.service, traced.who, "127.0.0.1:0", observe=traced.observe, tracing=traced.tracing)

    async def work() -> None:
        address = f"127.0.0.1:{await server.start()}"
        await asked(address, typed([[1.0, 0, 0]]), traced.key, extra=(("traceparent", KEPT),))
        with pytest.raises(grpc.aio.AioRpcError):
            await asked(address, typed([[1.0, 0, 0]]), "mapsto_wrong")
        await server.stop(5.0)

    traced.rest._runner.run(work())
    traced.close()
    answered, refused = sorted(collector.named("infer"), key=lambda span: span.start_time_unix_nano)
    assert (answered.trace_id.hex(), answered.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(answered)["mapsto.protocol"] == "grpc"
    assert (attributes(answered)["http.response.status_code"], attributes(answered)["mapsto.model"]) == (200, "signs")
    assert attributes(refused)["http.response.status_code"] == 401
    assert collector.named("model")[0].parent_span_id == answered.span_id


@pytest.mark.slow
def test_a_collector_that_is_gone_is_said_once(
    tmp_path: Path, collector: Collector, capfd: pytest.CaptureFixture[str]
) -> None:
    collector.close()
    with started(tmp_path) as service:
        traced = Traced(service, collector, tmp_path)
        for _ in range(3):
            assert service.ask("/v2/models/signs/infer", BODY, key=traced.key).status == 200
            traced.tracing._provider.force_flush(100)
        began = time.monotonic()
        traced.close()
        assert time.monotonic() - began < 15
    said = capfd.readouterr().err.splitlines()
    assert said == [f"mapsto: 127.0.0.1:{collector.port} takes no traces; they are dropped until it does"]


@pytest.mark.parametrize(
    ("more", "said"),
    [({"endpoint": "localhost:4318"}, "is no address"), ({"endpoint": "http://a", "ratio": 2.0}, "is no ratio")],
)
def test_settings_that_are_wrong_are_said(more: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        TracingSettings(**more)


def test_the_path_of_a_collector_may_be_given() -> None:
    assert TracingSettings(endpoint="http://a:4318").url == "http://a:4318/v1/traces"
    assert TracingSettings(endpoint="https://a/own/path").url == "https://a/own/path"


@pytest.mark.slow
def test_a_service_sends_its_traces(tmp_path: Path, collector: Collector) -> None:
    """Of all its processes, with the trace of the client's own span."""
    from opentelemetry.sdk.trace import TracerProvider

    from mapsto.service.client import Client

    linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    own = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with serving(tmp_path / "signs", "--trace", collector.url, "--workers", 2, folder=tmp_path) as served:
        client = Client(served.url, served.key)
        with own.start_as_current_span("mine") as span:
            answer = client.infer("signs", np.array([[2.0, 0, 0]]))
            client.feedback("signs", answer, ["low"])
        trace_id = f"{span.get_span_context().trace_id:032x}"

        def names() -> set[str]:
            return {each.name for each in collector.spans if each.trace_id.hex() == trace_id}

        collector.wait(lambda: "learn" in names() and "feedback" in names())
        parts = {"infer", "queue", "model", "answer", "feedback", "write", "learn"}
        assert names() == parts | {"other"}, "the client asks what the model takes, too"
        collector.close()  # and the service goes on
        for _ in range(20):
            client.infer("signs", np.array([[2.0, 0, 0]]))
        time.sleep(12)
        client.infer("signs", np.array([[2.0, 0, 0]]))
        began = time.monotonic()
        assert served.end() == 0
        assert time.monotonic() - began < 20
    lines = (tmp_path / "serve.log").read_text().splitlines()
    assert 1 <= sum("takes no traces" in line for line in lines) <= 3, "once a process"
    assert not [line for line in lines if "Traceback" in line or "opentelemetry" in line], json.dumps(lines)

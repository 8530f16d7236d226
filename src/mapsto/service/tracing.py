"""OpenTelemetry traces of the service: a request, its time in the queue, its batch, its answer; feedback, its storing, its learning.

A caller's W3C ``traceparent`` is taken over, from the headers of HTTP or the metadata of gRPC, and goes with labels to the process that
learns. Its ``tracestate`` and baggage are not: they may hold anything. A span's attributes hold what metrics hold, and nothing that a
client sent. Nothing of this module runs where traces are off.

W3C Trace Context: https://www.w3.org/TR/trace-context/; OTLP: https://opentelemetry.io/docs/specs/otlp/
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Generator, Iterable, MutableMapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from mapsto.errors import MissingExtra, SpecError
from mapsto.service.request_handler import Application, Observe, Receive, Scope, Send
from mapsto.service.request_log import action_of
from mapsto.service.state import FeedbackRow
from mapsto.service.writer import Writes
from mapsto_runtime import __version__

__all__ = ["LearnTraces", "Tracing", "TracingSettings"]

_PATH = "/v1/traces"
_EXPORT_SECONDS = 3.0
"""That the collector may take for spans; what it has not taken then is dropped."""
_END_MS = 2000
"""For the last spans, when the process ends."""
_MOST_WAITING, _MOST_STEPS = 4096, 64
"""Requests that are remembered until their labels are learnt, and steps of the learner that are until their requests are known."""


@dataclass(frozen=True, kw_only=True)
class TracingSettings:
    """Where spans are sent, and how many.

    Raises `SpecError` for an endpoint that is no address, and for a ratio outside 0 to 1.
    """

    endpoint: str
    """A collector of OTLP over HTTP, such as ``http://127.0.0.1:4318``."""
    ratio: float = 1.0
    """The share of traces that begin here which are kept; of those that began elsewhere the caller decides."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SpecError(
                f"'{self.endpoint}' is no address", where="--trace", hint="give a collector's, as http://127.0.0.1:4318"
            )
        if not 0 <= self.ratio <= 1:
            raise SpecError(f"{self.ratio:g} is no ratio", where="--trace-ratio", hint="give 0 to 1")

    @property
    def url(self) -> str:
        """That is posted to."""
        return self.endpoint.rstrip("/") + (_PATH if urlsplit(self.endpoint).path in ("", "/") else "")


class _Request:
    """A request that is traced."""

    __slots__ = ("context", "done", "offset", "span")

    def __init__(self, span: Any, context: Any, offset: int) -> None:
        self.span, self.context, self.offset = span, context, offset
        self.done: float | None = None
        """When the last thing that it waited for was done."""

    def ns(self, clock: float) -> int:
        """Of a time of `time.perf_counter`, since 1970."""
        return self.offset + int(clock * 1e9)


_CURRENT: ContextVar[_Request | None] = ContextVar("mapsto traced request", default=None)


class Tracing:
    """The spans of one process.

    Parameters
    ----------
    role
        Of the process: ``worker`` or ``learner``.

    Raises
    ------
    MissingExtra
        OpenTelemetry is not installed.
    """

    def __init__(self, settings: TracingSettings, *, role: str) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise MissingExtra("opentelemetry", "tracing", where="--trace") from error
        for name in ("opentelemetry", "urllib3"):  # what does not reach the collector is said once, below
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        resource = Resource.create({"service.name": "mapsto", "service.version": __version__, "mapsto.process": role})
        self._provider = TracerProvider(
            resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.ratio)), shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(endpoint=settings.url, timeout=_EXPORT_SECONDS)
        self._exporter = _quiet(exporter, settings.url)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("mapsto", __version__)
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._learner: _Teller | None = None

    # -- a request

    @contextlib.contextmanager
    def begun(self, name: str, traceparent: str | None, protocol: str, began: float) -> Generator[_Request | None]:
        """A request as long as it lasts; None where its trace is not kept."""
        trace = self._trace
        context = self._propagator.extract({"traceparent": traceparent} if traceparent else {})
        offset = time.time_ns() - int(time.perf_counter() * 1e9)
        span = self._tracer.start_span(
            name,
            context=context,
            kind=trace.SpanKind.SERVER,
            attributes={"mapsto.protocol": protocol},
            start_time=offset + int(began * 1e9),
        )
        if not span.is_recording():
            yield None
            return
        request = _Request(span, trace.set_span_in_context(span, context), offset)
        token = _CURRENT.set(request)
        try:
            yield request
        finally:
            _CURRENT.reset(token)
            end = request.ns(time.perf_counter())
            if request.done is not None:
                self._child(request, "answer", request.ns(request.done), end)
            span.end(end)

    def around(self, application: Application) -> Application:
        """An application whose requests are traced."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await application(scope, receive, send)
                return
            parent = next((value for name, value in scope["headers"] if name == b"traceparent"), None)
            name = action_of(scope["path"]) or "other"
            given = parent.decode("latin-1") if parent else None
            with self.begun(name, given, "http", time.perf_counter()) as request:
                if request is None:
                    await application(scope, receive, send)
                    return

                async def noted(message: MutableMapping[str, Any]) -> None:
                    if message["type"] == "http.response.start":
                        self._status(request, message["status"])
                    await send(message)

                await application(scope, receive, noted)

        return traced

    def around_call(
        self, name: str, metadata: Iterable[tuple[str, Any]], began: float, answer: Callable[[Any, Any], Awaitable[Any]]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        """What answers a call of gRPC, traced."""
        given = next((str(value) for key, value in metadata if key == "traceparent"), None)

        async def traced(content: Any, context: Any) -> Any:
            with self.begun(name, given, "grpc", began):
                return await answer(content, context)

        return traced

    def observing(self, observe: Observe, models: Callable[[], Iterable[str]]) -> Observe:
        """What is told of requests, and notes on their spans what it is told."""

        def observed(action: str, model: str, version: str, status: int, seconds: float, reason: str) -> None:
            observe(action, model, version, status, seconds, reason)
            request = _CURRENT.get()
            if request is None:
                return
            self._status(request, status)
            if model in models():
                request.span.set_attribute("mapsto.model", model)
            if reason:
                request.span.set_attribute("mapsto.reason", reason)

        return observed

    def batch(self, queued: float, began: float, ended: float, samples: int, together: int) -> None:
        """Told of each request that ran, in its own task: when it was queued, when its batch began and ended, how many samples each had."""
        request = _CURRENT.get()
        if request is not None:
            self._child(request, "queue", request.ns(queued), request.ns(began))
            counts = {"mapsto.samples": samples, "mapsto.batch_samples": together}
            self._child(request, "model", request.ns(began), request.ns(ended), counts)
            request.done = ended

    # -- feedback

    def writing(self, writer: Writes, learner: Path) -> Writes:
        """A writer whose requests are traced; the learner is told by its socket which traces its labels are of."""
        self._learner = _Teller(learner)
        return cast("Writes", _TracedWriter(writer, self))

    def stored(self, request: _Request, began: float, rows: Sequence[FeedbackRow], positions: Sequence[int]) -> None:
        """Labels were stored."""
        request.done = time.perf_counter()
        counts = {"mapsto.labels": len(rows)}
        self._child(request, "write", request.ns(began), request.ns(request.done), counts)
        if self._learner is not None and rows and any(positions):
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier, request.context)
            self._learner.tell(rows[0].model, max(positions), carrier["traceparent"])

    def learnt(self, traceparent: str, began: int, ended: int, rows: int) -> None:
        """Labels of a trace were learnt, in nanoseconds since 1970."""
        context = self._propagator.extract({"traceparent": traceparent})
        span = self._tracer.start_span(
            "learn",
            context=context,
            kind=self._trace.SpanKind.CONSUMER,
            attributes={"mapsto.labels": rows},
            start_time=began,
        )
        span.end(ended)

    def close(self) -> None:
        """Send what waits, as far as there is time."""
        if not self._exporter.said:
            self._provider.force_flush(_END_MS)
        self._exporter.shutdown()  # which ends what tries again
        self._provider.shutdown()

    # -- private

    def _child(self, request: _Request, name: str, start: int, end: int, attributes: Any = None) -> None:
        self._tracer.start_span(name, context=request.context, attributes=attributes, start_time=start).end(end)

    def _status(self, request: _Request, status: int) -> None:
        request.span.set_attribute("http.response.status_code", status)
        if status >= 500:
            request.span.set_status(self._trace.StatusCode.ERROR)


class _TracedWriter:
    def __init__(self, writer: Writes, tracing: Tracing) -> None:
        self._writer, self._tracing = writer, tracing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    async def append(self, rows: Sequence[FeedbackRow]) -> Any:
        request = _CURRENT.get()
        if request is None:
            return await self._writer.append(rows)
        began = time.perf_counter()
        found = await self._writer.append(rows)
        self._tracing.stored(request, began, rows, found.positions)
        return found


class _Teller:
    """Tells the learner of traces, where it listens and has room: what is not heard is a span that is missing."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def tell(self, model: str, position: int, traceparent: str) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(json.dumps([model, position, traceparent]).encode(), self._path)


class LearnTraces:
    """The learner's side: which labels are of which traces."""

    def __init__(self, tracing: Tracing, path: Path) -> None:
        self._tracing = tracing
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))
        self._waiting: OrderedDict[tuple[str, int], str] = OrderedDict()
        self._steps: dict[str, deque[tuple[int, int, int, int]]] = {}

    def stepped(self, model: str, position: int, rows: int, began: int) -> None:
        """A model's learner took so many rows up to a position, from a time on, in nanoseconds since 1970."""
        steps = self._steps.setdefault(model, deque(maxlen=_MOST_STEPS))
        if rows:
            steps.append((position, rows, began, time.time_ns()))
        self._listen()
        for key in [each for each in self._waiting if each[0] == model and each[1] <= position]:
            traceparent = self._waiting.pop(key)
            step = next((each for each in steps if each[0] >= key[1]), None)
            if step is not None:
                self._tracing.learnt(traceparent, step[2], step[3], step[1])

    def close(self) -> None:
        """Hear no more, and send what waits."""
        self._socket.close()
        self._tracing.close()

    def _listen(self) -> None:
        for _ in range(_MOST_WAITING):
            try:
                model, position, traceparent = json.loads(self._socket.recv(4096))
            except (BlockingIOError, InterruptedError):
                return
            self._waiting[model, position] = traceparent
            if len(self._waiting) > _MOST_WAITING:
                self._waiting.popitem(last=False)


def _quiet(exporter: Any, url: str) -> Any:
    """An exporter that says once that its collector cannot be reached, until it can be again."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Quiet(SpanExporter):
        said = False

        def export(self, spans: Any) -> Any:
            result = exporter.export(spans)
            if result is SpanExportResult.SUCCESS:
                self.said = False
            elif not self.said:
                self.said = True
                sys.stderr.write(f"mapsto: {urlsplit(url).netloc} takes no traces; they are dropped until it does\n")
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30000) -> bool:
            return exporter.force_flush(timeout_millis)

    return Quiet()

"""The Open Inference Protocol over gRPC, in the event loop of a worker: the same models, batches, keys and limits as over HTTP.

A caller is known before the message is read. Statuses are those of gRPC for the refusals of the service; what may be asked again says
after how long, in the trailing metadata ``grpc-retry-pushback-ms`` and ``retry-after``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core would write a line for each handshake that fails

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from mapsto.errors import StoreError
from mapsto.service.grpc_protocol import message
from mapsto.service.grpc_tensors import answer_of, asked_of
from mapsto.service.keys import Caller
from mapsto.service.overload import Overload
from mapsto.service.refusal import Refusal
from mapsto.service.request_handler import FAILED, NO_MEMORY, Observe, Who, say_failed
from mapsto.service.request_log import line
from mapsto.service.requests_in_flight import RequestsInFlight
from mapsto.service.service import EXTENSIONS, Service
from mapsto_runtime import __version__

if TYPE_CHECKING:
    from mapsto.service.tracing import Tracing

__all__ = ["CODES", "GrpcServer"]

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""Of gRPC by those of HTTP; of another INTERNAL."""
_INFERENCE, _HEALTH = "inference.GRPCInferenceService", "grpc.health.v1.Health"
_METADATA_BYTES = 32 << 10
_LONGEST_TEXT = 2000
"""Characters of what is said of an error: it goes as metadata, of which clients take 8 KiB."""
_STREAMS = 128
"""Requests of a connection at once; a client holds back what is beyond."""
_CONNECTIONS = 1000
_HANDSHAKE_MS, _IDLE_MS, _PING_MS, _PONG_MS = 10_000, 600_000, 60_000, 20_000
_LEAST_PING_MS = 10_000
"""Between two pings of a client."""
_WATCHERS = 100
_LOOK = 0.25
"""Seconds between two looks for who watches health."""
_NOBODY = Caller("", "", frozenset())
"""Who asks what anyone may."""
_DRAIN_SECONDS, _QUIET_SECONDS = 2.0, 0.2
"""For which calls are still refused one by one when it ends, and without any until it does."""
_ENDS = "the service is ending"
_BUSY = "the service is busy: more requests come than it can answer in time"


class _Call(NamedTuple):
    """A request whose message has not been read."""

    began: float
    caller: Caller | None
    refusal: Refusal | None


class _Told:
    """What is noted of a request."""

    __slots__ = ("model", "reason", "status", "version")

    def __init__(self) -> None:
        self.model = self.version = self.reason = ""
        self.status = 500


_Answer = Callable[[Any, Caller, Any, _Told], Awaitable[bytes]]
"""From the message, the caller, gRPC's context and what is noted to the serialized answer."""


class _Method(NamedTuple):
    action: str
    """In metrics and the log."""
    request: Any
    """The class of its message."""
    answer: _Answer
    public: bool = False


class GrpcServer:
    """The gRPC server of one worker.

    Parameters
    ----------
    who
        Tells the caller; see `Access`.
    observe
        Told of each request, with the status that it would have over HTTP.
    address
        That is listened on, such as ``127.0.0.1:8081``, beside other workers that do.
    credentials
        Of TLS; None: it is plain.
    overload
        Bounds what the event loop takes, over HTTP and gRPC together.
    write
        Takes the line of a request; None: none is written.
    shown
        How the name of a caller stands in it.
    """

    def __init__(
        self,
        service: Service,
        who: Who,
        address: str,
        *,
        observe: Observe,
        credentials: Any = None,
        overload: Overload | None = None,
        tracing: Tracing | None = None,
        write: Callable[[str], object] | None = None,
        shown: Callable[[str], str] = str,
    ) -> None:
        self._service, self._who, self._observe = service, who, observe
        self._address, self._credentials = address, credentials
        self._overload, self._write, self._shown = overload, write, shown
        self._in_flight = RequestsInFlight(service.limits.most_wait)
        self._tracing = tracing
        self._watchers = self._came = 0
        self._ending = asyncio.Event()
        self._server: Any = None
        self.methods = {
            f"/{_INFERENCE}/ServerLive": _Method(
                "live", message("inference.ServerLiveRequest"), self._server_live, public=True
            ),
            f"/{_INFERENCE}/ServerReady": _Method(
                "ready", message("inference.ServerReadyRequest"), self._server_ready, public=True
            ),
            f"/{_INFERENCE}/ModelReady": _Method("ready", message("inference.ModelReadyRequest"), self._model_ready),
            f"/{_INFERENCE}/ServerMetadata": _Method(
                "", message("inference.ServerMetadataRequest"), self._server_metadata
            ),
            f"/{_INFERENCE}/ModelMetadata": _Method(
                "", message("inference.ModelMetadataRequest"), self._model_metadata
            ),
            f"/{_INFERENCE}/ModelInfer": _Method("infer", message("inference.ModelInferRequest"), self._model_infer),
            f"/{_HEALTH}/Check": _Method(
                "ready", message("grpc.health.v1.HealthCheckRequest"), self._check, public=True
            ),
        }
        """By their names in requests."""

    async def start(self) -> int:
        """Listen; the port. Raises `StoreError` where that is not possible."""
        options = [
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", self._service.limits.body),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", _METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", 2 * _METADATA_BYTES),
            ("grpc.max_concurrent_streams", _STREAMS),
            ("grpc.max_allowed_incoming_connections", _CONNECTIONS),
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
            ("grpc.max_connection_idle_ms", _IDLE_MS),
            ("grpc.keepalive_time_ms", _PING_MS),
            ("grpc.keepalive_timeout_ms", _PONG_MS),
            ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_MS),
        ]
        self._ending.clear()
        self._server = grpc.aio.server(interceptors=[_Routes(self)], options=options)
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(self._address)
            else:
                port = self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError as error:
            raise StoreError(
                "cannot be listened on for gRPC", where=self._address, hint="take another --grpc-port"
            ) from error
        await self._server.start()
        return port

    async def stop(self, most: float) -> None:
        """Take no request any more, and wait for those that were begun, so many seconds at most.

        What comes from now on is refused as UNAVAILABLE, which clients may send again, until nothing comes: a call that gRPC's core has
        and nobody has taken when its server stops is told that it was cancelled, and is lost.
        """
        self._ending.set()
        if self._server is None:
            return
        end, seen = time.perf_counter() + min(most, _DRAIN_SECONDS), -1
        while seen != self._came and time.perf_counter() < end:
            seen = self._came
            await asyncio.sleep(_QUIET_SECONDS)
        await self._server.stop(most)

    # -- a request

    async def handler(self, method: _Method, metadata: Any) -> Any:
        """What answers a request: one that is refused by its metadata is so before its message is read."""
        self._came += 1
        call = await self._call(method, metadata)
        answer: Any = functools.partial(self._answered if call.refusal is None else self._refused, method, call)
        if self._tracing is not None:
            answer = self._tracing.around_call(method.action or "other", metadata, call.began, answer)
        if call.refusal is not None:
            return grpc.stream_unary_rpc_method_handler(answer)
        return grpc.unary_unary_rpc_method_handler(answer)

    def watching(self) -> Any:
        """What answers who watches health."""
        return grpc.unary_stream_rpc_method_handler(self._watched)

    async def _call(self, method: _Method, metadata: Any) -> _Call:
        began = time.perf_counter()
        if method.public:
            return _Call(began, None, None)
        if self._ending.is_set():
            return _Call(began, None, Refusal(503, _ENDS, retry_after=1.0))
        key: bytes | None = None
        for name, value in metadata:
            if name == "authorization" or (name == "x-api-key" and key is None):
                key = value.encode("latin-1", "replace") if isinstance(value, str) else bytes(value)
        if method.action == "infer" and self._overload is not None and not self._overload.admits(key or b""):
            return _Call(began, None, Refusal(429, _BUSY, retry_after=1.0, reason="overload"))
        caller = None
        try:
            caller = await self._who(key)
            caller.require("predict")
        except Refusal as refusal:
            return _Call(began, caller, refusal)
        except StoreError as error:
            return _Call(began, None, Refusal(503, error.what, retry_after=5.0))
        return _Call(began, caller, None)

    async def _refused(self, method: _Method, call: _Call, requests: Any, context: Any) -> None:
        told = _Told()
        refusal = call.refusal or Refusal(500, FAILED)
        told.status, told.reason = refusal.status, refusal.reason
        try:
            await _abort(context, refusal)
        finally:
            self._note(method, call, told)

    async def _answered(self, method: _Method, call: _Call, content: bytes, context: Any) -> bytes:
        """The serialized answer to a serialized message."""
        told, name = _Told(), "" if call.caller is None else call.caller.name
        begun = method.public or self._in_flight.begin(name)
        try:
            if not begun:
                raise Refusal(429, _BUSY, retry_after=1.0, reason="overload")
            request = method.request.FromString(content)
            found = await method.answer(request, call.caller or _NOBODY, context, told)
            told.status = 200
            return found
        except Refusal as refusal:
            told.status, told.reason = refusal.status, refusal.reason
            await _abort(context, refusal)
        except DecodeError:
            told.status = 400
            await _abort(context, Refusal(400, f"this is no {method.request.DESCRIPTOR.name}"))
        except MemoryError:
            told.status, told.reason = 413, "memory"
            await _abort(context, Refusal(413, NO_MEMORY))
        except StoreError as error:
            told.status = 503
            await _abort(context, Refusal(503, error.what, retry_after=5.0))
        except asyncio.CancelledError:  # the client has gone, or its deadline has come
            told.status = 504 if (context.time_remaining() or 1.0) <= 0 else 499
            raise
        except Exception as error:
            say_failed(error)
            await _abort(context, Refusal(500, FAILED))
        finally:
            if begun and not method.public:
                self._in_flight.end(name)
            self._note(method, call, told)
        return b""

    async def _watched(self, content: bytes, context: Any) -> AsyncIterator[bytes]:
        """Health, now and whenever it changes."""
        if self._watchers >= _WATCHERS:
            await _abort(context, Refusal(429, f"{_WATCHERS} watch already", retry_after=5.0))
        self._watchers += 1
        try:
            try:
                known = message("grpc.health.v1.HealthCheckRequest").FromString(content).service in ("", _INFERENCE)
            except DecodeError:
                known = False
            said = None
            while not self._ending.is_set():
                status = _health(self._service.ready) if known else b"\x08\x03"
                if status != said:
                    said = status
                    yield status
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), _LOOK)
        finally:
            self._watchers -= 1

    def _note(self, method: _Method, call: _Call, told: _Told) -> None:
        seconds = time.perf_counter() - call.began
        route = method.action if method.action == "infer" else "other"
        self._observe(route, told.model, told.version, told.status, seconds, told.reason)
        if self._write is None:
            return
        model = told.model if told.model in self._service.names else ""
        version = ""
        if model and told.status < 400:
            version = told.version or self._service.active(model)
        caller = None if call.caller is None else self._shown(call.caller.name)
        said = line(
            caller=caller,
            method="gRPC",
            action=method.action,
            model=model,
            version=version,
            status=told.status,
            seconds=seconds,
        )
        self._write(said)

    # -- the methods

    async def _server_live(self, request: Any, caller: Caller, context: Any, told: _Told) -> bytes:
        return message("inference.ServerLiveResponse")(live=True).SerializeToString()

    async def _server_ready(self, request: Any, caller: Caller, context: Any, told: _Told) -> bytes:
        return message("inference.ServerReadyResponse")(ready=self._service.ready).SerializeToString()

    async def _check(self, request: Any, caller: Caller, context: Any, told: _Told) -> bytes:
        if request.service not in ("", _INFERENCE):
            raise Refusal(404, f"the services are '' and '{_INFERENCE}'")
        return _health(self._service.ready)

    async def _model_ready(self, request: Any, caller: Caller, context: Any, told: _Told) -> bytes:
        told.model, told.version = request.name, request.version
        self._service.metadata(request.name, request.version, caller)  # is refused where there is none
        return message("inference.ModelReadyResponse")(ready=self._service.ready).SerializeToString()

    async def _server_metadata(self, request: Any, caller: Caller, context: Any, told: _Told) -> bytes:
        found = message("inference.ServerMetadataResponse")(name="mapsto", version=__version__, extensions=EXTENSIONS)
        return found.SerializeToString()

    async def _model_metadata(self, request: Any, caller: Caller, context: Any, told: _Told) -> bytes:
        told.model, told.version = request.name, request.version
        found = self._service.metadata(request.name, request.version, caller)
        own = {name: found[name] for name in ("name", "versions", "platform", "inputs", "outputs")}
        return message("inference.ModelMetadataResponse")(**own).SerializeToString()

    async def _model_infer(self, request: Any, caller: Caller, context: Any, told: _Told) -> bytes:
        told.model, told.version = request.model_name, request.model_version
        asked = asked_of(request)
        left = context.time_remaining()
        seconds = {} if left is None else {"seconds": left}
        found = await self._service.answer(told.model, told.version, asked, caller, **seconds)
        return answer_of(
            model=told.model,
            version=found.version,
            asked=asked,
            outputs=found.outputs,
            parameters=found.parameters,
        )


class _Routes(grpc.aio.ServerInterceptor):
    """Finds what answers a request, by its method and its metadata."""

    def __init__(self, server: GrpcServer) -> None:
        self._server = server

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        name = handler_call_details.method
        if name == f"/{_HEALTH}/Watch":
            return self._server.watching()
        method = self._server.methods.get(name)
        if method is None:
            return await continuation(handler_call_details)  # of which gRPC says that it is not implemented
        return await self._server.handler(method, handler_call_details.invocation_metadata)


async def _abort(context: Any, refusal: Refusal) -> None:
    """Raises what ends a request with the status of a refusal."""
    code = CODES.get(refusal.status, grpc.StatusCode.INTERNAL)
    trailing: tuple[tuple[str, str], ...] = ()
    if refusal.retry_after is not None:
        trailing = (
            ("grpc-retry-pushback-ms", str(round(1000 * refusal.retry_after))),
            ("retry-after", str(max(1, round(refusal.retry_after + 0.5)))),
        )
    text = refusal.text if len(refusal.text) <= _LONGEST_TEXT else f"{refusal.text[:_LONGEST_TEXT]}…"
    await context.abort(code, text, trailing)


def _health(ready: bool) -> bytes:
    return message("grpc.health.v1.HealthCheckResponse")(status=1 if ready else 2).SerializeToString()

"""The requests that come often, as a small ASGI handler in front of the other routes: from bytes to arrays and back, with nothing between.

It answers ``POST /v2/models/NAME[/versions/VERSION]/infer`` and ``POST /v2/models/NAME/feedback``; all else goes to the application
behind it.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import sys
import time
import traceback
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import unquote

from mapsto.errors import StoreError
from mapsto.service.feedback_protocol import encoded, labels_of
from mapsto.service.hosts import Hosts
from mapsto.service.inference_protocol import HEADER_LENGTH, decode
from mapsto.service.keys import Caller
from mapsto.service.refusal import Refusal, error_body
from mapsto.service.service import Service

__all__ = [
    "CALLER",
    "Application",
    "Gone",
    "RequestHandler",
    "Receive",
    "Scope",
    "Send",
    "Who",
    "read_body",
    "refused",
    "say_failed",
]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Who: TypeAlias = Callable[[bytes | None], Awaitable[Caller]]
"""The caller by the value of the ``Authorization`` or ``X-Api-Key`` header. Raises `Refusal` (401, 429, 503)."""
Observe: TypeAlias = Callable[[str, str, str, int, float, str], None]
"""Told of each request: ``infer`` or ``feedback``, the model and the version as they were asked for, the status, the seconds, and why it
was refused where the status does not tell."""
CALLER = "mapsto.caller"
"""Where `RequestLog` wants to be told in a request's scope who sends it: a mapping, of which ``name`` is set."""
FAILED = "the service failed; what it wrote to standard error says where"
NO_MEMORY = "there is not the memory for this request; send fewer samples at once"
_MOST_ASSEMBLING = 8
"""Bodies of the greatest size whose parts may be held at once."""
_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")


class RequestHandler:
    """The ASGI application of the service.

    Parameters
    ----------
    behind
        What answers every other route.
    who
        Tells the caller; see `Access`.
    hosts
        The names that it answers to; None: any.
    """

    def __init__(
        self,
        service: Service,
        behind: Application,
        who: Who,
        observe: Observe | None = None,
        hosts: Hosts | None = None,
    ) -> None:
        self._service, self._behind, self._who = service, behind, who
        self._observe: Observe = observe or _unobserved
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._hosts is not None and not self._hosts.allow(scope["headers"]):
            await refused(send, Refusal(421, "the service does not answer to this name; --host-name allows names"))
            return
        path = scope.get("path", "")
        infers = path.endswith("/infer")
        if scope["type"] != "http" or not (infers or path.endswith("/feedback")) or not path.startswith("/v2/models/"):
            try:
                await self._behind(scope, receive, send)
            except Exception as error:  # which has been answered with 500
                say_failed(error)
            return
        began = time.perf_counter()
        name, version, status, reason = "", "", 500, ""
        try:
            if scope["method"] != "POST":
                raise Refusal(405, "it is asked for by POST")
            name, version = _model_of(path, "infer" if infers else "feedback")
            length = encoding = key = None
            wants_gzip = False
            for header, value in scope["headers"]:
                if header == b"authorization" or (header == b"x-api-key" and key is None):
                    key = value
                elif header == HEADER_LENGTH:
                    length = value
                elif header == b"content-encoding":
                    encoding = value
                elif header == b"accept-encoding":
                    wants_gzip = _takes_gzip(value)
            caller = await self._who(key)
            if CALLER in scope:
                scope[CALLER]["name"] = caller.name
            caller.require("predict" if infers else "learn")
            body = await read_body(receive, self._service.limits.body)
            if encoding:
                body = unpacked(body, encoding, self._service.limits.body)
            head = None
            if infers:
                content, head = await self._service.infer(name, version, decode(body, length), caller)
            else:
                content = encoded(await self._service.feedback(name, labels_of(body), caller))
            headers: list[tuple[bytes, bytes]] = [_JSON] if head is None else [_BINARY, (HEADER_LENGTH, b"%d" % head)]
            if wants_gzip and len(content) > 1 << 14:
                content = await asyncio.to_thread(gzip.compress, content, 1)
                headers.append((b"content-encoding", b"gzip"))
            status = 200
            await _answer(send, 200, content, headers)
        except Refusal as refusal:
            status, reason = refusal.status, refusal.reason
            await refused(send, refusal)
        except MemoryError:
            status, reason = 413, "memory"
            await refused(send, Refusal(413, NO_MEMORY))
        except Gone:
            status = 499
        except StoreError as error:
            status = 503
            await refused(send, Refusal(503, error.what, retry_after=5.0))
        except Exception as error:
            say_failed(error)
            if status != 200:
                await refused(send, Refusal(500, FAILED))
        finally:
            seconds = time.perf_counter() - began
            self._observe("infer" if infers else "feedback", name, version, status, seconds, reason)


def say_failed(error: Exception) -> None:
    """Say where the service failed, and not on what: the text of an exception may hold what a client sent."""
    if os.environ.get("MAPSTO_DEBUG"):
        raise error
    frames = "".join(traceback.format_tb(error.__traceback__))
    sys.stderr.write(f"mapsto: a request failed with {type(error).__name__}; MAPSTO_DEBUG=1 shows its text\n{frames}")


def _unobserved(action: str, model: str, version: str, status: int, seconds: float, reason: str) -> None:
    """Nobody asks."""


class Gone(Exception):
    """The client has gone."""


class _Assembling:
    """Bytes of bodies of this process that are not whole yet."""

    held = 0


async def read_body(receive: Receive, most: int) -> bytes:
    """The body of a request.

    Raises
    ------
    Refusal
        413: it is longer than allowed; 503: too much of other bodies is waited for.
    Gone
        The client has gone.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Gone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and len(body) <= most:
        return body
    parts, size = [body], len(body)
    _Assembling.held += size
    try:
        while message.get("more_body", False) and size <= most:
            if _Assembling.held > _MOST_ASSEMBLING * most:
                raise Refusal(503, "too many large bodies are being sent", retry_after=2.0)
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            _Assembling.held += len(parts[-1])
    finally:
        _Assembling.held -= size
    if size > most:
        raise Refusal(413, f"the body has more than {most} bytes")
    return b"".join(parts)


def _takes_gzip(accepted: bytes) -> bool:
    """Whether a header Accept-Encoding names gzip, and not as what is refused.

    >>> _takes_gzip(b"br, gzip;q=0.5"), _takes_gzip(b"gzip; q=0, br"), _takes_gzip(b"br")
    (True, False, False)
    """
    for entry in accepted.lower().split(b","):
        coding, _, rest = entry.replace(b" ", b"").partition(b";")
        if coding in (b"gzip", b"x-gzip"):
            return not _NEVER.fullmatch(rest)
    return False


_NEVER = re.compile(rb"q=0(\.0*)?")


def unpacked(body: bytes, encoding: bytes, most: int) -> bytes:
    """The content of a compressed body. Raises `Refusal`: 415 for another compression, 413 where it becomes too large."""
    kind = encoding.strip().lower()
    if kind == b"identity":
        return body
    if kind not in (b"gzip", b"deflate"):
        raise Refusal(415, "the body is compressed in a way that is not taken; gzip and deflate are")
    bits = zlib.MAX_WBITS | 16 if kind == b"gzip" else zlib.MAX_WBITS
    if kind == b"deflate" and (not body or body[0] & 15 != 8):  # some send it without the header that it should have
        bits = -zlib.MAX_WBITS
    machine = zlib.decompressobj(bits)
    try:
        found = machine.decompress(body, most + 1)
    except zlib.error as error:
        raise Refusal(400, f"the body is no whole {kind.decode()}: {error}") from error
    if len(found) > most:
        raise Refusal(413, f"the body has more than {most} bytes when it is unpacked")
    if not machine.eof:
        raise Refusal(400, f"the body is no whole {kind.decode()}")
    return found


async def refused(send: Send, refusal: Refusal) -> None:
    """Answer with an error of the protocol."""
    await _answer(send, refusal.status, error_body(refusal.text), [_JSON, *refusal.headers()])


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _model_of(path: str, action: str) -> tuple[str, str]:
    """The model and version of ``/v2/models/NAME[/versions/VERSION]/infer`` or ``/v2/models/NAME/feedback``; no version is empty."""
    parts = path.split("/")
    if len(parts) == 5 and parts[3]:
        return unquote(parts[3]), ""
    if len(parts) == 7 and parts[3] and parts[4] == "versions" and parts[5] and action == "infer":
        return unquote(parts[3]), unquote(parts[5])
    raise Refusal(404, f"there is no such path; it is POST /v2/models/NAME/{action}")

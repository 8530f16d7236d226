"""Clients that mean harm, against a whole service: two requests in one, slow ones, ones that reset, that stop midway or take no answer."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.service.connections import ConnectionLimits
from mapsto.service.request_handler import _Assembling
from tests.service.listening import Listening, listening
from tests.service.memory import Memory

HOST = b"host: 127.0.0.1\r\n"
HIDDEN = b"GET /v2/health/live HTTP/1.1\r\n" + HOST + b"\r\n"
"""A request that is hidden in another: a proxy in front that reads the first otherwise would let it pass unseen."""
POST = b"POST /v2/health/live HTTP/1.1\r\n" + HOST
LENGTH = b"%d" % len(HIDDEN)
LIMITS = ConnectionLimits(header_seconds=0.5, body_gap=0.4, body_seconds=0.6, idle=1.0, linger=0.3, unsent=0.4)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    with listening(tmp_path_factory.mktemp("hostile"), limits=LIMITS) as found:
        yield found


def answers(service: Listening, content: bytes) -> bytes:
    """All that comes for bytes after which no more come."""
    with service.connection() as client:
        found = b""
        with contextlib.suppress(ConnectionError):
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)
            while part := client.recv(1 << 16):
                found += part
    return found


def infer(rows: int, service: Listening, *, length: int | None = None) -> bytes:
    item = {"name": "input", "datatype": "FP32", "shape": [rows, 3], "data": np.ones(3 * rows).tolist()}
    body = json.dumps({"inputs": [item]}).encode()
    head = b"POST /v2/models/signs/infer HTTP/1.1\r\n" + HOST + b"authorization: Bearer %s\r\n" % service.key.encode()
    return head + b"content-length: %d\r\n\r\n" % (len(body) if length is None else length) + body


@pytest.mark.parametrize(
    "content",
    {
        "a length and chunks": POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        "chunks and a length": POST + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
        "two lengths": POST + b"content-length: 0\r\ncontent-length: " + LENGTH + b"\r\n\r\n" + HIDDEN,
        "one length twice": POST + b"content-length: 0\r\ncontent-length: 0\r\n\r\n" + HIDDEN,
        "a list of lengths": POST + b"content-length: 0, " + LENGTH + b"\r\n\r\n" + HIDDEN,
        "a length with a sign": POST + b"content-length: +0\r\n\r\n" + HIDDEN,
        "a hexadecimal length": POST + b"content-length: 0x0\r\n\r\n" + HIDDEN,
        "a blank before the colon": POST + b"content-length : 0\r\n\r\n" + HIDDEN,
        "chunks with a blank": POST + b"transfer-encoding : chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n" + HIDDEN,
        "a coding nobody knows": POST
        + b"transfer-encoding: xchunked\r\ncontent-length: "
        + LENGTH
        + b"\r\n\r\n"
        + HIDDEN,
        "chunks that are not last": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
        "two codings": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
        "a control character": POST
        + b"transfer-encoding: \x0bchunked\r\ncontent-length: "
        + LENGTH
        + b"\r\n\r\n"
        + HIDDEN,
        "a folded line": POST + b"transfer-encoding:\r\n chunked\r\ncontent-length: " + LENGTH + b"\r\n\r\n" + HIDDEN,
        "line feeds alone": POST.replace(b"\r\n", b"\n") + b"content-length: 0\n\n" + HIDDEN,
        "a carriage return alone": POST + b"x: y\rcontent-length: 5\r\n\r\n" + HIDDEN,
        "a zero byte": POST + b"content-length: 0\0\r\n\r\n" + HIDDEN,
        "a chunk of 72 bits": POST + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nx\r\n0\r\n\r\n" + HIDDEN,
        "a negative chunk": POST + b"transfer-encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n" + HIDDEN,
        "a chunk of 0x1": POST + b"transfer-encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n" + HIDDEN,
        "chunks with line feeds": POST + b"transfer-encoding: chunked\r\n\r\n1\nx\n0\n\n" + HIDDEN,
        "a line feed in an extension": POST + b"transfer-encoding: chunked\r\n\r\n1;a=\nb\r\nx\r\n0\r\n\r\n" + HIDDEN,
        "a chunk longer than it says": POST + b"transfer-encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n" + HIDDEN,
        "a length in the trailer": POST + b"transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 40\r\n\r\n" + HIDDEN,
        "a proxy's method": b"CONNECT evil:80 HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
        "bytes that are no UTF-8": b"GET /v2/health/\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
    }.items(),
    ids=lambda case: case[0],
)
def test_a_request_that_can_be_read_in_two_ways_is_refused(service: Listening, content: tuple[str, bytes]) -> None:
    found = answers(service, content[1])
    assert re.findall(rb"HTTP/1\.1 (\d+)", found) == [b"400"], "one answer"
    assert b"live" not in found
    assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]


def test_a_body_is_no_request(service: Listening) -> None:
    get = b"GET /v2/health/live HTTP/1.1\r\n" + HOST + b"content-length: " + LENGTH + b"\r\n\r\n" + HIDDEN
    assert answers(service, get).count(b"HTTP/1.1 200") == 1
    old = POST.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN
    assert answers(service, old).count(b"HTTP/1.1") == 1


def hostile(service: Listening, number: int, rng: np.random.Generator) -> socket.socket | None:
    """One client, by its number; the connection where it stays open."""
    client = service.connection()
    whole = infer(int(rng.integers(1, 200)), service)
    kind = number % 7
    if kind == 0:  # slow headers
        client.sendall(whole[:30])
        return client
    if kind == 1:  # a body that stops
        client.sendall(whole[: len(whole) // 2])
        return client
    if kind == 2:  # it says that much more comes
        client.sendall(infer(1, service, length=50 << 20))
        return client
    if kind == 3:  # reset, in the middle of a body or with the answer on its way
        client.sendall(whole[: int(rng.integers(1, len(whole) + 1))])
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif kind == 4:  # many at once, no answer of which is taken
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(whole * 20)
        return client
    elif kind == 5:  # one that is right, in parts
        for start in range(0, len(whole), 1000):
            client.sendall(whole[start : start + 1000])
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
    else:  # nothing at all
        return client
    client.close()
    return None


def attacked(service: Listening, count: int) -> Memory:
    """Hostile clients, thirty at a time, among which one that means well is answered in time."""
    rng, memory, held, slowest = np.random.default_rng(0), Memory(), list[Any](), 0.0
    for number in range(count):
        held.append(hostile(service, number, rng))
        if len(held) > 30:
            gone = held.pop(0)
            _ = gone and gone.close()
        if number % 10 == 0:
            began = time.perf_counter()
            assert b"HTTP/1.1 200" in answers(service, infer(2, service))
            slowest = max(slowest, time.perf_counter() - began)
            memory.note(number)
    for client in held:
        _ = client and client.close()
    assert slowest < 5
    end = time.monotonic() + 10
    while service.open() and time.monotonic() < end:
        time.sleep(0.05)
    assert service.open() == 0, "no connection stays"
    assert _Assembling.held == 0, "nor any part of a body"
    return memory


def test_who_means_well_is_answered_among_those_who_do_not(service: Listening) -> None:
    attacked(service, 100)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_hostile_clients_leave_no_memory_behind(service: Listening) -> None:
    memory = attacked(service, 5000)
    assert memory.growth() < 16, memory.samples


def test_clients_that_send_nothing_more_are_closed_in_time(service: Listening) -> None:
    clients = [hostile(service, kind, np.random.default_rng(0)) for kind in (0, 1, 2, 6)]
    began = time.monotonic()
    for client in clients:
        assert client is not None
        found = b""
        with contextlib.suppress(ConnectionError):
            while part := client.recv(1 << 16):
                found += part
        assert found[:12] in (b"HTTP/1.1 408", b"")
        client.close()
    assert time.monotonic() - began < 5


def test_a_request_that_asks_for_another_host_by_its_line_or_twice_is_refused(tmp_path: Path) -> None:
    from mapsto.service.hosts import Hosts
    from tests.service.in_process import started

    with started(tmp_path, hosts=Hosts("127.0.0.1")) as service:
        assert service.ask("/v2/health/live", host="evil.example").status == 421
        assert service.ask("/v2/health/live", host="127.0.0.1").status == 200
    assert not Hosts("127.0.0.1").allow([(b"host", b"127.0.0.1"), (b"host", b"evil.example")])

"""A client that is slow, endless or greedy is answered in time and closed; the others do not notice."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pytest
import uvicorn

from mapsto.service.connections import ConnectionLimits, limited, watch

LIMITS = ConnectionLimits(
    connections=8,
    header_bytes=2000,
    headers=20,
    header_seconds=0.8,
    body_gap=0.5,
    body_seconds=0.8,
    body_rate=1000,
    framing=500,
    idle=0.8,
    linger=0.4,
    unsent=0.4,
    pipelined=4,
    ending_gap=0.1,
)
POST = b"POST /echo HTTP/1.1\r\nhost: x\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body's length; ``/early`` before the body, ``/slow`` after a while, ``/large`` with much."""
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    content = b"x" * 50_000_000 if scope["path"] == "/large" else b"%s %d" % (scope["path"].encode(), size)
    headers = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class Server(NamedTuple):
    uvicorn: uvicorn.Server
    port: int
    closed: list[int]
    """The statuses that metrics are told of."""

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def open(self) -> int:
        return len(self.uvicorn.server_state.connections)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    listening = socket.create_server(("127.0.0.1", 0))
    closed: list[int] = []
    own = limited(LIMITS, closed=closed.append)
    config = uvicorn.Config(application, http=own, ws="none", lifespan="off", log_level="critical")
    running = uvicorn.Server(config)

    async def run() -> None:
        watching = asyncio.ensure_future(watch(running.server_state.connections, every=0.02))
        await running.serve([listening])
        watching.cancel()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    yield Server(running, listening.getsockname()[1], closed)
    running.should_exit = True
    thread.join()


@pytest.fixture
def client(server: Server) -> Iterator[socket.socket]:
    with closing(server.connection()) as connection:
        yield connection


def rest(client: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    found = b""
    try:
        while part := client.recv(1 << 16):
            found += part
    except ConnectionResetError:  # closed while something was still sent
        return found
    return found


def answer(client: socket.socket) -> str:
    """The body of one answer, on a connection that is kept."""
    with client.makefile("rb") as file:
        length = 0
        for line in file:
            name, _, value = line.partition(b":")
            length = int(value) if name == b"content-length" else length
            if line == b"\r\n":
                return file.read(length).decode()
    return ""


def statuses(client: socket.socket) -> list[int]:
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d+)", rest(client))]


def send_slowly(client: socket.socket, parts: Any, pause: float) -> None:
    """Until it is closed."""
    try:
        for part in parts:
            client.sendall(part)
            time.sleep(pause)
    except OSError:
        return


def took(client: socket.socket) -> tuple[list[int], float]:
    began = time.monotonic()
    return statuses(client), time.monotonic() - began


def test_a_request_is_answered_and_the_connection_kept(client: socket.socket) -> None:
    for number in range(3):
        client.sendall(POST + b"content-length: %d\r\n\r\n" % number + b"x" * number)
        assert answer(client) == f"/echo {number}"
        time.sleep(0.1)
    found, seconds = took(client)
    assert found == []
    assert 0.2 < seconds < 2, "then it is idle for too long"


def test_slow_headers_are_given_up(client: socket.socket) -> None:
    began = time.monotonic()
    sender = threading.Thread(target=send_slowly, args=(client, [POST, *[b"a: b\r\n"] * 15], 0.08))
    sender.start()
    found = rest(client)
    assert found.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 2
    assert json.loads(found.partition(b"\r\n\r\n")[2]) == {"error": "the headers were not whole within 0.8 s"}
    sender.join()


def test_connections_on_which_no_request_comes_are_closed(server: Server) -> None:
    clients = [(server.connection(), sent) for sent in (b"", b"\r\n", b"POST")]
    for client, sent in clients:
        client.sendall(sent)
    for client, sent in clients:
        found, seconds = took(client)
        assert found == ([408] if sent else [])
        assert seconds < 2
        client.close()


@pytest.mark.slow
def test_blank_lines_do_not_keep_a_connection(client: socket.socket) -> None:
    client.sendall(POST + b"content-length: 0\r\n\r\n")
    answer(client)
    began = time.monotonic()
    send_slowly(client, [b"\r\n"] * 40, 0.08)
    assert time.monotonic() - began < 2.5
    assert statuses(client) in ([408], [])


@pytest.mark.parametrize(
    "headers",
    [
        [b"a" * 100] * 1000,
        [b"a: " + b"b" * 3000 + b"\r\n", b"\r\n"],
        [b"a: b\r\n" * 25, b"\r\n"],
        [b"a: b\r\n"] * 25,
        [b"\r\n" * 2000],
    ],
    ids=["endless name", "one that is large", "many at once", "many one by one", "blank lines"],
)
def test_headers_that_are_too_large_are_refused(client: socket.socket, headers: list[bytes]) -> None:
    sent = headers if headers == [b"\r\n" * 2000] else [POST, *headers]
    send_slowly(client, sent, 0)
    assert rest(client).startswith(b"HTTP/1.1 431 ")


def test_an_address_that_is_too_long_is_refused(client: socket.socket) -> None:
    client.sendall(b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert rest(client).startswith(b"HTTP/1.1 431 ")


def test_a_body_that_stops_is_given_up(client: socket.socket) -> None:
    client.sendall(POST + b"content-length: 100\r\n\r\nhalf")
    found, seconds = took(client)
    assert found == [408]
    assert 0.25 < seconds < 2


def test_a_body_slower_than_the_rate_is_given_up(client: socket.socket) -> None:
    began = time.monotonic()
    sender = threading.Thread(
        target=send_slowly, args=(client, [POST + b"content-length: 1000\r\n\r\n", *[b"x"] * 60], 0.05)
    )
    sender.start()
    assert b"slower than 1000 bytes a second" in rest(client)
    assert 0.7 < time.monotonic() - began < 3
    sender.join()


@pytest.mark.slow
def test_a_long_body_has_longer(client: socket.socket) -> None:
    parts = [b"x" * 300] * 10  # 3,000 bytes in 0.9 s
    send_slowly(client, [POST + b"content-length: 3000\r\n\r\n", *parts], 0.09)
    assert answer(client) == "/echo 3000"


def test_what_is_around_a_body_is_bounded(client: socket.socket) -> None:
    client.sendall(POST + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
    send_slowly(client, [b"0\r\n", *[b"a" * 100] * 50], 0)
    assert rest(client).startswith(b"HTTP/1.1 400 ")


def test_chunks_are_taken(client: socket.socket) -> None:
    client.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
    send_slowly(client, [b"5\r\nhello\r\n", b"1\r\n!\r\n", b"0\r\n\r\n"], 0.02)
    assert answer(client) == "/echo 6"


def test_after_an_early_answer_the_rest_is_waited_for_a_little(client: socket.socket) -> None:
    client.sendall(b"POST /early HTTP/1.1\r\ncontent-length: 10\r\n\r\nhalf")
    assert answer(client) == "/early 0"
    client.sendall(b"xxxxxx" + POST + b"content-length: 1\r\n\r\nx")
    assert answer(client) == "/echo 1"
    client.sendall(b"POST /early HTTP/1.1\r\ncontent-length: 10\r\n\r\nhalf")
    assert answer(client) == "/early 0"
    found, seconds = took(client)
    assert found == []
    assert 0.3 < seconds < 2


def test_pipelined_requests_are_answered_in_their_order(client: socket.socket) -> None:
    client.sendall(
        b"GET /slow HTTP/1.1\r\n\r\nGET /a HTTP/1.1\r\n\r\n"
        + POST
        + b"connection: close\r\ncontent-length: 4\r\n\r\nab"
    )
    time.sleep(0.3)
    client.sendall(b"cd")
    assert re.findall(rb"(/\w+ \d+)", rest(client)) == [b"/slow 0", b"/a 0", b"/echo 4"]


def test_more_pipelined_requests_than_allowed_are_not_kept(client: socket.socket) -> None:
    client.sendall(b"GET /slow HTTP/1.1\r\n\r\n" + b"GET /a HTTP/1.1\r\n\r\n" * 1000)
    assert statuses(client) == [200] * 5, "the first, and those that may wait"


def test_what_is_no_http_is_refused_in_the_protocols_form(client: socket.socket) -> None:
    client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
    found = rest(client)
    assert found.startswith(b"HTTP/1.1 400 ")
    assert "error" in json.loads(found.partition(b"\r\n\r\n")[2])


@pytest.mark.slow
def test_a_client_that_takes_no_answer_is_closed(server: Server) -> None:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.port))
    client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
    before = time.monotonic()
    while server.open() == 0 and time.monotonic() < before + 2:
        time.sleep(0.01)
    while server.open() and time.monotonic() < before + 5:
        time.sleep(0.02)
    assert server.open() == 0
    client.close()


def test_connections_beyond_the_limit_are_told_so(server: Server) -> None:
    end = time.monotonic() + 5
    while server.open() and time.monotonic() < end:
        time.sleep(0.02)
    held = [server.connection() for _ in range(LIMITS.connections)]
    one_more = server.connection()
    one_more.sendall(b"GET /a HTTP/1.1\r\n\r\n")
    found = rest(one_more)
    assert found.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in found
    for number, each in enumerate(held):
        each.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        assert answer(each) == "/a 0", number
    for each in (*held, one_more):
        each.close()
    while server.open() and time.monotonic() < end:
        time.sleep(0.02)
    with closing(server.connection()) as again:
        again.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        assert answer(again) == "/a 0"


def test_what_is_refused_is_told_once_each(server: Server) -> None:
    server.closed.clear()
    sent = [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 3000 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n", b""]
    for content in sent:
        with closing(server.connection()) as client:
            client.sendall(content)
            rest(client)
    assert server.closed == [400, 431, 408], "a connection on which nothing came is no request"
    server.closed.clear()
    clients = [server.connection() for _ in range(LIMITS.connections + 1)]
    assert statuses(clients[-1]) == [503]
    assert server.closed == [503]
    for client in clients:
        client.close()
    end = time.monotonic() + 5
    while server.open() and time.monotonic() < end:
        time.sleep(0.01)

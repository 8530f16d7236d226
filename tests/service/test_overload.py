"""A flood on an event loop that takes a millisecond for each request."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from mapsto.service.overload import Overload

SECONDS = 0.001
ROUND = 0.02
"""Seconds that a round may take: a third of what may be waited."""


def request(key: str = "a", path: str = "/v2/models/m/infer") -> bytes:
    return f"POST {path} HTTP/1.1\r\nAuthorization: Bearer {key}\r\nContent-Length: 2\r\n\r\n{{}}".encode()


class _Clock:
    """Goes on only while something works, so that what else the machine does makes no difference."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


CLOCK = _Clock()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mapsto.service.overload.time", CLOCK)


def flooded(overload: Overload, asked: list[bytes], rounds: int = 30) -> list[Counter[bytes]]:
    """What went on in each round in which all of these requests come."""

    def work() -> None:
        CLOCK.now += SECONDS

    async def run() -> list[Counter[bytes]]:
        loop = asyncio.get_running_loop()
        found: list[Counter[bytes]] = []
        for _ in range(rounds):
            taken = [data for data in asked if overload.refusal(data) is None]
            for _ in taken:
                loop.call_soon(work)
            found.append(Counter(taken))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return found

    return asyncio.run(run())


def test_of_a_flood_as_many_go_on_as_are_answered_in_time() -> None:
    told = list[None]()
    overload = Overload(3 * ROUND, refused=lambda: told.append(None))
    found = flooded(overload, [request()] * 200)
    late = [taken.total() for taken in found[-10:]]
    assert max(late) < 2 * ROUND / SECONDS, "a round is about as long as it may be"
    assert min(late) >= 2, "some are answered in each"
    assert len(told) == sum(200 - taken.total() for taken in found)


def test_what_can_be_answered_is_not_refused() -> None:
    overload = Overload(3 * ROUND)
    assert all(taken.total() == 5 for taken in flooded(overload, [request()] * 5))


def test_a_key_that_floods_leaves_the_others_their_share() -> None:
    overload = Overload(3 * ROUND)
    few = [request("b")] * 2
    late = flooded(overload, [*[request("a")] * 200, *few])[-10:]
    assert all(taken[few[0]] == 2 for taken in late)


def test_those_who_are_not_known_share_as_one() -> None:
    overload = Overload(3 * ROUND, lambda value: "b" if value == b"Bearer b" else "")
    few = [request("b")] * 5
    late = flooded(overload, [*[request(f"made up {number}") for number in range(200)], *few])[-10:]
    assert all(taken[few[0]] == 5 for taken in late)


def test_what_is_no_whole_request_for_a_model_goes_on() -> None:
    overload = Overload(3 * ROUND)
    others = [
        b"GET /v2/health/ready HTTP/1.1\r\n\r\n",
        request()[:-1],
        request().replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"),
        request().replace(b"Content-Length: 2", b"Content-Length: x"),
        request().replace(b"Content-Length: 2", b"Content-Length: " + b"9" * 5000),
        request().replace(b"Content-Length: 2", b"Content-Length: 2\r\nContent-Length: 2"),
        request().replace(b"Content-Length: 2", b"Content-Length: 2\r\nTransfer-Encoding: chunked"),
    ]
    late = flooded(overload, [*[request()] * 200, *others])[-1]
    assert [late[each] for each in others] == [1] * 7


def test_the_answer_is_one_of_the_protocol() -> None:
    overload = Overload(3 * ROUND)

    closing = request().replace(b"\r\nContent", b"\r\nConnection: close\r\nContent")
    old = request().replace(b"HTTP/1.1", b"HTTP/1.0")

    async def run() -> list[set[tuple[bytes, bool]]]:
        return [
            {found for _ in range(5000) if (found := overload.refusal(data)) is not None}
            for data in (request(), closing, old)
        ]

    kept, *ended = asyncio.run(run())
    assert [last for _, last in kept] == [False] * 3, "with several times to come again"
    for found in ended:
        assert all(last and b"\r\nconnection: close\r\n" in answer for answer, last in found)
        assert len(found) == 3
    for answer, _ in kept:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert f"content-length: {len(body)}".encode() in head
        assert body == b'{"error":"the service is busy: more requests come than it can answer in time"}'

"""Bodies are bounded, each and all together."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Sequence
from typing import Any

import pytest

from mapsto.service.refusal import Refusal
from mapsto.service.request_handler import Gone, read_body, unpacked


def sending(parts: Sequence[bytes | None], *, last: bool = True) -> Any:
    """What gives the parts, and then nothing for ever, unless the last one was the end; None: the client goes."""
    left = list(parts)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        part = left.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(left) or not last}

    return receive


def status(receive: Any, most: int = 10) -> int:
    try:
        asyncio.run(read_body(receive, most))
    except Refusal as refusal:
        return refusal.status
    return 200


def test_a_body_comes_in_parts() -> None:
    assert asyncio.run(read_body(sending([b"abc"]), 10)) == b"abc"
    assert asyncio.run(read_body(sending([b"abc", b"", b"defg", b"hij"]), 10)) == b"abcdefghij"


@pytest.mark.parametrize("parts", [[b"x" * 11], [b"x" * 5] * 3, [b"x"] * 1000])
def test_one_that_is_too_long_is_refused(parts: list[bytes]) -> None:
    assert status(sending(parts)) == 413


@pytest.mark.parametrize("parts", [[None], [b"abc", None]])
def test_a_client_that_goes_is_no_body(parts: list[bytes | None]) -> None:
    with pytest.raises(Gone):
        asyncio.run(read_body(sending(parts), 10))


def test_all_that_are_not_whole_are_bounded_together() -> None:
    async def run() -> None:
        held = [asyncio.ensure_future(read_body(sending([b"x" * 10], last=False), 10)) for _ in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await read_body(sending([b"x", b"y"]), 10)
        assert (refused.value.status, refused.value.retry_after) == (503, 2.0)
        assert await read_body(sending([b"whole at once"]), 20) == b"whole at once"
        for each in held:
            each.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        assert await read_body(sending([b"x", b"y"]), 10) == b"xy"

    asyncio.run(run())


@pytest.mark.parametrize("kind", [b"gzip", b"deflate"])
def test_a_body_that_becomes_too_large_is_not_unpacked(kind: bytes) -> None:
    content = b"x" * 100_000
    packed = gzip.compress(content) if kind == b"gzip" else zlib.compress(content)
    assert unpacked(packed, kind, 100_000) == content
    for body, most, wanted in ((packed, 99_999, 413), (packed[:-9], 100_000, 400), (b"x", 100, 400)):
        with pytest.raises(Refusal) as refused:
            unpacked(body, kind, most)
        assert refused.value.status == wanted

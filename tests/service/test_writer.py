"""What stores feedback tells everybody who waits, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mapsto.service.feedback_protocol import labels_of
from mapsto.service.refusal import Refusal
from mapsto.service.state import FeedbackRow
from mapsto.service.writer import RemoteWriter, Writer

ROW = FeedbackRow(model="m", event="e", tenant="t", version="1", label="a", answer="", features=b"")


class Failing:
    """A state that fails once, in a way that is none of its own."""

    failed = False

    def append(self, rows: Sequence[FeedbackRow]) -> list[int]:
        if not self.failed:
            self.failed = True
            raise ValueError("a secret")
        return list(range(1, len(rows) + 1))


def test_it_goes_on_after_an_error_that_nobody_foresaw() -> None:
    state: Any = Failing()
    writer = Writer(state)

    async def run() -> list[int]:
        with pytest.raises(Refusal, match=r"was not stored: ValueError$"):
            await writer.append([ROW])
        return (await asyncio.wait_for(writer.append([ROW, ROW]), 10)).positions

    assert asyncio.run(run()) == [1, 2]


def test_a_writer_that_ends_at_once_is_told_of(tmp_path: Path) -> None:
    def ended(reader: asyncio.StreamReader, stream: asyncio.StreamWriter) -> None:
        stream.close()

    async def run() -> None:
        async with await asyncio.start_unix_server(ended, str(tmp_path / "socket")):
            writer = RemoteWriter(tmp_path / "socket")
            for _ in range(20):
                with pytest.raises(Refusal, match="is being started again"):
                    await asyncio.wait_for(writer.append([ROW]), 10)
            assert writer.waiting == 0
            writer.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "body", [b'{"label": "\xff"}', b'{"label": "a\\u0000"}', b'{"label": "a", "inputs": [' + b"[" * 100_000]
)
def test_what_is_no_text_is_refused_before_it_gets_there(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        labels_of(body)
    assert refused.value.status == 400

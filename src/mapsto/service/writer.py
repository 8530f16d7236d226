"""One process that stores feedback: what comes while a transaction is written goes into the next, and is acknowledged when that is durable.

Workers reach it through a socket in a folder of the service; `python -m mapsto.service.writer` is it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mapsto.data.privacy.masking import MaskingError
from mapsto.data.privacy.settings import Privacy
from mapsto.errors import StoreError
from mapsto.service.refusal import Refusal
from mapsto.service.retention import Retention
from mapsto.service.row_masking import RowMasking, Stored, Tell, masking_of
from mapsto.service.state import FeedbackRow, State

__all__ = ["RemoteWriter", "Writer", "Writes"]

_MOST = 256
"""Rows of a transaction, unless one request has more."""
_MOST_WAITING = 4096
"""Requests that may wait; beyond it feedback is refused with 503."""
_MOST_SECONDS = 30.0
"""That a worker waits for the writer."""
_MOST_MASKING = 25.0
"""Seconds after which a request is masked no longer, so that its worker still hears why."""
_TURN = 0.02
"""Seconds of masking for one request before it is the next one's turn."""


class Writes(Protocol):
    """What stores feedback."""

    @property
    def waiting(self) -> int:
        """Requests that are not stored yet."""
        ...

    async def append(self, rows: Sequence[FeedbackRow]) -> Stored:
        """Positions of the rows, once they are durable, and which labels were masked."""
        ...

    async def masked(self, labels: Sequence[str]) -> list[str]:
        """Labels of examples as they may be stored; see `RowMasking.labels`."""
        ...

    def close(self) -> None:
        """Ends, once what waits is stored."""
        ...


class Writer:
    """Stores in the event loop, which does nothing else meanwhile: what comes is the next transaction."""

    def __init__(self, state: State, masking: RowMasking | None = None) -> None:
        self._state, self._masking = state, masking
        self._queue: deque[tuple[Sequence[FeedbackRow], Tell]] = deque()
        self._scheduled = False
        self._masked: deque[tuple[Generator[None], Callable[[Refusal], None], float]] = deque()
        """What is being masked, what is told where that fails, and until when it is tried."""
        self._masks = False

    @property
    def waiting(self) -> int:
        """Requests that are masked or in the queue."""
        return len(self._queue) + len(self._masked)

    async def append(self, rows: Sequence[FeedbackRow]) -> Stored:
        """Positions of the rows, once they are durable, and which labels were masked.

        Raises `Refusal` (503) where the state cannot be written or too much waits: then none of them is stored.
        """
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        if self.waiting >= _MOST_WAITING:
            raise _too_much()
        self.put(rows, lambda found: _settle(future, found))
        return await future

    def put(self, rows: Sequence[FeedbackRow], tell: Tell) -> None:
        """As `append`, with what is told once they are stored or cannot be."""
        if self._masking is None:
            self._put(rows, tell)
        else:
            self._begin(self._masked_rows(self._masking, rows, tell), tell)

    async def masked(self, labels: Sequence[str]) -> list[str]:
        """As they may be stored. Raises `Refusal`: 400 where one must not be, 503 where one cannot be masked."""
        future: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self.mask(labels, lambda found: _settle(future, found))
        return await future

    def mask(self, labels: Sequence[str], tell: Callable[[list[str] | Refusal], None]) -> None:
        """As `masked`, with what is told of the labels."""
        if self._masking is None:
            tell(list(labels))
        else:
            self._begin(self._masked_labels(self._masking, labels, tell), tell)

    def close(self) -> None:
        """Stores what waits."""
        while self._masked:
            self._mask_some()
        while self._queue:
            self._store_some()

    def _put(self, rows: Sequence[FeedbackRow], tell: Tell) -> None:
        if not rows:
            tell(Stored([]))
            return
        self._queue.append((rows, tell))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._store)

    def _masked_rows(self, masking: RowMasking, rows: Sequence[FeedbackRow], tell: Tell) -> Generator[None, None, None]:
        self._put(*(yield from masking.rows(rows, tell)))

    def _masked_labels(
        self, masking: RowMasking, labels: Sequence[str], tell: Callable[[list[str] | Refusal], None]
    ) -> Generator[None]:
        tell((yield from masking.labels(labels)))

    def _begin(self, steps: Generator[None], tell: Callable[[Refusal], None]) -> None:
        self._masked.append((steps, tell, time.monotonic() + _MOST_MASKING))
        if not self._masks:
            self._masks = True
            asyncio.get_running_loop().call_soon(self._mask)

    def _mask(self) -> None:
        self._mask_some()
        self._masks = bool(self._masked)
        if self._masks:
            asyncio.get_running_loop().call_soon(self._mask)

    def _mask_some(self) -> None:
        """Mask for a moment for one request; then it is the next one's turn, so that a long one holds up nobody else."""
        steps, tell, end = self._masked.popleft()
        start = time.monotonic()
        try:
            while time.monotonic() - start < _TURN:
                if time.monotonic() > end:  # its client waits no longer
                    tell(_too_long())
                    return
                next(steps)
        except StopIteration:
            return
        except Refusal as refusal:
            tell(refusal)
        except MaskingError as error:
            tell(_not_masked(error))
        except Exception as error:  # whatever it is, who waits is told, and the next are masked
            tell(Refusal(503, f"nothing was stored: {type(error).__name__}", reason="not_masked"))
        else:
            self._masked.append((steps, tell, end))

    def _store(self) -> None:
        self._store_some()
        self._scheduled = bool(self._queue)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._store)

    def _store_some(self) -> None:
        items, count = list[tuple[Sequence[FeedbackRow], Tell]](), 0
        while self._queue and (not items or count + len(self._queue[0][0]) <= _MOST):
            items.append(self._queue.popleft())
            count += len(items[-1][0])
        if not items:
            return
        try:
            positions = self._state.append([row for rows, _ in items for row in rows])
        except Exception as error:  # whatever it is, those who wait are told, and the next are stored
            why = error.what if isinstance(error, StoreError) else type(error).__name__
            refusal = Refusal(503, f"the feedback was not stored: {why}", retry_after=5.0)
            for _, tell in items:
                tell(refusal)
            return
        start = 0
        for rows, tell in items:
            tell(Stored(positions[start : start + len(rows)]))
            start += len(rows)


def _settle(future: asyncio.Future[Any], found: object) -> None:
    if future.done():  # its client has gone; what was stored stays
        return
    if isinstance(found, Refusal):
        future.set_exception(found)
    else:
        future.set_result(found)


def _not_masked(error: MaskingError) -> Refusal:
    """Said, and not stored."""
    sys.stderr.write(f"mapsto: feedback was not stored, since it cannot be masked: {error.what}\n")
    return Refusal(503, f"nothing was stored, since it cannot be masked: {error.what}", reason="not_masked")


def _too_long() -> Refusal:
    return Refusal(
        503,
        f"nothing was stored: masking it took more than {_MOST_MASKING:g} s; send fewer or shorter labels at once",
        reason="not_masked",
    )


def _too_much() -> Refusal:
    return Refusal(503, "too much feedback waits to be stored", retry_after=1.0)


# ------------------------------------------------------------------------------------------------------- in another process

_LENGTH = 4
"""Bytes before each message, which say how long it is."""
_LARGEST = 1 << 28


class _Wanted(msgspec.Struct, array_like=True):
    number: int
    rows: list[FeedbackRow]
    labels: list[str] = msgspec.field(default_factory=list[str])
    """To be masked, in place of rows."""


class _Done(msgspec.Struct, array_like=True):
    number: int
    positions: list[int]
    status: int = 200
    error: str = ""
    retry_after: float = 0.0
    labels: list[str] = msgspec.field(default_factory=list[str])
    masked: list[int] = msgspec.field(default_factory=list[int])


class _Messages(asyncio.Protocol):
    """A stream of messages; those that are sent in one round of the event loop go out together."""

    def __init__(self, came: Callable[[_Messages, bytes], None], lost: Callable[[], None] = lambda: None) -> None:
        self._came, self._lost = came, lost
        self._buffer, self._out = bytearray(), list[bytes]()
        self._transport: asyncio.WriteTransport | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue]

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._lost()

    def data_received(self, data: bytes) -> None:
        buffer, start = self._buffer, 0
        buffer += data
        while len(buffer) - start >= _LENGTH:
            end = start + _LENGTH + int.from_bytes(buffer[start : start + _LENGTH], "little")
            if end - start > _LARGEST:
                self.close()
                return
            if len(buffer) < end:
                break
            self._came(self, bytes(buffer[start + _LENGTH : end]))
            start = end
        del buffer[:start]

    def send(self, message: msgspec.Struct) -> None:
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        content = msgspec.msgpack.encode(message)
        self._out += [len(content).to_bytes(_LENGTH, "little"), content]

    def close(self) -> None:
        """Ends, once what was sent has gone out."""
        self._flush()
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self.closed:
            self._transport.write(b"".join(self._out))
        self._out.clear()


class RemoteWriter:
    """A worker's way to the process that writes.

    Parameters
    ----------
    path
        Of its socket.
    masks
        Whether it masks what it stores.
    """

    def __init__(self, path: Path, *, masks: bool = False) -> None:
        self._path, self._masks = path, masks
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._messages: _Messages | None = None
        self._opening: asyncio.Lock | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def append(self, rows: Sequence[FeedbackRow]) -> Stored:
        """Raises `Refusal` (503) where the writer is gone or cannot store them. Then they may be sent again: a label is stored once."""
        done = await self._asked(list(rows), [])
        return Stored(done.positions, done.masked)

    async def masked(self, labels: Sequence[str]) -> list[str]:
        """Raises `Refusal`: 400 where one must not be stored, 503 where one cannot be masked or the writer is gone."""
        return (await self._asked([], list(labels))).labels if self._masks else list(labels)

    async def _asked(self, rows: list[FeedbackRow], labels: list[str]) -> _Done:
        if len(self._waiting) >= _MOST_WAITING:
            raise _too_much()
        messages = self._messages
        if messages is None or messages.closed:
            messages = await self._connected()
            if messages.closed:  # at once again: nobody would be told of what is sent now
                raise _gone()
        number = next(self._numbers)
        future: asyncio.Future[_Done] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        messages.send(_Wanted(number, rows, labels))
        try:
            return await asyncio.wait_for(future, _MOST_SECONDS)
        except TimeoutError as error:
            raise Refusal(
                503,
                "the process that stores feedback does not answer; send it again, a label is stored once",
                retry_after=5.0,
            ) from error
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        if self._messages is not None:
            self._messages.close()

    async def _connected(self) -> _Messages:
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._messages is None or self._messages.closed:
                loop, path = asyncio.get_running_loop(), str(self._path)
                try:
                    _, self._messages = await loop.create_unix_connection(
                        lambda: _Messages(self._done, self._lost), path
                    )
                except OSError as error:
                    raise _gone() from error
            return self._messages

    def _done(self, messages: _Messages, content: bytes) -> None:
        done = msgspec.msgpack.decode(content, type=_Done)
        future = self._waiting.get(done.number)
        if future is not None:
            refused = done.status != 200
            _settle(future, Refusal(done.status, done.error, retry_after=done.retry_after or None) if refused else done)

    def _lost(self) -> None:
        for future in self._waiting.values():
            _settle(future, _gone())


def _gone() -> Refusal:
    return Refusal(503, "the process that stores feedback is being started again", retry_after=1.0)


async def _serve(writer: Writer, path: Path, supervisor: int, retention: Retention) -> None:
    """Store what workers send, until a signal says to end, or the process that started this one has."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    opened: list[_Messages] = []

    def came(messages: _Messages, content: bytes) -> None:
        wanted = msgspec.msgpack.decode(content, type=_Wanted)

        def tell(found: Stored | Refusal) -> None:
            if isinstance(found, Refusal):
                messages.send(_Done(wanted.number, [], found.status, found.text, found.retry_after or 0.0))
            else:
                messages.send(_Done(wanted.number, found.positions, masked=list(found.masked)))

        if not wanted.labels:
            writer.put(wanted.rows, tell)
            return

        def told(found: list[str] | Refusal) -> None:
            if isinstance(found, Refusal):
                tell(found)
            else:
                messages.send(_Done(wanted.number, [], labels=found))

        writer.mask(wanted.labels, told)

    def connected() -> _Messages:
        opened[:] = [each for each in opened if not each.closed]
        opened.append(_Messages(came))
        return opened[-1]

    path.unlink(missing_ok=True)
    server = await loop.create_unix_server(connected, str(path))
    while not ended.is_set() and os.getppid() == supervisor:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), 1.0)
        retention.look()
    server.close()
    writer.close()
    for each in opened:
        each.close()
    await asyncio.sleep(0.05)  # so that the last answers leave


def main() -> None:
    """Write until SIGTERM; the settings come as JSON on standard input."""
    import uvloop

    settings: dict[str, Any] = json.load(sys.stdin)
    state = State(settings["state"], durability=settings["durability"])
    privacy = settings["privacy"]
    own = masking = None
    if privacy is not None:  # without it nothing is stored: this process ends, and is seen to
        own = Privacy.of(privacy["settings"], where="serve")
        masking = RowMasking(masking_of(own, Path(privacy["key"])))
    answers: str = settings.get("answers", "")
    retention = Retention(
        state,
        Path(answers) if answers else None,
        None if own is None else own.keep_days,
        masking,
        replicas=settings.get("replicas", False),
    )
    uvloop.run(_serve(Writer(state, masking), Path(settings["socket"]), settings["supervisor"], retention))
    state.close()


if __name__ == "__main__":
    main()

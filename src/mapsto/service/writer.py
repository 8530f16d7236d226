"""One process that stores feedback: what waits goes into one transaction, and is acknowledged when that is durable.

Workers reach it through a socket in a folder of the service; `python -m mapsto.service.writer` is it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mapsto.errors import StoreError
from mapsto.service.refusal import Refusal
from mapsto.service.state import FeedbackRow, State

__all__ = ["RemoteWriter", "Writer", "Writes"]

_MOST = 256
"""Rows of a transaction."""
_Item = tuple[Sequence[FeedbackRow], "asyncio.AbstractEventLoop", "asyncio.Future[list[int]]"]


class Writes(Protocol):
    """What stores feedback."""

    @property
    def waiting(self) -> int:
        """Requests that are not stored yet."""
        ...

    async def append(self, rows: Sequence[FeedbackRow]) -> list[int]:
        """Positions of the rows, once they are durable; see `State.append`."""
        ...

    def close(self) -> None:
        """Ends, once what waits is stored."""
        ...


class Writer:
    """A thread, and a queue before a state.

    Parameters
    ----------
    most_waiting
        Requests that may wait; beyond it feedback is refused with 503.
    """

    def __init__(self, state: State, *, most_waiting: int = 4096) -> None:
        self._state = state
        self._queue: queue.Queue[_Item | None] = queue.Queue(most_waiting)
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._queue.qsize()

    async def append(self, rows: Sequence[FeedbackRow]) -> list[int]:
        """Positions of the rows, once they are durable; see `State.append`.

        Raises `Refusal` (503) where the state cannot be written or too much waits: then none of them is stored.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[int]] = loop.create_future()
        try:
            self._queue.put_nowait((rows, loop, future))
        except queue.Full as error:
            raise Refusal(503, "too much feedback waits to be stored", retry_after=1.0) from error
        return await future

    def close(self) -> None:
        """Stores what waits, and ends."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        ended = False
        while not ended:
            first = self._queue.get()
            if first is None:
                return
            items, count = [first], len(first[0])
            while count < _MOST:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    ended = True
                    break
                items.append(item)
                count += len(item[0])
            self._store(items)

    def _store(self, items: list[_Item]) -> None:
        try:
            positions = self._state.append([row for rows, _, _ in items for row in rows])
        except StoreError as error:
            refusal = Refusal(503, f"the feedback was not stored: {error.what}", retry_after=5.0)
            for _, loop, future in items:
                _tell(loop, future, partial(future.set_exception, refusal))
            return
        start = 0
        for rows, loop, future in items:
            own = positions[start : start + len(rows)]
            start += len(rows)
            _tell(loop, future, partial(future.set_result, own))


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[list[int]], say: Callable[[], None]) -> None:
    def done() -> None:
        if not future.done():  # its client has gone; what was stored stays
            say()

    try:
        loop.call_soon_threadsafe(done)
    except RuntimeError:  # the loop has ended
        return


# ------------------------------------------------------------------------------------------------------- in another process

_LENGTH = 4
"""Bytes before each message, which say how long it is."""
_LARGEST = 1 << 28


class _Wanted(msgspec.Struct, array_like=True):
    number: int
    rows: list[FeedbackRow]


class _Done(msgspec.Struct, array_like=True):
    number: int
    positions: list[int]
    status: int = 200
    error: str = ""
    retry_after: float = 0.0


class RemoteWriter:
    """A worker's way to the process that writes.

    Parameters
    ----------
    path
        Of its socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[list[int]]] = {}
        self._stream: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._opening: asyncio.Lock | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def append(self, rows: Sequence[FeedbackRow]) -> list[int]:
        """Raises `Refusal` (503) where the writer is gone or cannot store them. Then they may be sent again: a label is stored once."""
        stream = await self._connected()
        number = next(self._numbers)
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            stream.write(_framed(_Wanted(number, list(rows))))
            await stream.drain()
            return await future
        except OSError as error:
            raise _gone() from error
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    async def _connected(self) -> asyncio.StreamWriter:
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._stream is None or self._stream.is_closing():
                try:
                    reader, self._stream = await asyncio.open_unix_connection(str(self._path))
                except OSError as error:
                    raise _gone() from error
                self._reading = asyncio.ensure_future(self._read(reader, self._stream))
            return self._stream

    async def _read(self, reader: asyncio.StreamReader, stream: asyncio.StreamWriter) -> None:
        """Hand answers to those who wait for them, until the writer is gone."""
        try:
            while True:
                done = msgspec.msgpack.decode(await _message(reader), type=_Done)
                future = self._waiting.get(done.number)
                if future is None or future.done():
                    continue
                if done.status == 200:
                    future.set_result(done.positions)
                else:
                    future.set_exception(Refusal(done.status, done.error, retry_after=done.retry_after))
        except (OSError, asyncio.IncompleteReadError):
            stream.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(_gone())


def _gone() -> Refusal:
    return Refusal(503, "the process that stores feedback is being started again", retry_after=1.0)


def _framed(message: msgspec.Struct) -> bytes:
    content = msgspec.msgpack.encode(message)
    return len(content).to_bytes(_LENGTH, "little") + content


async def _message(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(_LENGTH), "little")
    if length > _LARGEST:
        raise OSError("a message is too long")
    return await reader.readexactly(length)


async def _serve(writer: Writer, path: Path, supervisor: int) -> None:
    """Store what workers send, until a signal says to end, or the process that started this one has."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    tasks = set[asyncio.Task[None]]()

    async def store(wanted: _Wanted, stream: asyncio.StreamWriter) -> None:
        try:
            done = _Done(wanted.number, await writer.append(wanted.rows))
        except Refusal as refusal:
            done = _Done(wanted.number, [], refusal.status, refusal.text, refusal.retry_after or 1.0)
        stream.write(_framed(done))

    async def connected(reader: asyncio.StreamReader, stream: asyncio.StreamWriter) -> None:
        try:
            while True:
                wanted = msgspec.msgpack.decode(await _message(reader), type=_Wanted)
                task = asyncio.ensure_future(store(wanted, stream))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except (OSError, asyncio.IncompleteReadError):
            stream.close()

    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(connected, str(path))
    while not ended.is_set() and os.getppid() == supervisor:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), 1.0)
    server.close()
    if tasks:
        await asyncio.wait(tasks)


def main() -> None:
    """Write until SIGTERM; the settings come as JSON on standard input."""
    settings: dict[str, Any] = json.load(sys.stdin)
    state = State(settings["state"], durability=settings["durability"])
    writer = Writer(state)
    asyncio.run(_serve(writer, Path(settings["socket"]), settings["supervisor"]))
    writer.close()
    state.close()


if __name__ == "__main__":
    main()

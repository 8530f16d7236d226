"""A client in a process of its own, cheap enough to load a server: bytes that are sent as they are, and answers of which little is read.

The request comes as JSON on standard input, the outcome goes as JSON to standard output. ``rate`` None: each connection sends its next
request when it has the answer to the last. Otherwise requests come at random moments (Poisson) at so many a second, whether or not answers
came, and latency counts from the moment that a request was due.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import uvloop


class Load:
    """What is sent, and what came back."""

    def __init__(self, bodies: list[bytes], ends: float) -> None:
        self.bodies, self.ends = bodies, ends
        self.sent = 0
        self.taken: list[float] = []
        """Seconds of each answer with 200."""
        self.statuses: Counter[str] = Counter()
        self.idle: deque[Connection] = deque()
        self.due: deque[float] = deque()
        """When requests were due that wait for a connection."""
        self.closed_loop = True
        self.most: int | None = None
        self.ended = asyncio.Event()

    def next(self) -> bytes:
        self.sent += 1
        return self.bodies[self.sent % len(self.bodies)]


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.buffer, self.began, self.due = b"", 0.0, False
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, began: float) -> None:
        self.began, self.due = began, True
        self.transport.write(self.load.next())

    def data_received(self, data: bytes) -> None:
        self.buffer = data if not self.buffer else self.buffer + data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = self.buffer[:head].lower()
        place = lower.find(b"content-length:")
        if place >= 0:
            if len(self.buffer) < head + 4 + int(lower[place + 15 :].split(b"\r\n", 1)[0]):
                return
        elif not self.buffer.endswith(b"0\r\n\r\n"):
            return
        status = self.buffer[9:12].decode()
        self.buffer, self.due = b"", False
        load, now = self.load, time.perf_counter()
        load.statuses[status] += 1
        if status == "200":
            load.taken.append(now - self.began)
        if now > load.ends or load.sent == load.most:
            load.ended.set()
            return
        if load.closed_loop:
            self.ask(now)
        elif load.due:
            self.ask(load.due.popleft())
        else:
            load.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.due:
            self.load.statuses["closed"] += 1


def cpu_seconds(processes: list[int]) -> float:
    """User and system time of processes so far."""
    ticks = 0
    for number in processes:
        try:
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def run(asked: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    bodies = [base64.b64decode(text) for text in asked["requests"]]
    load = Load(bodies, time.perf_counter() + asked["seconds"])
    load.closed_loop, load.most = asked["rate"] is None, asked["most"]
    opened: list[Connection] = []
    for _ in range(asked["connections"]):
        _, made = await loop.create_connection(lambda: Connection(load), asked["host"], asked["port"])
        opened.append(made)
    before = cpu_seconds(asked["processes"])
    began = time.perf_counter()
    load.ends = began + asked["seconds"]
    if load.closed_loop:
        for each in opened:
            each.ask(time.perf_counter())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(load.ended.wait(), asked["seconds"] + 10)
    else:
        load.idle.extend(opened)
        rng, due = random.Random(asked.get("seed", 0)), began
        while due < load.ends:
            due += rng.expovariate(asked["rate"])
            now = time.perf_counter()
            if due > now + 0.0005:
                await asyncio.sleep(due - now)
            if load.idle:
                load.idle.popleft().ask(due)
            else:
                load.due.append(due)
                if len(load.due) % 64 == 0:
                    await asyncio.sleep(0)
    seconds = time.perf_counter() - began
    # what was asked is waited for, so that its work is in the server's CPU time and its latency is known
    end = time.perf_counter() + 10
    while any(each.due for each in opened) and time.perf_counter() < end:
        await asyncio.sleep(0.002)
    if load.closed_loop:
        seconds = time.perf_counter() - began
    used = cpu_seconds(asked["processes"]) - before
    for each in opened:
        each.transport.close()
    taken = sorted(load.taken)

    def at(share: float) -> float | None:
        return 1000 * taken[min(len(taken) - 1, int(share * len(taken)))] if taken else None

    return {
        "seconds": seconds,
        "CPU s": used,
        "sent": load.sent,
        "statuses": dict(load.statuses),
        "answered": len(taken),
        "p50 ms": at(0.5),
        "p99 ms": at(0.99),
        "waited for a connection": len(load.due),
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.load(sys.stdin)))))

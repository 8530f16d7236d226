"""Who computes a key: one holder at a time, the others wait."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mapsto.errors import StoreError
from mapsto.store.digest import dumps
from mapsto.store.files import create_exclusively, disk_error, write_atomically

__all__ = ["is_void", "lease", "read_lease"]

HEARTBEAT = 2.0
"""Seconds between a lease's heartbeats."""
EXPIRY = 20.0
"""Seconds without a heartbeat after which a lease on another host is void; on this host a dead process voids it at once."""


@contextmanager
def lease(path: Path, committed: Callable[[], bool], waiting: Callable[[str], None]) -> Generator[bool]:
    """Hold a key while computing it. Gives True to its holder; False after waiting for another who has committed it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, path) from error
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}
    while True:
        try:
            create_exclusively(path, dumps(mine | {"beat": time.time()}).encode())
            break
        except FileExistsError:
            holder = read_lease(path)
            if holder is not None and is_void(holder):
                _steal(path, holder)
                continue
            if holder is not None:
                waiting(f"{holder['host']}, process {holder['pid']}")
            time.sleep(0.2)
            if committed():
                yield False
                return
    stop = threading.Event()
    beat = threading.Thread(target=_heartbeat, args=(path, mine, stop), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        stop.set()
        beat.join()
        held = read_lease(path)
        if held is not None and held.get("token") == mine["token"]:
            path.unlink(missing_ok=True)


def read_lease(path: Path) -> dict[str, Any] | None:
    """Who holds a key; None where nobody does or the file cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def is_void(lease: Mapping[str, Any]) -> bool:
    """A lease is void when its process is gone (on this host) or its heartbeat is too old (elsewhere)."""
    import psutil

    if lease["host"] == socket.gethostname():
        return not psutil.pid_exists(int(lease["pid"]))
    return time.time() - float(lease["beat"]) > EXPIRY


def _steal(path: Path, holder: Mapping[str, Any]) -> None:
    """Remove a void lease: rename it first, so that of two who try only one removes it, and check what was renamed."""
    grave = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        path.rename(grave)
    except FileNotFoundError:
        return
    taken = read_lease(grave)
    if taken is not None and taken.get("token") != holder.get("token"):
        with suppress(FileExistsError):
            os.link(grave, path)
    grave.unlink(missing_ok=True)


def _heartbeat(path: Path, mine: Mapping[str, Any], stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        try:
            write_atomically(path, dumps({**mine, "beat": time.time()}).encode())
        except StoreError:
            continue  # a full disk must not end the computation; on this host the process's life is what counts

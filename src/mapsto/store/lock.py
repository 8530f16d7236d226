"""Who computes a key, and what it is about to commit.

    leases/<name>.lock   a file lock of the operating system: it ends with its process, however that ends, so that neither a
                         recycled process id nor a damaged file can hold it
    leases/<name>.json   who holds it and since when, for people; nothing depends on it
    leases/<name>.marks  the digests that the holder uses or is about to commit, one a line: `gc` leaves them
    gc.lock              held for a moment while something is marked, and by `gc` from its first look to its last deletion

On a file system without locks nobody waits: two may compute the same, and the record, written last, is the commit.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor

from mapsto.errors import StoreError
from mapsto.kinds.canonical import dumps
from mapsto.store.files import disk_error, write_atomically

__all__ = ["GRACE", "Lease", "Leases", "collecting", "drop", "holders", "lease", "look", "works"]

GRACE = 86400.0
"""Seconds for which `gc` leaves what it cannot ask anyone about: on an object store, or a file system without locks."""
_POLL = 0.2
_WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


class Lease:
    """A name that this process holds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marked: set[str] = set()

    def mark(self, digest: str) -> None:
        """Say that a blob or an artifact is in use, before it is looked for or written. Raises `StoreError`."""
        if digest in self._marked:
            return
        path = self._path.with_suffix(".marks")
        with collecting(self._path.parent.parent):
            try:
                with path.open("a", encoding="ascii") as file:
                    file.write(f"{digest}\n")
            except OSError as error:
                raise disk_error(error, path) from error
        self._marked.add(digest)


@contextmanager
def lease(
    folder: Path, name: str, *, committed: Callable[[], bool], waiting: Callable[[str], None]
) -> Generator[Lease | None]:
    """Hold a name. Gives None after waiting for another who has `committed`; `waiting` is told who that is."""
    path = folder / f"{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, folder) from error
    lock, tries = _file_lock(path), 0
    while _acquired(lock, path) is False:
        if tries:  # a `gc` that looks whether the name is held does so for a moment
            waiting(_holder(path))
        tries += 1
        time.sleep(_POLL)
        if committed():
            yield None
            return
    try:
        path.with_suffix(".marks").unlink(missing_ok=True)  # of a holder that was killed
        _note(path)
        yield Lease(path)
    finally:
        _remove(path)
        lock.release()


@contextmanager
def collecting(root: Path) -> Generator[bool]:
    """Nothing is marked by others within it: `gc` decides and deletes here, and a mark is written here.

    Gives whether this holds: False on a file system without locks.
    """
    path = root / "gc.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        raise disk_error(error, path) from error
    try:
        yield _locked(descriptor, path)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, path: Path) -> bool:
    """Wait for a file's lock; False where the file system has none. Lighter than a `FileLock`: it is taken for every blob."""
    try:
        return lock_descriptor(descriptor, poll_interval=0.01)
    except OSError as error:
        if error.errno in _WITHOUT_LOCKS:
            return False
        raise disk_error(error, path) from error


@dataclass
class Leases:
    """What is held at present."""

    names: set[str] = field(default_factory=set[str])
    marks: set[str] = field(default_factory=set[str])
    stale: list[Path] = field(default_factory=list[Path])
    """Files that dead holders and earlier versions of mapsto left."""


def look(folder: Path) -> Leases:
    """Which names are held, and what their holders have marked."""
    found = Leases()
    for name in sorted({path.stem for path in folder.glob("*") if not path.name.startswith(".")}):
        path = folder / f"{name}.lock"
        files = [file for suffix in (".marks", ".json", ".lock") if (file := path.with_suffix(suffix)).exists()]
        if not _is_held(path):
            found.stale += files
            continue
        found.names.add(name)
        with suppress(OSError):
            found.marks |= set(path.with_suffix(".marks").read_text(encoding="ascii").split())
    return found


def holders(folder: Path) -> list[str]:
    """Who holds names at present, for people: host, process and since when."""
    return [_holder(folder / f"{name}.lock") for name in sorted(look(folder).names)]


def works(folder: Path) -> bool:
    """Whether the folder's file system has locks: whether a second holder of one file is refused. Raises `StoreError`."""
    path = folder / f".probe.{os.getpid()}.lock"
    first, second = _file_lock(path), _file_lock(path)
    try:
        return _acquired(first, path) is True and _acquired(second, path) is False
    finally:
        second.release()
        first.release()
        path.unlink(missing_ok=True)


def drop(path: Path) -> None:
    """Remove a stale file of a lease, unless its name is held by now."""
    place = path.with_suffix(".lock")
    lock = _file_lock(place)
    if _acquired(lock, place) is not False:
        path.unlink(missing_ok=True)
        place.unlink(missing_ok=True)
        lock.release()


def _file_lock(path: Path) -> FileLock:
    return FileLock(path, thread_local=False, fallback_to_soft=False)


def _acquired(lock: FileLock, path: Path) -> bool | None:
    """Try once: True where the lock is held now, False where another holds it, None where the file system has no locks."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    except OSError as error:
        if error.errno in _WITHOUT_LOCKS:
            return None
        raise disk_error(error, path) from error
    return True


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    lock = _file_lock(path)
    acquired = _acquired(lock, path)
    lock.release()
    return acquired is False


def _note(path: Path) -> None:
    note = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    with suppress(StoreError):  # a full disk must not end a computation that may free some of it
        write_atomically(path.with_suffix(".json"), dumps(note).encode())


def _holder(path: Path) -> str:
    try:
        note = json.loads(path.with_suffix(".json").read_bytes())
        since = time.strftime("%H:%M:%S", time.localtime(float(note["since"])))
        return f"{note['host']}, process {int(note['pid'])}, since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _remove(path: Path) -> None:
    """Remove a held lease's files. Whoever opened the lock file before sees that it has no name any more and opens it anew."""
    for suffix in (".marks", ".json", ".lock"):
        with suppress(OSError):
            path.with_suffix(suffix).unlink(missing_ok=True)

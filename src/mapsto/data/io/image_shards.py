"""Image files decoded once into shards on disk: a folder of any size as one array of which each read takes its rows alone.

A shard holds 256 images at the size that a network reads. It is named by a digest of how files are read and of its files' contents, and
appears whole or not at all: what was finished before a kill is found again, what changed is made anew, and two runs that make the same
share the work, each shard under a file lock that ends with its process.

    rows     n × (C · H · W) bytes
    table    n × CRC-32 of a row (little-endian), then n × a byte of what is odd about its file
    digest   SHA-256 of the table
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import logging
import math
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
from filelock import FileLock, Timeout

from mapsto.atomic import new_file
from mapsto.data.io.download import cache_folder
from mapsto.errors import DataError
from mapsto.kinds import StoredRows
from mapsto_runtime.preprocessing.image_files import huge_allowed, read_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BROKEN", "CONSTANT", "STRETCHED", "Reading", "decoded", "shards_of", "stored_images"]

PER_SHARD = 256
"""Images of a shard; the last one holds the rest."""
BROKEN, CONSTANT, STRETCHED = 1, 2, 4
"""Bits of the byte that says what is odd about a file."""
_PER_PROCESS = 1024
"""Images for which a process of its own is started."""
_DAMAGED = "%s: the shard is damaged or gone; it is made again from its image files"
_FORMAT = 1
_DIGEST = 32
_POLL_S = 0.2
_SPARE = 1 << 28
"""Bytes that stay free on the disk."""


@dataclass(frozen=True)
class Reading:
    """How a file becomes a row."""

    size: tuple[int, int]
    channels: int
    ink: Literal["as_is", "light"] = "as_is"
    fit: Literal["stretch", "crop"] = "stretch"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a row: channels, height, width."""
        return (self.channels, *self.size)


class Decoded(NamedTuple):
    """A file as a row: its pixels, what is odd about it, and why it is broken where it is."""

    pixels: NDArray[np.uint8] | None
    odd: int
    why: str = ""


def decoded(source: Path | bytes, name: str, reading: Reading) -> Decoded:
    """An image file as a row; what is no whole image is said, not raised."""
    try:
        picture = read_picture(
            source, name, size=reading.size, channels=reading.channels, ink=reading.ink, fit=reading.fit
        )
    except DataError as error:
        return Decoded(None, BROKEN, error.what)
    return Decoded(picture.pixels, CONSTANT * picture.constant + STRETCHED * picture.stretched)


def shards_of(images: int) -> int:
    """How many shards so many images take."""
    return math.ceil(images / PER_SHARD)


def stored_images(
    paths: Sequence[Path], digests: Sequence[str], reading: Reading
) -> tuple[StoredRows, NDArray[np.uint8]]:
    """The images as rows uint8 (N, C, H, W) that stay on disk, those of broken files 0, and what is odd about each, uint8 (N,).

    Shards that are missing are made first, by several processes.

    Parameters
    ----------
    paths, digests
        The files, and the SHA-256 of what each held when the folder was listed.

    Raises
    ------
    DataError
        A file changed or went away while shards were made; the disk is full or cannot be written.
    """
    folder = cache_folder() / "images" / "shards"
    shards = [
        _shard(folder, paths[first : first + PER_SHARD], digests[first : first + PER_SHARD], reading)
        for first in range(0, len(paths), PER_SHARD)
    ]
    missing = [shard for shard in shards if _table(shard) is None]
    for shard in missing:
        if shard.path.exists():
            logging.getLogger("mapsto").warning(_DAMAGED, shard.path)
    if missing:
        _require_space(missing, shards)
        _make_all(missing)
    tables: list[_Table] = []
    for shard in shards:
        table = _table(shard)
        if table is None:
            raise DataError(
                "a shard of images went away after it was made", where=str(shard.path), hint="run again, and keep it"
            )
        tables.append(table)
    rows = _ShardedImages(shards, np.concatenate([table.checks for table in tables]))
    return rows, np.concatenate([table.odd for table in tables])


@dataclass(frozen=True)
class _Shard:
    path: Path
    sources: Sequence[Path]
    digests: Sequence[str]
    reading: Reading

    @property
    def row_bytes(self) -> int:
        return math.prod(self.reading.shape)

    @property
    def bytes(self) -> int:
        return len(self.sources) * (self.row_bytes + 5) + _DIGEST


class _Table(NamedTuple):
    checks: NDArray[np.uint32]
    odd: NDArray[np.uint8]


class _ShardedImages(StoredRows):
    """The rows of all shards; damage to one is noticed where it is read, said, and repaired from the files."""

    def __init__(
        self, shards: Sequence[_Shard], checks: NDArray[np.uint32], places: NDArray[np.int64] | None = None
    ) -> None:
        super().__init__(np.arange(len(checks)) if places is None else places)
        self._shards, self._checks = shards, checks
        self.dtype, self.row_shape = np.dtype(np.uint8), shards[0].reading.shape

    def at(self, places: NDArray[np.int64]) -> _ShardedImages:
        return _ShardedImages(self._shards, self._checks, places)

    def read(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        found = np.empty((len(places), *self.row_shape), np.uint8)
        numbers = places // PER_SHARD
        for number in np.unique(numbers).tolist():
            wanted = np.flatnonzero(numbers == number)
            if not self._filled(found, wanted, places, number):
                shard = self._shards[number]
                logging.getLogger("mapsto").warning(_DAMAGED, shard.path)
                _make(shard, anew=True)
                if not self._filled(found, wanted, places, number):
                    raise DataError(
                        "the shard is damaged again as soon as it is made",
                        where=str(shard.path),
                        hint="check the disk, or set MAPSTO_CACHE to a folder on another one",
                    )
        return found

    def _filled(self, found: NDArray[np.uint8], wanted: NDArray[np.int64], places: NDArray[np.int64], n: int) -> bool:
        """Read the rows of shard `n`; whether all are as they were written."""
        shard = self._shards[n]
        try:
            with shard.path.open("rb", buffering=0) as file:
                for row in wanted[np.argsort(places[wanted], kind="stable")].tolist():
                    place = int(places[row])
                    file.seek((place - n * PER_SHARD) * shard.row_bytes)
                    pixels = found[row].data.cast("B")
                    if file.readinto(pixels) != shard.row_bytes or zlib.crc32(pixels) != int(self._checks[place]):
                        return False
        except OSError:
            return False
        return True


def _shard(folder: Path, sources: Sequence[Path], digests: Sequence[str], reading: Reading) -> _Shard:
    parts = [_FORMAT, [*reading.size, reading.channels, reading.ink, reading.fit], list(digests)]
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return _Shard(folder / f"{name}.images", sources, digests, reading)


def _table(shard: _Shard) -> _Table | None:
    """The table at its end; None where the shard is missing, not whole, or another user's."""
    count = len(shard.sources)
    try:
        with shard.path.open("rb") as file:
            known = os.fstat(file.fileno())
            if known.st_size != shard.bytes or (hasattr(os, "getuid") and known.st_uid != os.getuid()):
                return None
            file.seek(count * shard.row_bytes)
            table, digest = file.read(5 * count), file.read(_DIGEST)
    except OSError:
        return None
    if hashlib.sha256(table).digest() != digest:
        return None
    return _Table(np.frombuffer(table, "<u4", count), np.frombuffer(table, np.uint8, count, 4 * count))


def _require_space(missing: Sequence[_Shard], shards: Sequence[_Shard]) -> None:
    folder = missing[0].path.parent
    needed = sum(shard.bytes for shard in missing)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise _disk_error(error, folder) from error
    if needed + _SPARE > free:
        raise DataError(
            f"the decoded images take {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free; nothing was written",
            where=str(folder),
            hint="free some space, set MAPSTO_CACHE to a folder on a larger disk, or read the images smaller (size)",
        )
    logging.getLogger("mapsto").info(
        "%s: making %d of %d shards, %.2f GB, from %d image files",
        *(folder, len(missing), len(shards), needed / 1e9, sum(len(shard.sources) for shard in missing)),
    )


def _disk_error(error: OSError, path: Path) -> DataError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "the disk is full" if full else f"cannot be written ({error.strerror or error})"
    return DataError(
        f"{what}; the shards of images that are finished stay",
        where=str(path),
        hint="free some space, or set MAPSTO_CACHE to a folder on another disk, and run again",
    )


# ---- making shards


def _make_all(missing: Sequence[_Shard]) -> None:
    """Make them, in as many processes as there are cores; of one that another run is making wait for its end."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, len(missing), sum(len(shard.sources) for shard in missing) // _PER_PROCESS + 1)
    left: queue.SimpleQueue[_Shard] = queue.SimpleQueue()
    for shard in missing:
        left.put(shard)
    failed = list[BaseException]()
    with _progress(len(missing)) as advance:

        def work() -> None:
            try:
                with _maker(apart=workers > 1) as make:
                    while not failed:
                        shard = left.get_nowait()
                        if make(shard):
                            advance()
                        else:  # another run makes it
                            left.put(shard)
                            time.sleep(_POLL_S)
            except queue.Empty:
                return
            except BaseException as error:  # raised below, in the thread that asked
                failed.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException as error:
            failed.append(error)  # Ctrl-C: the others stop after their shard
            raise
    if failed:
        raise failed[0]


@contextmanager
def _maker(*, apart: bool) -> Generator[Callable[[_Shard], bool]]:
    """A function that makes a shard, in a process of its own or here; it gives False where another run makes it.

    The process reads one shard a line. Where this one ends, however that is, it comes to the end of its lines and ends after its shard.
    """
    if not apart:
        yield _make
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "mapsto.data.io.image_shards"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        tell, hear = process.stdin, process.stdout

        def make(shard: _Shard) -> bool:
            if tell is None or hear is None:
                return _make(shard)
            try:
                tell.write(json.dumps(_plain(shard)) + "\n")
                tell.flush()
                answer: dict[str, Any] = json.loads(hear.readline() or "{}")
            except OSError:
                answer = {}
            if "what" in answer:
                raise DataError(answer["what"], where=answer["where"], hint=answer["hint"])
            if "made" not in answer:
                raise DataError(
                    f"the process that decodes images ended with code {process.wait()}",
                    where=str(shard.sources[0].parent),
                    hint="run again: finished shards are kept; if it is for want of memory, free some",
                )
            return bool(answer["made"])

        try:
            yield make
        finally:
            with suppress(OSError):
                process.communicate()


def _plain(shard: _Shard) -> dict[str, Any]:
    reading = shard.reading
    return {
        "path": str(shard.path),
        "sources": [os.fsdecode(path) for path in shard.sources],
        "digests": list(shard.digests),
        "reading": [list(reading.size), reading.channels, reading.ink, reading.fit],
    }


def _serve_lines() -> None:
    """Make the shard of each line of standard input, and answer each by a line."""
    for line in sys.stdin:
        tree = json.loads(line)
        size, *rest = tree["reading"]
        sources = [Path(path) for path in tree["sources"]]
        shard = _Shard(Path(tree["path"]), sources, tree["digests"], Reading((size[0], size[1]), *rest))
        try:
            answer: dict[str, Any] = {"made": _make(shard)}
        except DataError as error:
            answer = {"what": error.what, "where": error.where, "hint": error.hint}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _make(shard: _Shard, *, anew: bool = False) -> bool:
    """Make a shard where it is missing, or `anew`; False where another process holds its lock, but for `anew`, which waits."""
    folder = shard.path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{shard.path.name[:2]}.lock", wait=anew) as held:
            if not held:
                return False
            if anew or _table(shard) is None:
                for stale in folder.glob(f".{shard.path.name[:40]}.*.tmp"):  # of a process that was killed
                    stale.unlink(missing_ok=True)
                _write(shard)
    except OSError as error:
        raise _disk_error(error, shard.path) from error
    return True


@contextmanager
def _locked(path: Path, *, wait: bool) -> Generator[bool]:
    """Whether the lock could be had. One lock is for all names of the same beginning, so that there are 256 of them at most."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    except NotImplementedError:  # a file system without locks: two may make the same, and the last one's stays
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


def _write(shard: _Shard) -> None:
    checks, odd = np.zeros(len(shard.sources), "<u4"), np.zeros(len(shard.sources), np.uint8)
    blank = bytes(shard.row_bytes)
    with huge_allowed(), new_file(shard.path, durable=True) as temporary, temporary.open("wb") as file:
        for row, (path, digest) in enumerate(zip(shard.sources, shard.digests, strict=True)):
            found = decoded(_unchanged(path, digest), str(path), shard.reading)
            pixels = blank if found.pixels is None else np.ascontiguousarray(found.pixels).tobytes()
            odd[row], checks[row] = found.odd, zlib.crc32(pixels)
            file.write(pixels)
        table = checks.tobytes() + odd.tobytes()
        file.write(table + hashlib.sha256(table).digest())


def _unchanged(path: Path, digest: str) -> bytes:
    """What a file holds. Raises `DataError` where it is not what it held when the folder was listed."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read any more ({error.strerror})",
            where=str(path),
            hint="run again once nothing changes in the folder: finished shards are kept",
        ) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError(
            "changed while the folder was read",
            where=str(path),
            hint="run again once nothing changes in the folder: finished shards are kept",
        )
    return content


@contextmanager
def _progress(total: int) -> Generator[Callable[[], object]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(f"decoding images, {PER_SHARD} a shard", total=total)
        yield functools.partial(progress.advance, cast("Any", task))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        _serve_lines()

"""What was answered lately, so that a label by request id finds the features that the answer stood on.

A ring of fixed size in a file of each worker, mapped into memory: no write to the state before a request is answered, and every worker
can read every other's. An id says where to look and is not to be guessed. What is overwritten, or older than its time to live, is gone.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from mapsto.atomic import new_file
from mapsto.service.refusal import Refusal

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Kept", "KeptAnswers", "erase_in", "opened_ring", "replica_lock", "ring_type", "tenant_digest"]

_UNKNOWN = (
    "no request of yours has this request_id and a row of that number; for an answer of another package give the "
    "input with the label"
)
_ROW, _REST = struct.Struct("<Q"), struct.Struct("<Qdi24s32s")
"""Of a ring's rows, what comes before the features: the number of the row, and what it is of."""


_WIDTH = "width.txt"
_HEX = frozenset("0123456789abcdef")


class Kept(NamedTuple):
    """A row of an answer."""

    features: NDArray[np.float32]
    """(D,)."""
    version: str
    answer: int
    """The number of the class that was answered, -1 for none."""
    time: float


class KeptAnswers:
    """The rings of a model.

    Parameters
    ----------
    folder
        Where each worker has its file.
    worker
        The number of this one, 0 to 255.
    width
        D.
    most
        Rows of a ring.
    seconds
        After which a row is gone.

    >>> import tempfile
    >>> kept = KeptAnswers(Path(tempfile.mkdtemp()), worker=0, width=2, most=3, seconds=60)
    >>> name = kept.keep(np.array([[1, 2]], np.float32), version="1", tenant="a", answers=[0])
    >>> kept.find(name, [0], tenant="a")[0].features.tolist()
    [1.0, 2.0]
    """

    def __init__(self, folder: Path, *, worker: int, width: int, most: int, seconds: float) -> None:
        self.folder = folder
        self._folder, self._worker, self._most, self._seconds = folder, worker, most, seconds
        self._type = ring_type(width)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / _WIDTH).exists():
            with suppress(OSError), new_file(folder / _WIDTH) as file:  # a full disk: it answers all the same
                file.write_text(str(width))
        self._rings: dict[int, NDArray[Any]] = {}
        self._views: dict[int, tuple[memoryview, NDArray[np.float32]]] = {}
        """Each ring's bytes and its features."""
        self._own = self._opened(worker)
        self._buffer, self._features = self._views[worker]
        self._next = self.first = int(self._own["row"].max()) + 1
        """Rows are counted on from those of a worker before it; `first` is this worker's own first."""

    def keep(self, features: NDArray[np.float32], *, version: str, tenant: str, answers: list[int]) -> str:
        """The id by which the rows of an answer are found."""
        first, nonce, now = self._next, int.from_bytes(os.urandom(8), "little") | 1, time.time()
        self._next += len(features)
        most, size, buffer = self._most, self._type.itemsize, self._buffer
        named, held = version.encode(), tenant_digest(tenant)
        for number in range(max(0, len(features) - most), len(features)):
            row = first + number
            place = row % most
            _ROW.pack_into(buffer, place * size, 0)  # a reader of this moment finds nothing
            _REST.pack_into(buffer, place * size + _ROW.size, nonce, now, answers[number], named, held)
            self._features[place] = features[number]
            _ROW.pack_into(buffer, place * size, row)
        return f"{self._worker:02x}{first:010x}{nonce:016x}"

    def find(self, name: str, rows: Sequence[int], *, tenant: str) -> list[Kept]:
        """Rows of an answer.

        Raises
        ------
        Refusal
            404: there is no such id or row, or it is another's; 410: it is no longer kept.
        """
        unknown = Refusal(404, _UNKNOWN)
        try:
            worker, first, nonce = int(name[:2], 16), int(name[2:12], 16), int(name[12:], 16)
        except ValueError:
            raise unknown from None
        if len(name) != 28 or not _HEX.issuperset(name) or min(rows) < 0:
            raise unknown
        if max(rows) >= self._most:
            raise Refusal(404, f"row {max(rows)} is not kept: of one request at most {self._most} rows are")
        if worker not in self._views:
            if not self._is_whole(self._path(worker)):
                raise unknown
            self._opened(worker)
        buffer, features = self._views[worker]
        size, own = self._type.itemsize, tenant_digest(tenant)
        gone = Refusal(410, "the request is no longer kept; give its input with the label")
        oldest, found = time.time() - self._seconds, list[Kept]()
        for row in rows:
            place, number = (first + row) % self._most, first + row
            (there,) = _ROW.unpack_from(buffer, place * size)
            its_nonce, moment, answer, version, its_tenant = _REST.unpack_from(buffer, place * size + _ROW.size)
            kept = Kept(features[place].copy(), version.rstrip(b"\0").decode(), answer, moment)
            if there > number or _ROW.unpack_from(buffer, place * size)[0] != there:  # overwritten, or just now
                raise gone
            if (there, its_nonce, its_tenant) != (number, nonce, own):
                raise unknown
            if moment < oldest:
                raise gone
            found.append(kept)
        return found

    def erase(self, tenant: bytes, *, until: float) -> int:
        """Overwrite this worker's answers to a tenant, given by its SHA-256, up to a moment; how many there were."""
        return erase_in(self._own, tenant, until=until)

    def expire(self) -> int:
        """Overwrite this worker's answers that are older than their time to live; how many there were."""
        return erase_in(self._own, None, until=time.time() - self._seconds)

    def latest(self, most: int, *, own: bool = False) -> NDArray[Any]:
        """Rows of the last answers of all workers or of this one, the latest last: fields ``row``, ``time``, ``version``, ``features``."""
        workers = (
            [self._worker]
            if own
            else [int(path.stem.partition("-")[2]) for path in self._folder.glob("*.ring") if self._is_whole(path)]
        )
        found = [self._latest_of(worker, most) for worker in workers]
        rows = np.concatenate(found)
        rows = rows[rows["time"] > time.time() - self._seconds]
        return rows[np.argsort(rows["time"], kind="stable")][-most:]

    def _latest_of(self, worker: int, most: int) -> NDArray[Any]:
        ring = self._rings.get(worker)
        if ring is None:
            ring = self._opened(worker)
        end = self._next if worker == self._worker else int(ring["row"].max()) + 1
        places = np.arange(max(1, end - min(most, self._most)), end) % self._most
        rows = ring[places]
        return np.array(rows[(rows["row"] > 0) & (rows["row"] == ring["row"][places])])  # without what is being written

    def _path(self, worker: int) -> Path:
        return self._folder / f"answers-{worker}.ring"

    def _is_whole(self, path: Path) -> bool:
        return path.is_file() and path.stat().st_size == self._most * self._type.itemsize

    def _opened(self, worker: int) -> NDArray[Any]:
        path = self._path(worker)
        if not self._is_whole(path):  # of this worker alone; another's is asked for only where it is whole
            try:
                with path.open("wb") as file:  # the room is taken now: a hole of a full disk would end the process
                    os.posix_fallocate(file.fileno(), 0, self._most * self._type.itemsize)
            except OSError as error:
                path.unlink(missing_ok=True)
                sys.stderr.write(
                    f"mapsto: answers are kept in memory alone, for {path} cannot be made ({error.strerror})\n"
                )
        if self._is_whole(path):
            ring = np.memmap(path, self._type, "r+", shape=(self._most,))
            self._rings[worker] = ring.view(np.ndarray)  # a memory map's own access to items is slow
        else:
            self._rings[worker] = np.zeros(self._most, self._type)
        self._views[worker] = self._rings[worker].view(np.uint8).data, self._rings[worker]["features"]
        return self._rings[worker]


def ring_type(width: int) -> np.dtype[Any]:
    """A row of a ring of features (D,)."""
    return np.dtype(
        [
            ("row", "<u8"),
            ("nonce", "<u8"),
            ("time", "<f8"),
            ("answer", "<i4"),
            ("version", "S24"),
            ("tenant", "V32"),
            ("features", "<f4", (width,)),
        ]
    )


def opened_ring(path: Path, mode: Literal["r", "r+"]) -> NDArray[Any] | None:
    """The ring in a file; None where it is none. How wide its rows are is in a file beside it; one of before has 10,000 rows."""
    try:
        size = path.stat().st_size
        said = path.with_name(_WIDTH)
        width = int(said.read_text()) if said.is_file() else (size // 10_000 - ring_type(0).itemsize) // 4
        if width < 0 or not size or size % ring_type(width).itemsize:
            return None
        return np.memmap(path, ring_type(width), mode).view(np.ndarray)
    except (OSError, ValueError):  # gone meanwhile, or being made
        return None


def erase_in(ring: NDArray[Any], tenant: bytes | None, *, until: float) -> int:
    """Overwrite rows with zeros, of a tenant or of all, up to a moment; how many there were.

    For the one who writes the ring, or where nobody does.
    """
    wanted = (ring["row"] > 0) & (ring["time"] <= until)
    if tenant is not None:
        wanted &= ring["tenant"] == np.void(tenant)
    last = int(ring["row"].max(initial=0))
    places = np.flatnonzero(wanted)
    for place in places.tolist():
        row = int(ring["row"][place])
        ring[place] = np.zeros((), ring.dtype)
        if row == last:  # from which rows are counted on; nobody's, and older than anything
            ring["row"][place] = row
    return len(places)


def replica_lock(folder: Path, number: int) -> Path:
    """The file that the replica of Ray's whose ring has a number locks as long as it lives."""
    return folder / f"replica-{number}.lock"


@lru_cache(1024)
def tenant_digest(tenant: str) -> bytes:
    """What a ring has in the place of a tenant's name."""
    return hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).digest()

"""Answers that workers kept, overwritten where none of them runs that would do it: `kept_answers` has their rings."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from filelock import FileLock, Timeout

from mapsto.service.kept_answers import erase_in, opened_ring, replica_lock

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["answers_folder", "count_answers", "overwrite_of_ended_replicas", "overwrite_of_ended_service"]


def answers_folder(state: str) -> Path | None:
    """Where the workers of a service keep answers whose state is a file; None for a database."""
    place = Path(state)
    return None if "://" in state else place.with_name(f"{place.stem}-answers")


def count_answers(folder: Path | None, tenant: bytes, *, until: float = math.inf) -> int:
    """How many answers to a tenant are kept."""
    return sum(
        int(((ring["row"] > 0) & (ring["time"] <= until) & (ring["tenant"] == np.void(tenant))).sum())
        for _, ring in _rings(folder, "r")
    )


def overwrite_of_ended_replicas(folder: Path, erasures: Sequence[tuple[bytes | None, float]]) -> None:
    """Overwrite answers to tenants, or to all, up to a moment, in the rings of Ray's replicas that there are no more."""
    for path, ring in _rings(folder, "r+"):
        number = path.stem.partition("-")[2]
        if not number.isdigit():
            continue
        lock = FileLock(replica_lock(folder, int(number)), timeout=0)
        try:
            lock.acquire()
        except Timeout:  # it lives, and does so itself
            continue
        try:
            for tenant, until in erasures:
                erase_in(ring, tenant, until=until)
        finally:
            lock.release()


def overwrite_of_ended_service(folder: Path, erasures: list[tuple[bytes, float]]) -> None:
    """Overwrite answers where no service runs that would write them."""
    lock = FileLock(folder / "service.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return
    try:
        for _, ring in _rings(folder, "r+"):
            for tenant, until in erasures:
                erase_in(ring, tenant, until=until)
    finally:
        lock.release()


def _rings(folder: Path | None, mode: Literal["r", "r+"]) -> Generator[tuple[Path, NDArray[Any]]]:
    """The rings in a folder, mapped into memory."""
    for path in [] if folder is None else sorted(folder.rglob("answers-*.ring")):
        ring = opened_ring(path, mode)
        if ring is not None:
            yield path, ring

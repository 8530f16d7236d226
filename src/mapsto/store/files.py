"""Writing files of a store: whole or not at all, with the remedy where the disk is full or may not be written."""

from __future__ import annotations

import errno
from pathlib import Path

from mapsto.atomic import new_file
from mapsto.errors import StoreError, command, trouble

__all__ = ["FORMAT", "disk_error", "spread", "write_atomically"]

FORMAT = 1
"""The version of the store's formats."""


def spread(folder: str, digest: str, suffix: str = "") -> str:
    """Where the file of a digest lies in a folder of the store."""
    return f"{folder}/{digest[:2]}/{digest}{suffix}"


def write_atomically(target: Path, data: bytes | memoryview, *, durable: bool = False) -> None:
    """Write a file whole or not at all. Raises `StoreError`."""
    try:
        with new_file(target, durable=durable) as place, place.open("wb") as file:
            file.write(data)
    except OSError as error:
        raise disk_error(error, target) from error


def disk_error(error: OSError, target: Path | None) -> StoreError:
    """What went wrong with writing a file, which may not be known, with the remedy."""
    what, remedy = trouble(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full:
        remedy += f" (`{command('mapsto store gc')}`)"
    hint = f"{remedy}, or give another --store or --out, then run the same command again: it goes on"
    if target is None:
        return StoreError(f"{what}: a file could not be written", hint=hint)
    if full:
        return StoreError(f"{what}: {target.name} could not be written", where=str(target.parent), hint=hint)
    return StoreError(f"cannot be written: {what}", where=str(target), hint=hint)

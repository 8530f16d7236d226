"""Files and folders that appear whole or not at all: made beside their place under another name, then renamed into it.

A reader finds what was there before or what is new, whoever else writes, and nothing is left behind, after Ctrl-C neither. What a process
leaves that is killed outright is hidden and ends in ``.tmp``.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["new_file", "new_folder"]

_ATTEMPTS = 10


@contextmanager
def new_file(target: Path, *, durable: bool = False) -> Generator[Path]:
    """Within the block the path to write the new file to, which becomes `target` where the block ends without an error.

    Its folder is made where it is missing. With `durable` the content is on the disk before the name is. Raises `OSError`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target)
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def new_folder(target: Path) -> Generator[Path]:
    """Within the block a new folder to fill, which becomes `target`, in place of the one before, where it ends without an error.

    A full folder cannot be renamed onto: the old one is moved aside first, and back where the new one does not come. Raises `OSError`.
    """
    fresh = _beside(target)
    old = fresh.with_suffix(".old.tmp")
    try:
        fresh.mkdir(parents=True)
        yield fresh
        _swap(fresh, target, old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _swap(fresh: Path, target: Path, old: Path) -> None:
    for attempt in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            target.rename(old)
        try:
            fresh.rename(target)
            return
        except OSError as error:
            if attempt == _ATTEMPTS - 1 or error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                with suppress(OSError):
                    old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)  # another process put its folder here at the same moment

"""A store on an fsspec URL, of which the local folder is a cache."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import Any, cast

from mapsto.errors import StoreError
from mapsto.store.files import write_atomically

__all__ = ["Remote"]


class Remote:
    """Blobs, manifests, records and checkpoints on an fsspec URL; the local root is their cache."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        try:
            self.fs, self.base = cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
        except (ValueError, ImportError) as error:
            raise StoreError(f"{error}", where=url, hint="give a folder, or a URL that fsspec knows") from error

    @contextmanager
    def _reached(self) -> Generator[None]:
        """What goes wrong with the file system as a `StoreError`, but for a file that is not there and what it does not offer."""
        try:
            yield
        except (FileNotFoundError, NotImplementedError):
            raise
        except Exception as error:  # file systems' errors have no common base class
            raise StoreError(
                f"the store cannot be reached or written ({type(error).__name__}: {error})",
                where=self.url,
                hint="check the address, the network and your rights there, or give another --store",
            ) from error

    def put(self, relative: str, data: bytes) -> None:
        path = f"{self.base}/{relative}"
        with self._reached():
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.fs.pipe_file(path, data)

    def get(self, relative: str) -> bytes | None:
        try:
            with self._reached():
                return self.fs.cat_file(f"{self.base}/{relative}")
        except FileNotFoundError:
            return None

    def exists(self, relative: str) -> bool:
        with self._reached():
            self.fs.invalidate_cache()  # others write there too
            return bool(self.fs.exists(f"{self.base}/{relative}"))

    def modified(self, relative: str) -> float | None:
        """When a file was last written, in seconds of the epoch; None where it is gone or the file system does not say."""
        try:
            with self._reached():
                self.fs.invalidate_cache()
                when = self.fs.modified(f"{self.base}/{relative}")
        except (NotImplementedError, FileNotFoundError):
            return None
        return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()

    def size(self, relative: str) -> int | None:
        """Bytes of a file; None where it is gone or the file system does not say."""
        try:
            with self._reached():
                return self.fs.size(f"{self.base}/{relative}")
        except (NotImplementedError, FileNotFoundError):
            return None

    def drop(self, relative: str) -> None:
        try:
            with self._reached():
                self.fs.rm_file(f"{self.base}/{relative}")
        except FileNotFoundError:
            return

    def names(self, folder: str) -> Iterator[str]:
        """What a folder holds, relative to the store."""
        try:
            with self._reached():
                self.fs.invalidate_cache()
                found: list[str] = self.fs.find(f"{self.base}/{folder}")
        except FileNotFoundError:
            return
        for name in found:
            yield name[len(self.base) :].lstrip("/")

    def mirror(self, folder: str, root: Path) -> None:
        """Fetch what the folder holds remotely and is not here yet."""
        for relative in self.names(folder):
            if not (root / relative).exists():
                data = self.get(relative)
                if data is not None:
                    write_atomically(root / relative, data)

"""The folders that data is read from and cached in, and what happens where a file is not there.

A file that is there is used as it is: checksums guard downloads, nothing else. What is missing is downloaded from its
public home beside its place and renamed into it once its checksum is right, so that no half-written file is ever seen.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import stat
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

import platformdirs

from mapsto.atomic import new_file
from mapsto.errors import DataError
from mapsto_runtime.regular_files import require_file

__all__ = [
    "NotDownloaded",
    "cache_folder",
    "data_folder",
    "downloads_allowed",
    "find_or_download",
    "find_or_unpack",
    "locate",
    "offline",
    "unpack",
]

_CHUNK = 1 << 18
_TIMEOUT_S = 30
_TAR_FILTER = getattr(
    tarfile, "data_filter", None
)  # Python 3.11 has it from 3.11.4 on; what it refuses is refused before


def data_folder() -> Path:
    """Where data sets lie: ``MAPSTO_DATA``, or ``mapsto/data`` in the user's data folder."""
    given = os.environ.get("MAPSTO_DATA")
    return Path(given).expanduser() if given else platformdirs.user_data_path("mapsto") / "data"


def cache_folder() -> Path:
    """Where what can be made again is kept: ``MAPSTO_CACHE``, or ``mapsto`` in the user's cache folder."""
    given = os.environ.get("MAPSTO_CACHE")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("mapsto")


def locate(path: str, *, what: str) -> Path:
    """A user's path: as given, or else inside the data folder.

    Raises `DataError` that names both places where neither holds it, and where it is a pipe, a device or a socket.
    """
    if not path.strip() or "\0" in path:
        raise DataError(f"{what} is missing: {path!r} is no path", hint="name a file or a folder")
    given = Path(path).expanduser()
    inside = data_folder() / given
    for candidate in (given, inside):
        if candidate.exists():
            require_file(candidate)
            return candidate.absolute()
    tried = f"{given.absolute()}" if given.is_absolute() else f"{given.absolute()} or {inside}"
    raise DataError(f"{what} is missing: there is no {tried}", hint="check the path, or put it there")


class NotDownloaded(DataError):
    """Data that could be downloaded, where nothing shall be (see `offline`)."""


def find_or_download(relative_path: str, url: str, checksum: str, *, what: str) -> Path:
    """A file of the data folder, downloaded where it is missing.

    Parameters
    ----------
    relative_path
        Its POSIX path inside the data folder.
    url
        Its public home.
    checksum
        Hexadecimal SHA-256 (64 digits), or MD5 (32) where only that is published. A file already there is not checked.
    what
        What it is, for messages.

    Raises
    ------
    DataError
        It is missing and the download failed: says which file to put where, and from which address.
    """
    path = data_folder() / relative_path
    if path.is_file():
        return path
    by_hand = f"download {url} by hand and save it as {path}, or set MAPSTO_DATA to a folder that holds {relative_path}"
    with _explained(what, path, by_hand), new_file(path) as temporary:
        _download(url, checksum, temporary, what)
    return path


def find_or_unpack(relative_paths: Sequence[str], url: str, checksum: str, *, what: str) -> list[Path]:
    """Files of the data folder that are published in one archive, which is downloaded where one of them is missing.

    Parameters
    ----------
    relative_paths
        Their POSIX paths, the same inside the archive and inside the data folder.
    url, checksum, what
        As for `find_or_download`.

    Raises
    ------
    DataError
        One is missing, and the download failed or the archive does not hold it.
    """
    root = data_folder()
    paths = [root / relative for relative in relative_paths]
    missing = [relative for relative, path in zip(relative_paths, paths, strict=True) if not path.is_file()]
    if not missing:
        return paths
    by_hand = f"download {url} by hand and unpack it in {root}, or set MAPSTO_DATA to a folder that holds {missing[0]}"
    with _explained(what, root / missing[0], by_hand):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".unpacking-") as folder:
            archive = Path(folder) / PurePosixPath(url).name
            _download(url, checksum, archive, what)
            contents = Path(folder) / "contents"
            unpack(archive, contents)
            for relative in missing:
                if not (contents / relative).is_file():
                    raise DataError(f"the archive does not hold {relative}")
                (root / relative).parent.mkdir(parents=True, exist_ok=True)
                os.replace(contents / relative, root / relative)
    return paths


def unpack(archive: Path, into: Path) -> None:
    """Unpack a tar or zip archive into a folder.

    Only folders and plain files are unpacked: a link, a device, an absolute path or a path with ``..`` is refused
    before anything is written.

    Raises
    ------
    DataError
        The archive is damaged, of another format, or holds an entry that is refused; names the entry.
    """
    into.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                for entry in zipped.infolist():
                    kind = stat.S_IFMT(entry.external_attr >> 16)
                    _refuse_unsafe(archive, entry.filename, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
                zipped.extractall(into)
        else:
            with tarfile.open(archive) as tar:
                for member in tar.getmembers():
                    _refuse_unsafe(archive, member.name, plain=member.isfile() or member.isdir())
                tar.extraction_filter = _TAR_FILTER
                tar.extractall(into)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"not a whole tar or zip archive: {error}", where=str(archive)) from error


def _refuse_unsafe(archive: Path, name: str, *, plain: bool) -> None:
    windows = PureWindowsPath(name)
    if not plain or name.startswith("/") or windows.drive or windows.root or ".." in windows.parts:
        reason = "leads out of the folder" if plain else "is a link or a special file"
        raise DataError(f"refused to unpack {name!r}, which {reason}", where=str(archive))


@contextmanager
def _explained(what: str, path: Path, by_hand: str) -> Generator[None]:
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException, DataError) as error:
        kind = NotDownloaded if isinstance(error, NotDownloaded) else DataError
        raise kind(f"{path} is missing and could not be fetched ({error})", where=what, hint=by_hand) from error


_offline: ContextVar[bool] = ContextVar("offline", default=False)


@contextmanager
def offline() -> Generator[None]:
    """Within the block nothing is downloaded: what is not there is a `DataError` (as with ``MAPSTO_OFFLINE=1``)."""
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


def downloads_allowed() -> bool:
    """Whether what is not there may be downloaded."""
    return not _offline.get() and os.environ.get("MAPSTO_OFFLINE", "") in ("", "0")


def _download(url: str, checksum: str, path: Path, what: str) -> None:
    if not downloads_allowed():
        raise NotDownloaded("nothing is downloaded here")
    digest = hashlib.md5(usedforsecurity=False) if len(checksum) == 32 else hashlib.sha256()
    request = urllib.request.Request(url, headers={"User-Agent": "mapsto"})
    received = 0
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response, path.open("wb") as target:
        announced = response.headers.get("Content-Length")
        total = int(announced) if announced else None
        for chunk in _with_progress(response, what, total):
            target.write(chunk)
            digest.update(chunk)
            received += len(chunk)
    if total is not None and received != total:
        raise DataError(f"the download ended after {received} of {total} bytes")
    if digest.hexdigest() != checksum.lower():
        raise DataError(f"what was downloaded has the {digest.name} {digest.hexdigest()}, not {checksum.lower()}")


def _with_progress(response: IO[bytes], what: str, total: int | None) -> Iterator[bytes]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(f"downloading {what}", total=total)
        while chunk := response.read(_CHUNK):
            progress.advance(task, len(chunk))
            yield chunk

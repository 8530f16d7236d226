"""Finding, downloading and unpacking files, against a server on loopback."""

from __future__ import annotations

import hashlib
import io
import random
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mapsto.data.io import download, sources
from mapsto.data.io.download import cache_folder, data_folder, find_or_download, find_or_unpack, locate, unpack
from mapsto.data.sets.cifar10 import Cifar10
from mapsto.errors import DataError

BODY = b"some content" * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return buffer.getvalue()


class Home(BaseHTTPRequestHandler):
    """Serves `bodies`; a body under ``/short`` ends before its announced length."""

    bodies: dict[str, bytes]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = self.bodies.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (100 if self.path.startswith("/short") else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def home() -> Iterator[tuple[str, type[Home]]]:
    handler = type("Handler", (Home,), {"bodies": {"/file.bin": BODY, "/short.bin": BODY}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def left_in(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


def test_folders_come_from_the_environment_else_from_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAPSTO_DATA", str(tmp_path / "d"))
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path / "c"))
    assert (data_folder(), cache_folder()) == (tmp_path / "d", tmp_path / "c")
    monkeypatch.delenv("MAPSTO_DATA")
    monkeypatch.delenv("MAPSTO_CACHE")
    assert data_folder().parts[-2:] == ("mapsto", "data")
    assert "mapsto" in cache_folder().parts


def test_what_is_missing_is_downloaded_once(data: Path, home: tuple[str, type[Home]]) -> None:
    url, handler = home
    for _ in range(2):
        path = find_or_download("a/b.bin", f"{url}/file.bin", SHA256, what="a file")
        assert path.read_bytes() == BODY
    assert handler.asked == ["/file.bin"]
    assert left_in(data) == ["a/b.bin"]


def test_an_md5_serves_where_only_that_is_published(data: Path, home: tuple[str, type[Home]]) -> None:
    checksum = hashlib.md5(BODY, usedforsecurity=False).hexdigest().upper()
    assert find_or_download("b.bin", f"{home[0]}/file.bin", checksum, what="a file").read_bytes() == BODY


def test_what_is_there_is_never_checked(data: Path) -> None:
    (data / "b.bin").write_bytes(b"mine")
    assert find_or_download("b.bin", "http://127.0.0.1:1/no", SHA256, what="a file").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("path", "checksum", "reason"),
    [
        ("/file.bin", "0" * 64, "sha256"),
        ("/short.bin", SHA256, f"{len(BODY)} of {len(BODY) + 100} bytes"),
        ("/none.bin", SHA256, "404"),
    ],
)
def test_a_failed_download_says_what_to_put_where(
    data: Path, home: tuple[str, type[Home]], path: str, checksum: str, reason: str
) -> None:
    with pytest.raises(DataError) as caught:
        find_or_download("a/b.bin", home[0] + path, checksum, what="the file of files")
    message = str(caught.value)
    for part in ("the file of files", reason, str(data / "a" / "b.bin"), home[0] + path, "MAPSTO_DATA"):
        assert part in message
    assert left_in(data) == []


def test_no_server_is_an_error_that_says_what_to_do(data: Path) -> None:
    with pytest.raises(DataError, match="save it as"):
        find_or_download("b.bin", "http://127.0.0.1:1/b.bin", SHA256, what="a file")


def test_missing_files_come_out_of_an_archive(data: Path, home: tuple[str, type[Home]]) -> None:
    url, handler = home
    archive = tar_of({"set/one": b"1", "set/two": b"2", "set/three": b"3"})
    handler.bodies["/set.tar.gz"] = archive
    (data / "set").mkdir()
    (data / "set" / "one").write_bytes(b"mine")
    checksum = hashlib.sha256(archive).hexdigest()
    paths = find_or_unpack(["set/one", "set/two"], f"{url}/set.tar.gz", checksum, what="a set")
    assert [path.read_bytes() for path in paths] == [b"mine", b"2"]
    assert left_in(data) == ["set/one", "set/two"]
    with pytest.raises(DataError, match="does not hold set/four"):
        find_or_unpack(["set/four"], f"{url}/set.tar.gz", checksum, what="a set")


def test_cifar10_says_where_to_put_its_files(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CIFAR", "http://127.0.0.1:1/")
    with pytest.raises(DataError) as caught:
        Cifar10().open()
    assert str(data / "cifar-10-batches-bin" / "data_batch_1.bin") in str(caught.value)
    assert "cifar-10-binary.tar.gz" in str(caught.value)


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize("name", ["/absolute", "../up", "a/../../up", "C:/windows", "..\\up"])
def test_paths_that_lead_out_are_refused(tmp_path: Path, make: object, name: str) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(make({"good": b"1", name: b"2"}))  # type: ignore[operator]
    with pytest.raises(DataError, match="refused to unpack"):
        unpack(archive, tmp_path / "into")
    assert left_in(tmp_path) == ["archive"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as tar:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = kind, "/etc/passwd"
        tar.addfile(entry)
    with pytest.raises(DataError, match="link or a special file"):
        unpack(archive, tmp_path / "into")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(entry, "/etc/passwd")
    with pytest.raises(DataError, match="link or a special file"):
        unpack(archive, tmp_path / "into")


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_whole_archive_is_unpacked(tmp_path: Path, make: object) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(make({"a": b"1", "b/c": b"2"}))  # type: ignore[operator]
    unpack(archive, tmp_path / "into")
    assert (tmp_path / "into" / "b" / "c").read_bytes() == b"2"


@pytest.mark.parametrize("content", [b"", b"nonsense", tar_of({"a": random.Random(0).randbytes(10_000)})[:5_000]])
def test_a_damaged_archive_is_named(tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    with pytest.raises(DataError, match="not a whole tar or zip archive"):
        unpack(archive, tmp_path / "into")


def test_a_users_path_is_sought_in_the_data_folder_too(data: Path, tmp_path: Path) -> None:
    (data / "here").touch()
    assert locate("here", what="a file") == data / "here"
    assert locate(str(tmp_path / "data"), what="a folder") == data
    with pytest.raises(DataError, match=r"nowhere or .*nowhere"):
        locate("nowhere", what="a file")


def test_progress_is_shown_on_a_terminal_only(
    data: Path, home: tuple[str, type[Home]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_or_download("a.bin", f"{home[0]}/file.bin", SHA256, what="a file")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(download.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    find_or_download("b.bin", f"{home[0]}/file.bin", SHA256, what="a file")
    assert "downloading a file" in capsys.readouterr().err

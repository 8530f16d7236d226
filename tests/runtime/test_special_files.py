"""A pipe, a device, a socket or a folder where a file belongs is refused at once: nothing waits, and no memory fills."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.command import mapsto

from mapsto import datasets, export, networks
from mapsto.errors import MapstoError
from mapsto.report.build import save_package
from mapsto_runtime import regular_files
from mapsto_runtime.errors import DataError
from mapsto_runtime.regular_files import read_file, require_file

pytestmark = pytest.mark.timeout(60)
KINDS = {"pipe": "is a pipe, not a file", "socket": "is a socket, not a file", "/dev/zero": "is a device, not a file"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "package"
    save_package(export.onnx()(networks.mlp(widths=(3,), inputs=4, classes=2)()), folder)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "store"))
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        yield tmp_path


@pytest.mark.parametrize(("given", "said"), KINDS.items())
def test_every_command_refuses_what_is_no_file(given: str, said: str, here: Path, package: Path) -> None:
    assert f"{given}: {said}; give a file, or - for standard input" in mapsto("predict", package, given, code=2).err
    for words in (("run", given), ("report", given)):
        assert f"{given}: {said}" in mapsto(*words, code=2).err
    assert "there is no recipe" in mapsto("new", "mine", "--from", given, code=2).err
    recipe = "schema: 1\ndata:\n  d: {%s}\nsteps: [{networks.mlp: {data: $d}}, {train.supervised: {data: $d}}]\n"
    for entry in (f"arrays: {{file: {given}}}", f"table: {{file: {given}, target: y}}", f"images: {{folder: {given}}}"):
        Path("r.yaml").write_text(recipe % entry)
        assert said in mapsto("run", "r.yaml", "--plan", code=2).err
    factory = f"{{factory: mapsto.nn.networks.conv4:conv4, file: {given}}}"
    Path("r.yaml").write_text(f"schema: 1\nsteps: [{{networks.checkpoint: {factory}}}]\n")
    assert said in mapsto("run", "r.yaml", code=2).err
    with pytest.raises(MapstoError, match=said):
        datasets.arrays(file=given).open()


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_a_package_reads_files_only(name: str, here: Path, package: Path) -> None:
    copy = shutil.copytree(package, here / "package")
    (copy / name).unlink()
    os.mkfifo(copy / name)
    np.save("rows.npy", np.zeros((1, 4), np.float32))
    done = mapsto("predict", copy, "rows.npy", code=2)
    assert "is a pipe, not a file" in done.err or f"'{name}' is no file" in done.err


def test_what_is_read_of_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_bytes(b"abc")
    Path("link").symlink_to("file")
    assert read_file(Path("link")) == b"abc"
    require_file(Path("link"))
    with pytest.raises(IsADirectoryError):
        read_file(here)
    with pytest.raises(FileNotFoundError):
        read_file(Path("none"))
    with pytest.raises(DataError, match="pipe: is a pipe, not a file; give another"):
        require_file(Path("pipe"), hint="give another")
    with Path("huge").open("wb") as file:
        file.truncate(1 << 30)  # a file of holes, which takes no room
    monkeypatch.setattr(regular_files, "_memory", lambda: 5e8)
    with pytest.raises(DataError, match=r"huge: has 1\.07 GB, more than the 0\.5 GB of memory here"):
        read_file(Path("huge"))

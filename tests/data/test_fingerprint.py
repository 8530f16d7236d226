"""Digests of files and data sets."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mapsto.data.io import fingerprint
from mapsto.data.io.fingerprint import file_digest, folder_digest
from mapsto.data.sets.arrays import Arrays
from mapsto.data.sets.digits import Digits
from mapsto.data.sets.episodes import EpisodesOf
from mapsto.data.sets.glyphs import Glyphs
from mapsto.data.sets.images import Images
from mapsto.data.sets.subset import Subset
from mapsto.data.sets.table import Table
from mapsto.errors import DataError, SpecError
from mapsto.mapping import ref


def aged(path: Path) -> Path:
    """A file that has not been written to for a minute."""
    os.utime(path, (time.time() - 60, time.time() - 60))
    return path


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    real = fingerprint._hashed
    monkeypatch.setattr(fingerprint, "_hashed", lambda path: hashed.append(path) or real(path))
    monkeypatch.setattr(fingerprint, "_SETTLED_NS", 0)
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = file_digest(aged(path))
    assert file_digest(path) == first
    assert len(hashed) == 1
    path.write_bytes(b"two")
    assert file_digest(aged(path)) != first
    assert len(hashed) == 2


def test_a_file_whose_time_was_set_back_is_hashed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tools that edit photos in place do, and keep their dates."""
    monkeypatch.setattr(fingerprint, "_SETTLED_NS", 0)
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = file_digest(aged(path))
    time.sleep(0.02)
    known = path.stat()
    with path.open("r+b") as file:
        file.write(b"two")
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (known.st_size, known.st_mtime_ns, known.st_ino)
    assert file_digest(path) != first


def test_a_file_just_written_is_hashed_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    status = path.stat()
    first = file_digest(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_digest(path) != first


def test_a_damaged_cache_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path))
    path = aged(tmp_path / "file") if (tmp_path / "file").write_bytes(b"one") else tmp_path
    first = file_digest(path)
    (tmp_path / "digests.sqlite").write_bytes(b"nonsense" * 1000)
    assert file_digest(path) == first
    assert file_digest(path) == first
    monkeypatch.setenv("MAPSTO_CACHE", str(path))
    assert file_digest(path) == first


def test_a_folders_digest_knows_contents_and_order_not_names(tmp_path: Path) -> None:
    paths = []
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1"), ("d", b"2")):
        (tmp_path / name).write_bytes(content)
        paths.append(tmp_path / name)
    assert folder_digest(paths[:2]) == folder_digest(paths[2:])
    assert folder_digest(paths[:2]) != folder_digest(paths[1::-1])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing-here"):
        file_digest(tmp_path / "nothing-here")


def test_every_field_of_a_set_enters() -> None:
    base = Glyphs()
    others = [
        Glyphs(split="test"),
        Glyphs(per_class=3),
        Glyphs(size=32),
        Glyphs(seed=1),
        Glyphs(distortion=0.5),
        Glyphs(characters=9),
        Digits(),
        Subset(data=base),
        Subset(data=Digits()),
        EpisodesOf(data=Digits()),
        EpisodesOf(data=Digits(), ways=4),
    ]
    prints = [spec.fingerprint() for spec in (base, *others)]
    assert len(set(prints)) == len(prints)
    assert prints[0] == Glyphs(split="train").fingerprint()


def test_where_a_file_lies_does_not_enter(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "cats").mkdir(parents=True)
        (tmp_path / name / "cats" / f"{name}.png").write_bytes(b"same")
        (tmp_path / f"{name}.csv").write_text("x,y\n1,2\n")
        np.savez(tmp_path / f"{name}.npz", inputs=np.zeros((2, 2)), labels=np.zeros(2, int))
    for make in (
        lambda name: Images(folder=str(tmp_path / name)),
        lambda name: Table(file=str(tmp_path / f"{name}.csv"), target="y"),
        lambda name: Arrays(file=str(tmp_path / f"{name}.npz")),
    ):
        assert make("a").fingerprint() == make("b").fingerprint()
    (tmp_path / "a" / "cats").rename(tmp_path / "a" / "dogs")
    assert Images(folder=str(tmp_path / "a")).fingerprint() != Images(folder=str(tmp_path / "b")).fingerprint()


def test_a_reference_has_no_fingerprint_of_its_own() -> None:
    with pytest.raises(SpecError, match=r"\$train"):
        Subset(data=ref("train")).fingerprint()


def test_fingerprints_import_no_heavy_library() -> None:
    code = """
import sys
from mapsto.data.sets.digits import Digits
from mapsto.data.sets.glyphs import Glyphs
from mapsto.data.sets.episodes import EpisodesOf
EpisodesOf(data=Digits()).fingerprint()
assert 'numpy' not in sys.modules, 'numpy'
Glyphs().fingerprint()
print([name for name in ('torch', 'sklearn', 'matplotlib.pyplot', 'pyarrow') if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

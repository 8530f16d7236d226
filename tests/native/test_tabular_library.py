"""Where the compiled learner of tables is taken from, and what a wheel holds of it."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mapsto.errors import DomainError
from mapsto.native import plain, tabular

ROOT = Path(__file__).resolve().parents[2]


def test_the_best_prebuilt_form_that_the_processor_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "PREBUILT", tmp_path)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(tabular, "library", lambda *_, **__: Path("compiled"))
    newest, older = (tmp_path / f"tabular_learner-{march}.so" for march, _ in plain.VARIANTS["x86_64"])
    old = frozenset(("sse4_2", "popcnt"))
    monkeypatch.setattr(tabular, "_flags", lambda: old)
    assert tabular.tabular_library() == Path("compiled")
    newest.touch()
    older.touch()
    assert tabular.tabular_library() == older
    monkeypatch.setattr(tabular, "_flags", lambda: old | {"avx2", "bmi2", "fma", "movbe", "f16c"})
    assert tabular.tabular_library() == newest


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "PREBUILT", tmp_path)
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(DomainError, match=r"no C\+\+ compiler.*install a wheel of mapsto for this platform"):
        tabular.tabular_library()


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in plain.VARIANTS, reason="wheels for this machine hold nothing compiled")
def test_a_wheel_holds_every_form(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("mapsto-*.whl")
    assert platform.machine() in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        held = [name for name in archive.namelist() if "/prebuilt/" in name]
        archive.extractall(tmp_path, held)
    marches = [march for march, _ in plain.VARIANTS[platform.machine()]]
    names = {f"mapsto/native/prebuilt/{name}-{march}.so" for name in plain.SOURCES for march in marches}
    assert set(held) == names
    oldest = [next(name for name in sorted(held) if learner in name) for learner in ("tabular", "softmax")]
    assert ctypes.CDLL(str(tmp_path / oldest[0])).mapsto_online_new is not None
    assert ctypes.CDLL(str(tmp_path / oldest[1])).mapsto_softmax_take is not None

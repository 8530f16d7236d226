"""The learner of tables however it is compiled: the same bits by every variant, and no access beyond its memory."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.nn.online.tabular_run import told, use

from mapsto.native import tabular
from mapsto.native.plain import FLAGS, SOURCES, VARIANTS
from mapsto.nn.online import native_tabular

ROOT = Path(__file__).parents[3]


@pytest.fixture
def own_library() -> Iterator[None]:
    """What is loaded here is forgotten after."""
    before = native_tabular.tabular_library
    yield
    native_tabular.tabular_library = before
    native_tabular._load.cache_clear()


def compiled(to: Path, flags: list[str], compiler: str = "g++") -> Path:
    subprocess.run(
        [compiler, *flags, "-shared", str(SOURCES["tabular_learner"][0]), "-o", str(to)], check=True, timeout=1200
    )
    return to


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.usefixtures("own_library")
def test_all_variants_give_the_same_bits(tmp_path: Path) -> None:
    here = tabular._flags()
    marches = [march for march, needed in VARIANTS.get(platform.machine(), ()) if needed <= here]
    flags = {march: [*FLAGS, f"-march={march}"] for march in (*marches, "native")}
    flags["native -O2"] = [*FLAGS, "-march=native", "-O2"]
    makes = {name: (tmp_path / f"{number}.so", given, "g++") for number, (name, given) in enumerate(flags.items())}
    if shutil.which("clang++"):
        makes["clang++"] = (tmp_path / "clang.so", [*FLAGS, "-march=native"], "clang++")
    with ThreadPoolExecutor(2) as pool:
        libraries = dict(zip(makes, pool.map(lambda make: compiled(*make), makes.values()), strict=True))
    digests: dict[str, list[str]] = {}
    for name, library in libraries.items():
        use(library)
        digests[name] = [told(700, values=False), told(400, values=True)]
    assert len(digests) >= 3
    assert all(each == digests["native"] for each in digests.values()), digests


@pytest.mark.slow
@pytest.mark.skipif(platform.system() != "Linux" or shutil.which("g++") is None, reason="needs g++ and its sanitizers")
def test_no_access_beyond_its_memory_and_nothing_undefined(tmp_path: Path) -> None:
    found = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(Path(name).is_absolute() for name in found):
        pytest.skip("g++ has no sanitizers here")
    flags = [flag for flag in FLAGS if flag != "-O3"]
    library = compiled(
        tmp_path / "checked.so", [*flags, "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
    )
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(found),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.nn.online.tabular_run", str(library), "300"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert (done.returncode, "runtime error" in done.stderr) == (0, False), done.stderr[-4000:]

"""C++ kernels, compiled once for each machine, PyTorch and source into the cache folder."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import platformdirs

__all__ = ["SOURCES", "give_up", "library", "missing"]

SOURCES = tuple(
    Path(__file__).parent / "kernels" / name
    for name in ("conv3x3.cpp", "conv3x3_direct.cpp", "norm_pool.cpp", "pair_norm_pool.cpp", "vectors.h")
)

_TIMEOUT_S = 300
_FLAGS = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC")


def missing(say: Callable[[str], None] | None = None) -> str | None:
    """Why the compiled kernels cannot be had; None where they are there. The first call on a machine compiles them, and says so.

    What is computed with them differs from what is computed without in its last bits, so a step's key holds this. It is found
    without PyTorch, which a run that finds every result in its store does not import.
    """
    try:
        refused = library(SOURCES, say).with_suffix(".unusable")
        return refused.read_text(encoding="utf-8") if refused.exists() else None
    except (RuntimeError, OSError, ValueError, subprocess.SubprocessError, PackageNotFoundError) as error:
        return str(error)


def give_up(place: Path, reason: str) -> None:
    """Remember that a library that was compiled cannot be used, so that the next keys say so."""
    place.with_suffix(".unusable").write_text(reason, encoding="utf-8")


def library(sources: Iterable[Path], say: Callable[[str], None] | None = None) -> Path:
    """The library of these C++ sources and headers, which is compiled where it is not there yet.

    It is compiled beside its place and renamed into it; of processes that want it at once one compiles, and the others wait.

    Raises
    ------
    RuntimeError
        There is no compiler, or it fails.
    """
    files = tuple(sources)
    text = b"".join(path.read_bytes() for path in files)
    parts = (text, version("torch").encode(), " ".join(_FLAGS).encode(), _processor().encode())
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    folder = _folder()
    place = folder / f"kernels-{digest.hexdigest()[:20]}.so"
    if place.is_file():
        return place
    command = _compiler()
    folder.mkdir(parents=True, exist_ok=True)
    if say is not None:
        say("compiling the kernels for this processor, which takes about a minute and happens once")
    with _alone(folder):
        if not place.is_file():
            _compile(files, command, place)
    return place


def _compile(files: Iterable[Path], command: list[str], place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".compiling-") as temporary:
        made = Path(temporary) / "kernels.so"
        objects = {made.with_name(f"{path.stem}.o"): path for path in files if path.suffix == ".cpp"}
        calls = [[*command, "-c", str(path), "-o", str(to), *_includes()] for to, path in objects.items()]
        with ThreadPoolExecutor(len(calls)) as pool:
            list(pool.map(_run, calls))
        _run([*command, "-shared", *map(str, objects), "-o", str(made), *_links()])
        os.replace(made, place)


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """One process at a time; the lock is the folder's own, and ends with the process."""
    import fcntl  # not on Windows, where `_compiler` has said so

    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise RuntimeError(f"{command[0]} failed: {lines[0] if lines else f'exit code {done.returncode}'}")


def _folder() -> Path:
    """As `mapsto.data.folder.cache_folder`, which this package cannot import."""
    given = os.environ.get("MAPSTO_CACHE")
    return (Path(given).expanduser() if given else platformdirs.user_cache_path("mapsto")) / "kernels"


def _compiler() -> list[str]:
    if sys.platform == "win32":
        raise RuntimeError("they are not compiled on Windows")
    given = os.environ.get("CXX")
    if given:
        return [*shlex.split(given), *_FLAGS]
    for name in ("c++", "g++", "clang++"):
        found = shutil.which(name)
        if found:
            return [found, *_FLAGS]
    raise RuntimeError("there is no C++ compiler (c++, g++ or clang++)")


def _torch() -> Path:
    """The folder of PyTorch, which is not imported for it."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise RuntimeError("PyTorch is not installed")
    return Path(found.origin).parent


def _includes() -> list[str]:
    include = _torch() / "include"
    return [f"-I{include}", f"-I{include / 'torch/csrc/api/include'}", *_openmp()]


def _links() -> list[str]:
    """PyTorch's libraries; its OpenMP is the one that is used, so that there is one set of threads."""
    libraries = _torch() / "lib"
    found = [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-ltorch", "-ltorch_cpu", "-lc10", *_openmp()]
    return [*found, *(("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ())]


def _openmp() -> tuple[str, ...]:
    return () if sys.platform == "darwin" else ("-fopenmp",)


def _processor() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    wanted = ("model name", "flags", "Features", "CPU part")
    first = {line.split(":")[0].strip(): line for line in reversed(lines) if line.startswith(wanted)}
    return "\n".join([platform.machine(), platform.processor(), *(first[key] for key in sorted(first))])

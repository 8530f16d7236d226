"""C++ kernels, compiled once for each machine, PyTorch and source into the cache folder.

A cache may be shared. What is loaded is code, so that a library is loaded only where nobody else could have written it: it and its
folder belong to this user or to root, no other may write them, and its bytes have the SHA-256 that was written beside it. Anything else
is passed over with a note, and compiled afresh, in a folder of this user's own where the shared one is another's.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import platformdirs

from mapsto.native.plain import FLAGS as PLAIN_FLAGS

__all__ = ["SOURCES", "give_up", "library", "missing", "passed_over"]

SOURCES = tuple(
    Path(__file__).parent / "csrc" / name
    for name in ("conv3x3.cpp", "conv3x3_direct.cpp", "norm_pool.cpp", "pair_norm_pool.cpp", "tensors.h", "vectors.h")
)
_TIMEOUT_S = 300
_passed_over: list[str] = []
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


def passed_over() -> tuple[str, ...]:
    """What of the cache this process did not load and why, for notes to the user."""
    return tuple(_passed_over)


def give_up(place: Path, reason: str) -> None:
    """Remember that a library that was compiled cannot be used, so that the next keys say so."""
    place.with_suffix(".unusable").write_text(reason, encoding="utf-8")


def library(sources: Iterable[Path], say: Callable[[str], None] | None = None, *, plain: bool = False) -> Path:
    """The library of these C++ sources and headers, which is compiled where it is not there yet; `plain` ones without PyTorch.

    It is compiled beside its place and renamed into it; of processes that want it at once one compiles, and the others wait.

    Raises
    ------
    RuntimeError
        There is no compiler, or it fails.
    """
    files = tuple(sources)
    text = b"".join(path.read_bytes() for path in files)
    flags = (*PLAIN_FLAGS, *_native()) if plain else _FLAGS
    parts = (text, b"" if plain else version("torch").encode(), " ".join(flags).encode(), _processor().encode())
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    folder = _own_folder()
    place = folder / f"{'plain' if plain else 'kernels'}-{digest.hexdigest()[:20]}.so"
    doubt = _doubt(place)
    if doubt is None:
        return place
    command = [*_compiler(), *flags]
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    if say is not None:
        say("compiling the kernels for this processor, which takes less than a minute and happens once")
    with _alone(folder):
        if _doubt(place) is not None:  # of processes that wait, only the first finds it so
            if place.exists():
                _pass_over(f"{place} is not loaded and was compiled afresh: {doubt}")
            _compile(files, command, place, *(((), ()) if plain else (_includes(), _links())))
    return place


# -- whom the cache belongs to


def _own_folder() -> Path:
    """The cache's folder of kernels; where that is another user's, one beside it. Raises `RuntimeError` where both are."""
    folder = _folder()
    for place in (folder, folder.with_name(f"{folder.name}-{_user()}")):
        doubt = _others(place) if place.exists() else None
        if doubt is None:
            return place
        _pass_over(f"kernels in {place} are not loaded: {doubt}")
    raise RuntimeError(f"{_passed_over[-1]}; set MAPSTO_CACHE to a folder of your own")


def _others(path: Path) -> str | None:
    """Why others could have written a file or what is in a folder; None where nobody could. What is ours is closed to them."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        if status.st_uid in (_user(), 0) and path.is_dir():  # someone's own link to a folder elsewhere
            return _others(path.resolve())
        return "it is a link"
    if status.st_uid not in (_user(), 0):
        return f"it belongs to another user ({status.st_uid})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        if stat.S_ISDIR(status.st_mode) and status.st_uid == _user():  # files in it are looked at one by one
            path.chmod(stat.S_IMODE(status.st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH))
            return None
        return "others may write it"
    return None


def _doubt(place: Path) -> str | None:
    """Why a library is not loaded; None where it may be."""
    if not place.is_file():
        return "it is not there"
    written = _digest_beside(place)
    for path in (place, written):
        if not path.is_file():
            return "there is no SHA-256 beside it"
        doubt = _others(path)
        if doubt is not None:
            return doubt
    if written.read_text(encoding="utf-8", errors="replace").strip() != hashlib.sha256(place.read_bytes()).hexdigest():
        return "its bytes are not those that were compiled"
    return None


def _digest_beside(place: Path) -> Path:
    return place.with_suffix(".sha256")


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _pass_over(what: str) -> None:
    if what not in _passed_over:
        _passed_over.append(what)


def _compile(
    files: Iterable[Path], command: list[str], place: Path, includes: Sequence[str], links: Sequence[str]
) -> None:
    # not `mapsto.atomic`: what is being made lies in a folder that only this user may enter, so that nobody else can have written it
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".compiling-") as temporary:
        made = Path(temporary) / "kernels.so"
        objects = {made.with_name(f"{path.stem}.o"): path for path in files if path.suffix == ".cpp"}
        calls = [[*command, "-c", str(path), "-o", str(to), *includes] for to, path in objects.items()]
        with ThreadPoolExecutor(len(calls)) as pool:
            list(pool.map(_run, calls))
        _run([*command, "-shared", *map(str, objects), "-o", str(made), *links])
        digest = made.with_suffix(".sha256")
        digest.write_text(hashlib.sha256(made.read_bytes()).hexdigest(), encoding="utf-8")
        for path, to in ((digest, _digest_beside(place)), (made, place)):
            path.chmod(0o755)  # whatever the umask: a file that others may write is not loaded
            os.replace(path, to)


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
    """As `mapsto.data.io.download.cache_folder`, which this package cannot import."""
    cache = os.environ.get("MAPSTO_CACHE")
    return (Path(cache).expanduser() if cache else platformdirs.user_cache_path("mapsto")) / "kernels"


def _compiler() -> list[str]:
    if sys.platform == "win32":
        raise RuntimeError("they are not compiled on Windows")
    given = os.environ.get("CXX")
    if given:
        return shlex.split(given)
    for name in ("c++", "g++", "clang++"):
        found = shutil.which(name)
        if found:
            return [found]
    raise RuntimeError("there is no C++ compiler (c++, g++ or clang++)")


def _native() -> tuple[str, ...]:
    """For this processor: the values are the same without it, and take longer."""
    return () if sys.platform == "darwin" and platform.machine() == "arm64" else ("-march=native",)


def _torch() -> Path:
    """The folder of PyTorch, which is not imported for it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise RuntimeError("PyTorch is not installed")
    return Path(spec.origin).parent


def _includes() -> list[str]:
    return [f"-I{_torch() / 'include'}", *_openmp()]


def _links() -> list[str]:
    """PyTorch's libraries; its OpenMP is the one that is used, so that there is one set of threads."""
    libraries = _torch() / "lib"
    flags = [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-ltorch", "-ltorch_cpu", "-lc10", *_openmp()]
    return [*flags, *(("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ())]


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

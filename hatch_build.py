"""What building a wheel of mapsto adds: the online learners in C++, compiled for the platform in each variant that its processors may need.

Without a C++ compiler the wheel holds none, and says so: where it is installed they are then compiled when they are first used. So they are
in an editable install.
"""

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_LINKED = ("-shared", "-s", *(() if sys.platform == "darwin" else ("-static-libstdc++", "-static-libgcc")))


class PrebuiltLearners(BuildHookInterface):
    """Compiles each library of ``mapsto/native/plain.py`` into ``mapsto/native/prebuilt`` of the wheel."""

    _folder: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
        if compiler is None or sys.platform == "win32":
            self.app.display_warning(
                "no C++ compiler: the wheel holds no compiled online learners, and fits every platform"
            )
            return
        root = Path(self.root)
        plain = _module(root / "src/mapsto/native/plain.py")
        variants = plain.VARIANTS.get(platform.machine(), ())
        out = self._folder = Path(tempfile.mkdtemp(prefix="mapsto-prebuilt-"))
        for name, march in ((name, march) for name in plain.SOURCES for march, _ in variants):
            place = out / f"{name}-{march}.so"
            flags = [*plain.FLAGS, f"-march={march}", *_LINKED]
            sources = [str(path) for path in plain.SOURCES[name] if path.suffix == ".cpp"]
            subprocess.run([*shlex.split(compiler), *flags, *sources, "-o", str(place)], check=True)
            build_data["force_include"][str(place)] = f"mapsto/native/prebuilt/{place.name}"
        if variants:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder)


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _platform() -> str:
    """The wheel's platform: on Linux the oldest glibc that what was compiled can run with, which is this one's."""
    import sysconfig

    name = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if name.startswith("linux"):
        libc, number = platform.libc_ver()
        if libc == "glibc":
            major, minor = number.split(".")[:2]
            return f"manylinux_{major}_{minor}_{name.removeprefix('linux_')}"
    return name

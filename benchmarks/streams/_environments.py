"""Environments of their own for the peers of the stream benchmarks: river, MOA through CapyMOA, which needs Java, and PPMd.

They lie in ``$MAPSTO_BENCH/peers``, by default ``runs/bench/peers``, and are made at the first use.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from pathlib import Path

PINS = {
    "ppmd": ("pyppmd==1.3.1",),
    "river": ("river==0.26.1", "numpy==2.4.6", "scipy==1.17.1", "pandas==2.3.3"),
    "moa": (
        "capymoa==0.15.1",
        "jpype1==1.7.1",
        "numpy==2.4.6",
        "scipy==1.17.1",
        "pandas==2.3.3",
        "scikit-learn==1.9.1",
    ),
}


class NotRunError(Exception):
    """Why a peer cannot be run here."""


def place() -> Path:
    """Where benchmarks keep what is not committed."""
    return Path(os.environ.get("MAPSTO_BENCH", "runs/bench")).absolute()


def python_of(name: str) -> Path:
    """The Python of a peer's environment, which is made where it is not there. Raises `NotRunError`."""
    if name == "moa" and shutil.which("java") is None:
        raise NotRunError("there is no Java")
    folder = place() / "peers" / name
    pins = "\n".join(PINS[name])
    made = folder / "pins.txt"
    if not (made.is_file() and made.read_text(encoding="utf-8") == pins):
        venv.create(folder, with_pip=True, clear=True)
        done = subprocess.run(
            [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *PINS[name]],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotRunError(f"pip could not install {PINS[name][0]}: {done.stderr.strip().splitlines()[-1:]}")
        made.write_text(pins, encoding="utf-8")
    return folder / "bin" / "python"


def packages_of(name: str) -> Path:
    """The folder of a peer's packages. Raises `NotRunError`."""
    return next((python_of(name).parents[1] / "lib").glob("python*/site-packages"))

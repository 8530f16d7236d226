"""An environment of its own for the peers of the augmentation benchmark, kornia and albumentations, beside the packages of this one.

It lies in ``$MAPSTO_BENCH/peers``, by default ``runs/bench/peers``, and is made at the first use. PyTorch, NumPy and whatever else is here
is seen from there through a path file, so that all sides run on the same PyTorch in one process.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from pathlib import Path

PINS = (
    "kornia==0.9.0",
    "kornia_rs==0.2.0",
    "albumentations==2.0.8",
    "albucore==0.0.24",
    "stringzilla==3.12.6",
    "simsimd==6.5.3",
    "opencv-python-headless==4.12.0.88",
)


class NotRunError(Exception):
    """Why the peers cannot be run here."""


def place() -> Path:
    """Where benchmarks keep what is not committed."""
    return Path(os.environ.get("MAPSTO_BENCH", "runs/bench")).absolute()


def python_of_peers() -> Path:
    """The Python of the environment, which is made where it is not there. Raises `NotRunError`."""
    folder = place() / "peers" / "augment"
    here = sysconfig.get_paths()["purelib"]
    pins = "\n".join((*PINS, here))
    made = folder / "pins.txt"
    if not (made.is_file() and made.read_text(encoding="utf-8") == pins):
        venv.create(folder, with_pip=True, clear=True)
        done = subprocess.run(
            [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", *PINS],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotRunError(f"pip could not install {', '.join(PINS)}: {done.stderr.strip().splitlines()[-1:]}")
        packages = next((folder / "lib").glob("python*/site-packages"))
        (packages / "beside.pth").write_text(f"{here}\n", encoding="utf-8")
        made.write_text(pins, encoding="utf-8")
    return folder / "bin" / "python"

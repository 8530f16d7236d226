"""Environments of their own for the peers of the serving benchmark: MLServer, LitServe and BentoML, each with ONNX Runtime.

They lie in ``$MAPSTO_BENCH/peers``, by default ``runs/bench/peers``, and are made at the first use, from PyPI alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

_BOTH = ("onnxruntime==1.32.0", "numpy==2.4.6")
PINS = {
    "mlserver": ("mlserver==1.7.1", "onnxruntime==1.32.0"),
    "litserve": ("litserve==0.2.19", *_BOTH),
    "bentoml": ("bentoml==1.4.40", *_BOTH),
}
_MOST_SECONDS = 600


class NotRunError(Exception):
    """Why a peer cannot be run here."""


def place() -> Path:
    """Where benchmarks keep what is not committed."""
    return Path(os.environ.get("MAPSTO_BENCH", "runs/bench")).absolute()


def python_of(name: str) -> Path:
    """The Python of a peer's environment, which is made where it is not there. Raises `NotRunError`."""
    folder = place() / "peers" / name
    pins = "\n".join(PINS[name])
    made, python = folder / "pins.txt", folder / "bin" / "python"
    if made.is_file() and made.read_text(encoding="utf-8") == pins:
        return python
    venv.create(folder, with_pip=False, clear=True)
    # without the package of PyTorch, which none of them needs here and which is larger than all else together
    none = folder / "constraints.txt"
    none.write_text("torch<0\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", "-c", none]
    try:
        done = subprocess.run(
            [*command, *PINS[name]], capture_output=True, text=True, check=False, timeout=_MOST_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise NotRunError(f"pip did not install {PINS[name][0]} within {_MOST_SECONDS} s") from error
    if done.returncode:
        raise NotRunError(f"pip could not install {PINS[name][0]}: {done.stderr.strip().splitlines()[-1:]}")
    made.write_text(pins, encoding="utf-8")
    return python

"""SetFit beside the packages of this environment, in a folder of its own: ``$MAPSTO_BENCH/peers/setfit``, made at the first use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

VERSION = "1.2.0"
PINS = (
    f"setfit=={VERSION}",
    "sentence-transformers==6.2.0",
    "datasets==5.2.0",
    "evaluate==0.4.6",
    "dill==0.4.1",
    "multiprocess==0.70.19",
    "xxhash==4.1.0",
    "pandas==3.1.1",
    "pytz==2026.6",
    "python-dateutil==4.0.0",
    "six==1.17.0",
    "tzdata==2026.6",
    "requests==2.34.2",
    "urllib3==2.8.0",
    "idna==3.20",
    "charset-normalizer==3.5.3",
    "certifi==2026.10.19.post1",
)


class NotRunError(Exception):
    """Why SetFit cannot be run here."""


def command() -> list[str]:
    """What runs the worker, which is given a file. Raises `NotRunError` where SetFit cannot be installed."""
    folder = Path(os.environ.get("MAPSTO_BENCH", "runs/bench")).absolute() / "peers" / "setfit"
    made, pins = folder / "pins.txt", "\n".join(PINS)
    if not (made.is_file() and made.read_text(encoding="utf-8") == pins):
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder)]
        done = subprocess.run([*install, *PINS], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotRunError(f"pip could not install {', '.join(PINS)}: {done.stderr.strip().splitlines()[-1:]}")
        made.write_text(pins, encoding="utf-8")
    return [sys.executable, str(Path(__file__).with_name("_setfit_worker.py")), str(folder)]

"""What the cells of a tutorial print and draw, so that its page shows it; kept until the tutorial or mapsto's version changes.

python docs/_ext/tutorials.py SOURCE.py FOLDER
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import mapsto

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from notebooks import cells, module_of

__all__ = ["kept", "outputs", "run"]


def outputs(source: Path, folder: Path) -> list[dict[str, Any]] | None:
    """For each code cell ``{"text": printed, "figures": [{"file", "title"}]}`` as `run` left it; None where it was not run."""
    path = kept(source, folder)
    if not path.is_file():
        return None
    tree = json.loads(path.read_text("utf-8"))
    return tree["cells"] if tree["of"] == _state(source) else None


def kept(source: Path, folder: Path) -> Path:
    """The file that `run` leaves."""
    return folder / f"{source.stem}.json"


def run(source: Path, folder: Path) -> None:
    """Run every cell in order, and leave what each printed and drew in a folder."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    with module_of(source) as names:
        for kind, code in cells(source.read_text("utf-8")):
            if kind != "code":
                continue
            printed = io.StringIO()
            with redirect_stdout(printed):
                exec(compile(code, source.name, "exec", dont_inherit=True), names)
            figures = []
            for number in plt.get_fignums():
                figure = plt.figure(number)
                file = f"{source.stem}-{len(found)}-{number}.png"
                figure.savefig(folder / file, dpi=110)
                figures.append({"file": file, "title": _title(figure)})
            plt.close("all")
            found.append({"text": printed.getvalue(), "figures": figures})
    text = json.dumps({"of": _state(source), "cells": found}, indent=1, ensure_ascii=False)
    kept(source, folder).write_text(text + "\n", encoding="utf-8")


def _state(source: Path) -> str:
    return f"{mapsto.__version__} {hashlib.sha256(source.read_bytes()).hexdigest()}"


def _title(figure: Any) -> str:
    """What a picture shows, in words: its titles, else what its axes are."""
    titles = [figure.get_suptitle(), *(axis.get_title() for axis in figure.axes)]
    named = [title for title in titles if title]
    if not named and figure.axes:
        named = [f"{figure.axes[0].get_ylabel()} by {figure.axes[0].get_xlabel()}"]
    return ", ".join(named)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))

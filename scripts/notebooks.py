"""Write the notebooks of the tutorials from their sources, ``docs/tutorials/*.py`` in percent format; ``--check`` only compares."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

TUTORIALS = Path(__file__).resolve().parents[1] / "docs" / "tutorials"


def cells(text: str) -> list[tuple[str, str]]:
    """(``markdown`` or ``code``, source) of each cell."""
    found: list[tuple[str, str]] = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            lines = [re.sub(r"^# ?", "", line) for line in body.strip().splitlines()]
            found.append(("markdown", "\n".join(lines)))
        else:
            found.append(("code", body.strip()))
    return found


def notebook(text: str) -> str:
    """The notebook, without outputs."""
    made: list[dict[str, Any]] = []
    for number, (kind, source) in enumerate(cells(text)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        cell["source"] = source.splitlines(keepends=True)
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        made.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    tree = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(tree, indent=1, ensure_ascii=False) + "\n"


@contextmanager
def module_of(source: Path) -> Generator[dict[str, Any]]:
    """The names of a module that the cells of a tutorial run in: classes that they define know their module, as in a notebook."""
    module = ModuleType(source.stem)
    sys.modules[source.stem] = module
    try:
        yield vars(module)
    finally:
        del sys.modules[source.stem]


def main() -> int:
    stale: list[str] = []
    for source in sorted(TUTORIALS.glob("*.py")):
        target, new = source.with_suffix(".ipynb"), notebook(source.read_text(encoding="utf-8"))
        if not target.exists() or target.read_text(encoding="utf-8") != new:
            stale.append(target.name)
            if "--check" not in sys.argv:
                target.write_text(new, encoding="utf-8")
    print("stale: " + ", ".join(stale) if stale else "notebooks are up to date")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())

"""Rows of a CSV file as `mapsto_runtime.preprocessing.tables` reads them where it is plain; what would take guesses is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read"]

# ---- below this line: part of the runner


def read(path: Path, signature: dict[str, Any]) -> Any:
    """The rows of a CSV file in UTF-8 with a header as the network's input, (N, D)."""
    import csv

    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    widths = {sign: {len(row) for row in csv.reader(lines, delimiter=sign)} for sign in "\t;|,"}
    sign = next((sign for sign, found in widths.items() if len(found) == 1 and found != {1}), ",")
    header, *rows = ([cell.strip() for cell in row] for row in csv.reader(lines, delimiter=sign))
    if not rows or any(len(row) != len(header) for row in rows):
        raise ValueError("no table: a header, and as many cells in each row as in it, are wanted")
    parts: list[Any] = []
    for column in signature["preprocessing"]["columns"]:
        if header.count(column["name"]) != 1:
            raise ValueError(f"column {column['name']!r} is wanted once in the header")
        place = header.index(column["name"])
        part = np.stack([encoded(row[place], column) for row in rows])
        if column["fill"] and column.get("missing") != "marked":
            part = np.where(np.isnan(part), column["fill"], part)
        elif column.get("missing") != "marked" and np.isnan(part).any():
            raise ValueError(
                f"column {column['name']!r} lacks a value in row {int(np.isnan(part).any(1).argmax()) + 1}"
            )
        parts.append((part - column["mean"]) / column["std"])
    return np.concatenate(parts, 1).astype(signature["inputs"][0]["dtype"])


def encoded(cell: str, column: dict[str, Any]) -> Any:
    """A cell as numbers; NaN where it is missing, or a word that training did not have."""
    import re

    missing = cell in ("", "?", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null")
    if column["type"] == "numbers":
        comma = column.get("decimal") == ","
        if missing or cell in column["categories"]:
            return np.array([np.nan])
        if not re.fullmatch(r"[+-]?\d+(,\d+)?" if comma else r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", cell):
            raise ValueError(f"column {column['name']!r} holds {cell!r}: write plain numbers, or ask mapsto-runtime")
        return np.array([float(cell.replace(",", "."))])
    words = column["categories"]
    place = float(words.index(cell)) if cell in words else np.nan
    if np.isnan(place) and column.get("others") and not missing:
        place = len(words) - 1.0
    if column["encode"] == "ordinal":
        return np.array([place])
    return np.full(len(words), np.nan) if np.isnan(place) else (np.arange(len(words)) == place).astype(np.float64)

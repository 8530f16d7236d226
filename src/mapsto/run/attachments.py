"""Tables, curves and pictures that a step shows besides its result: kept as a report beside its record, and in its checkpoints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from mapsto.kinds import Report, Series, Table
from mapsto.kinds.canonical import dumps

__all__ = ["Attachment", "packed", "report_of", "unpacked"]

Attachment = Table | Series | bytes
"""A table, curves, or a picture (PNG)."""


def report_of(attached: Mapping[str, Attachment]) -> Report:
    """All of them in one report."""
    return Report(
        tables={name: each for name, each in attached.items() if isinstance(each, Table)},
        series={name: each for name, each in attached.items() if isinstance(each, Series)},
        pictures={name: each for name, each in attached.items() if isinstance(each, bytes)},
    )


def packed(attached: Mapping[str, Attachment]) -> dict[str, Any]:
    """As a checkpoint holds them; `unpacked` gives them back."""
    return {
        name: each if isinstance(each, bytes) else [type(each).__name__, dumps(dataclasses.asdict(each))]
        for name, each in attached.items()
    }


def unpacked(saved: Mapping[str, Any]) -> dict[str, Attachment]:
    """What `packed` was given.

    >>> table = Table(columns=("a",), rows=((1,),))
    >>> unpacked(packed({"t": table, "p": b"PNG"})) == {"t": table, "p": b"PNG"}
    True
    """
    found: dict[str, Attachment] = {}
    for name, each in saved.items():
        if isinstance(each, bytes):
            found[name] = each
            continue
        kind, text = each
        tree = json.loads(text)
        if kind == "Table":
            rows = tuple(tuple(row) for row in tree.pop("rows"))
            found[name] = Table(columns=tuple(tree.pop("columns")), rows=rows, **tree)
        else:
            ys = {key: tuple(values) for key, values in tree.pop("ys").items()}
            found[name] = Series(x=tuple(tree.pop("x")), ys=ys, **tree)
    return found

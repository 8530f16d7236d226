"""A package of a tiny encoder that reads texts, and the table that it was made of."""

from __future__ import annotations

import csv
from pathlib import Path

from mapsto import datasets
from mapsto.context import Context
from mapsto.kinds import Network, Package
from mapsto.mappings.adapt.ridge import Ridge
from mapsto.mappings.export.onnx import Onnx
from mapsto.mappings.networks.hf_text import HfText
from tests.text.tiny_encoder import tiny_encoder

__all__ = ["ROWS", "adapted_package", "text_package", "write_table"]

ROWS = [
    ("where is my card?", "card"),
    ("my card is lost", "card"),
    ("please help, my card", "card"),
    ("I like the red apple", "fruit"),
    ("eat a green pear", "fruit"),
    ("apples, pears and fruit; it is red", "fruit"),
]


def write_table(
    path: Path, rows: list[tuple[str, str]] = ROWS, *, encoding: str = "utf-8", delimiter: str = ","
) -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows([("text", "intent"), *rows])
    return path


def adapted_package(encoder: Network, file: Path, out: Path) -> Package:
    """The encoder with a head for a table's classes, written into a folder."""
    data, ctx = datasets.text(file=str(file), target="intent"), Context()
    package = ctx.apply(Onnx(data=data), ctx.apply(Ridge(data=data), encoder))
    for name, path in package.files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(path.read_bytes())
    return package


def text_package(place: Path) -> Path:
    """The folder ``place/package``."""
    encoder = HfText(folder=str(tiny_encoder(place / "encoder")), length=12)()
    adapted_package(encoder, write_table(place / "intents.csv"), place / "package")
    return place / "package"

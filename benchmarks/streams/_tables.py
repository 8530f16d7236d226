"""Streams that `stream_tabular` is measured on, as arrays that every side is given: numbers (N, columns) and class numbers (N,)."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from _environments import NotRunError, packages_of
from numpy.typing import NDArray

from mapsto import discovery
from mapsto.data.io.download import locate

Table = tuple[NDArray[np.float64], NDArray[np.int64]]

SMALL = ("Phishing", "Bananas", "ImageSegments")
"""Streams with a goal of their own."""
GENERATED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "SEA": ("sea", {}),
    "Agrawal": ("agrawal", {}),
    "hyperplane": ("hyperplane", {}),
    "RBF with drift": ("rbf", {}),
}
"""Of each the generator and its fields; 10,000 events, with their drift as by default."""


def table(name: str, seed: int, rows: int | None = None) -> Table:
    """A stream, or its first rows; only generators have a seed. Raises `NotRunError`."""
    if name in GENERATED:
        x, y = _generated(*GENERATED[name], seed)
    else:
        x, y = _FILES[name]()
    return x[:rows], y[:rows]


def _phishing() -> Table:
    return _columns(gzip.decompress(_river("phishing.csv.gz")).decode(), "is_phishing")


def _bananas() -> Table:
    lines = [line.split() for line in _unzipped("banana.zip").splitlines() if line.strip()]
    x = [[float(value.partition(":")[2]) for value in line[1:]] for line in lines]
    return np.array(x), _codes([line[0] for line in lines])


def _segments() -> Table:
    return _columns(_unzipped("segment.csv.zip"), "category")


def _shuttle() -> Table:
    return _columns(gzip.decompress(_river("shuttle.csv.gz")).decode(), "anomaly")


def _electricity() -> Table:
    return _columns(_shared("electricity"), "class")


def _weather() -> Table:
    return _columns(_shared("weather"), "target")


_FILES: Mapping[str, Callable[[], Table]] = {
    "Phishing": _phishing,
    "Bananas": _bananas,
    "ImageSegments": _segments,
    "electricity": _electricity,
    "weather": _weather,
    "Shuttle": _shuttle,
}
STREAMS = (*SMALL, "electricity", "weather", *GENERATED, "Shuttle")


def _generated(generator: str, fields: Mapping[str, Any], seed: int) -> Table:
    found = discovery.entries("streams")
    if generator not in found:
        raise NotRunError(f"this mapsto has no stream '{generator}'")
    stream = discovery.find("streams", generator)(seed=seed, **fields)
    blocks = list(stream.open(size=1024))
    names = list(blocks[0].x)
    columns = [np.concatenate([block.x[name] for block in blocks]) for name in names]
    x = np.stack([column if column.dtype.kind == "f" else _ordered(column) for column in columns], axis=1)
    return x, _codes(np.concatenate([block.y for block in blocks]).tolist())


def _ordered(words: NDArray[Any]) -> NDArray[np.float64]:
    """Words such as "car 17" as the numbers that they end with."""
    return np.array([float(word.rpartition(" ")[2]) for word in words.tolist()])


def _river(file: str) -> bytes:
    return (packages_of("river") / "river" / "datasets" / file).read_bytes()


def _unzipped(file: str) -> str:
    with zipfile.ZipFile(io.BytesIO(_river(file))) as archive:
        return archive.read(archive.namelist()[0]).decode()


def _shared(name: str) -> str:
    return locate(f"streams/{name}.csv", what=f"the {name} stream").read_text(encoding="utf-8")


def _columns(text: str, target: str) -> Table:
    rows = list(csv.DictReader(io.StringIO(text)))
    names = [name for name in rows[0] if name != target]
    return np.array([[float(row[name]) for name in names] for row in rows]), _codes([row[target] for row in rows])


def _codes(labels: Sequence[Any]) -> NDArray[np.int64]:
    """The number of each label, in the order of their first places."""
    known: dict[Any, int] = {}
    return np.array([known.setdefault(label, len(known)) for label in labels], np.int64)

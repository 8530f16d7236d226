"""What ``mapsto show augment.NAME`` draws: a sheet of images beside changed copies, or rows of a table before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from mapsto.data.augment import Augmentation
from mapsto.errors import DataError, DomainError, SpecError, nearest

if TYPE_CHECKING:
    from mapsto.kinds import Samples, Table

__all__ = ["made", "sheet_of"]

_TABLES = (".csv", ".tsv", ".parquet")
_SIDE = 96
"""Pixels of a user's image on a sheet."""


def made(cls: type[Augmentation], settings: Sequence[str]) -> Augmentation:
    """The operation with ``field=value`` settings; where its defaults change nothing, with settings that show something.

    Raises `SpecError` for a setting that is none, and what the class raises.
    """
    fields: dict[str, Any] = {}
    known = [field.name for field in dataclasses.fields(cast("Any", cls))]
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SpecError(f"'{text}' is not like field=value", where="--set", hint="as in --set probability=1")
        if name not in known:
            raise SpecError(f"unknown field '{name}'", where="--set", hint=nearest(name, known))
        try:
            fields[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SpecError(
                f"'{value}' is no value", where=f"--set {name}", hint="a number, a word or a list"
            ) from error
    return cls(**(fields or cls.contract))


def sheet_of(operation: Augmentation, *, data: str | None, target: str | None, out: Path | None) -> dict[str, Any]:
    """Draw the sheet. Gives ``{"sheet": path}`` of a picture, or ``{"rows": table}``; and ``text``, which says so.

    Parameters
    ----------
    operation
        What is drawn.
    data
        A folder of images, or a table; by default images and a table that come with mapsto.
    target
        The column of the table's classes; by default its last one.
    out
        Where the picture goes; by default into the cache folder.

    Raises
    ------
    DomainError
        The operation is for other samples than the data hold.
    """
    from mapsto.data.augment._apply import require_fitting
    from mapsto.data.augment._sheet import picture, rows_table

    samples = _own(data, target) if data is not None else _bundled(operation)
    require_fitting((operation,), samples, where=f"augment.{operation.name}")
    if samples.inputs.ndim != 4:
        if out is not None:
            raise DomainError("rows are printed, not drawn", where="--sheet", hint="leave it out")
        table = rows_table((operation,), samples, seed=0)
        return {"rows": dataclasses.asdict(table), "text": f"Rows before and after\n{_aligned(table)}"}
    path = out if out is not None else _place(operation.name)
    from mapsto.store import write_atomically

    write_atomically(path, picture((operation,), samples, seed=0))
    return {"sheet": str(path), "text": f"Sheet, each image beside changed copies of it: {path}"}


def _place(name: str) -> Path:
    from mapsto.data.io.download import cache_folder

    return cache_folder() / "sheets" / f"{name}.png"


def _own(data: str, target: str | None) -> Samples:
    """The user's images, in folders of classes or not, or the rows of a table."""
    from mapsto.data.io.download import locate
    from mapsto.data.sets.images import Images
    from mapsto.data.sets.table import Table as TableData

    path = locate(data, what="the data")
    if path.suffix.lower() in _TABLES:
        return TableData(file=str(path), target=target or _last_column(path)).open()
    if target is not None:
        raise SpecError("target is a column, but the data are images", where="--target", hint="leave it out")
    try:
        return Images(folder=str(path), size=_SIDE, channels=3).open()
    except DataError:
        return Images(folder=str(path), size=_SIDE, channels=3, unlabelled=True).open()


def _last_column(path: Path) -> str:
    from mapsto.data.io.tables import read_table

    names = read_table(path, []).names
    if not names:
        raise DataError("the table has no header", where=str(path), hint="name its columns in a first line")
    return names[-1]


def _bundled(operation: Augmentation) -> Samples:
    """Parts of two photos, or rows of Fisher's irises; both come with scikit-learn."""
    import numpy as np
    from sklearn import datasets

    from mapsto.kinds import Preprocessing, Samples
    from mapsto_runtime.signature import Column

    if "images" in operation.on:
        photos: Any = cast("Any", datasets.load_sample_images()).images
        parts = [photo[100:340:2, left : left + 240 : 2] for left in (20, 200, 380) for photo in photos]
        images = np.ascontiguousarray(np.stack(parts).transpose(0, 3, 1, 2))
        labels = np.arange(len(images)) % 2
        return Samples(
            inputs=images, labels=labels, classes=("palace", "flower"), preprocessing=Preprocessing(size=(120, 120))
        )
    irises: Any = datasets.load_iris()
    rows = irises.data.astype(np.float64)
    mean, std = rows.mean(0), rows.std(0)
    names = [name.removesuffix(" (cm)") for name in irises.feature_names]
    columns = tuple(Column(name=name, mean=float(m), std=float(s)) for name, m, s in zip(names, mean, std, strict=True))
    return Samples(
        inputs=((rows - mean) / std).astype(np.float32),
        labels=irises.target.astype(np.int64),
        classes=tuple(map(str, irises.target_names)),
        preprocessing=Preprocessing(kind="none", columns=columns),
    )


def _aligned(table: Table) -> str:
    """A table in columns of one width each."""
    lines = [table.columns, *table.rows]
    cells = [[str(cell) for cell in line] for line in lines]
    widths = [max(len(line[place]) for line in cells) for place in range(len(table.columns))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )

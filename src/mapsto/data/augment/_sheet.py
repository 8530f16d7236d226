"""What augmentations make of samples, to look at: images beside changed copies as one picture, rows of a table before and after."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.data.augment._apply import changed, generator_of, mixed
from mapsto.data.augment._base import Augmentation, Drawn
from mapsto.data.augment._columns import RowColumns, columns_of
from mapsto.kinds import Samples, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from mapsto_runtime.signature import Column

__all__ = ["COPIES", "IMAGES", "picture", "rows_table"]

IMAGES, COPIES = 6, 6
"""Rows and drawn copies of a sheet."""
_GAP = 2
"""Pixels between pictures."""
_LEAST, _MOST = 64, 160
"""A picture's longer side is enlarged by whole steps up to the first, or made smaller down to the second."""
_MOST_COLUMNS = 10
"""Of a table that is shown."""


def picture(
    operations: Sequence[Augmentation], samples: Samples, *, seed: int, images: int = IMAGES, copies: int = COPIES
) -> bytes:
    """A sheet as PNG: in each row an image (bytes, (C, H, W)) as it is, then drawn copies of it.

    Images are of different classes where there are several. What mixes samples mixes those that are shown.
    """
    chosen = _of_different_classes(samples, images)
    made = drawn(operations, samples.take(chosen), seed=seed, copies=copies)
    return _png(np.concatenate([samples.inputs[chosen][None], made]))


def rows_table(operations: Sequence[Augmentation], samples: Samples, *, seed: int, rows: int = IMAGES) -> Table:
    """Rows of a table, each before and after; numbers in their own unit, categories by name, half ones as shares.

    What takes values from other rows takes them from all of up to 1,000.
    """
    around = samples.take(
        np.unique(np.linspace(0, max(len(samples) - 1, 0), min(len(samples), 1000)).round().astype(np.int64))
    )
    chosen = _of_different_classes(around, rows)
    after = drawn(operations, around, seed=seed, copies=1, columns=columns_of(samples))[0]
    columns = samples.preprocessing.columns
    lines: list[tuple[Any, ...]] = []
    for place in chosen.tolist():
        label = around.labels[place]
        name = around.classes[label] if around.labels.ndim == 1 and around.labels.dtype.kind in "iu" else ""
        for when, row in (("before", around.inputs[place]), ("after", after[place])):
            lines.append((when, name, *_cells(row.reshape(-1), columns)[:_MOST_COLUMNS]))
    width = len(lines[0]) - 2 if lines else 0
    names = [column.name for column in columns] if len(columns) else [f"number {place}" for place in range(width)]
    return Table(columns=("row", "class", *names[:width]), rows=tuple(lines))


def drawn(
    operations: Sequence[Augmentation], samples: Samples, *, seed: int, copies: int, columns: RowColumns | None = None
) -> NDArray[Any]:
    """Changed copies of raw samples, shape (copies, N, ...), of their type."""
    import torch

    raw, targets = torch.as_tensor(np.asarray(samples.inputs)), torch.as_tensor(samples.labels)
    known = columns or columns_of(samples)

    def copy(number: int) -> NDArray[Any]:
        def generator(place: int) -> Any:
            text = f"{seed} {number} {place}"
            return generator_of(int(hashlib.sha256(text.encode()).hexdigest()[:15], 16))

        x = changed(operations, raw, generator, targets=targets, classes=len(samples.classes), columns=known)
        if any(each.mixes for each in operations):
            x = _mixed(operations, x, targets, len(samples.classes), generator)
        return x.numpy()

    return np.stack([copy(number) for number in range(copies)])


def _mixed(operations: Sequence[Augmentation], x: Tensor, targets: Tensor, classes: int, generator: Any) -> Tensor:
    """Raw samples mixed as prepared ones are."""
    whole = x if x.is_floating_point() else x.float()
    result = mixed(operations, Drawn(x=whole, targets=targets, classes=classes), generator).x
    return result if x.is_floating_point() else result.round().clamp(0, 255).to(x.dtype)


def _of_different_classes(samples: Samples, count: int) -> NDArray[np.int64]:
    """At most `count` of them: the first of each class in turn, then the second."""
    if samples.labels.ndim != 1 or samples.labels.dtype.kind not in "iu":
        return np.unique(np.linspace(0, max(len(samples) - 1, 0), min(count, len(samples))).round().astype(np.int64))
    order = np.argsort(samples.labels, kind="stable")
    labels = samples.labels[order]
    begins = np.searchsorted(labels, labels)
    turn = np.arange(len(order)) - begins
    return order[np.lexsort((labels, turn))][:count]


def _png(pictures: NDArray[np.uint8]) -> bytes:
    """Pictures (across, down, C, H, W) as one, the first column set apart."""
    from PIL import Image

    tiles = np.stack([np.stack([_shown(each) for each in column]) for column in pictures])
    across, down, height, width, _ = tiles.shape
    sheet = np.full((down * (height + _GAP) - _GAP, across * (width + _GAP) + _GAP, 3), 255, np.uint8)
    for x in range(across):
        left = x * (width + _GAP) + (2 * _GAP if x else 0)
        for y in range(down):
            top = y * (height + _GAP)
            sheet[top : top + height, left : left + width] = tiles[x, y]
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, format="PNG", compress_level=6)
    return file.getvalue()


def _shown(image: NDArray[Any]) -> NDArray[np.uint8]:
    """An image (C, H, W) as (H', W', 3) of a size that can be looked at."""
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = ((image - low) / (high - low or 1.0) * 255).round().astype(np.uint8)
    colour = np.repeat(image[:1], 3, axis=0) if len(image) < 3 else image[:3]
    longer = max(image.shape[1:])
    times, step = max(1, _LEAST // longer), max(1, -(-longer // _MOST))
    return colour.transpose(1, 2, 0)[::step, ::step].repeat(times, axis=0).repeat(times, axis=1)


def _cells(row: NDArray[Any], columns: Sequence[Column]) -> list[Any]:
    """A row as its table has it: of each column a number in its own unit, or the name of a category, or shares of several."""
    if sum(column.width for column in columns) != len(row):
        return [round(float(value), 4) for value in row]
    cells: list[Any] = []
    place = 0
    for column in columns:
        part = row[place : place + column.width].astype(np.float64)
        place += column.width
        if column.type == "numbers" or column.width == 1:
            value = part[0] * column.std + column.mean
            cells.append(0.0 if abs(value) < 1e-5 * column.std else float(f"{value:.5g}"))
            continue
        there = np.flatnonzero(np.abs(part) > 1e-6)
        whole = len(there) == 1 and abs(part[there[0]] - 1) < 1e-6
        cells.append(
            column.categories[there[0]] if whole else " + ".join(f"{part[k]:.2g} {column.categories[k]}" for k in there)
        )
    return cells

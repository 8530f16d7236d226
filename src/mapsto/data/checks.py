"""What training and evaluation need of data, checked before any work."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapsto.errors import DataError
from mapsto.kinds import Samples
from mapsto_runtime.shown import few, short

__all__ = [
    "classes_alike",
    "names_alike",
    "require_alike",
    "require_classes",
    "require_finite",
    "require_in_range",
    "require_labelled",
    "require_some",
]


def names_alike(names: Iterable[str]) -> list[str]:
    """Names of classes or words that differ in nothing but case, spaces or how accents are encoded, each group in a phrase.

    >>> names_alike(["Cat", "dog", "cat", "cat "]), names_alike(["big cat", "bigcat"])
    (["'Cat', 'cat', 'cat '"], [])
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
        groups.setdefault(" ".join(unicodedata.normalize("NFC", visible).casefold().split()), []).append(name)
    return [few([f"'{short(name)}'" for name in group]) for group in groups.values() if len(group) > 1]


def classes_alike(classes: Iterable[str]) -> list[str]:
    """A warning for each group of classes whose names hardly differ."""
    return [
        f"the classes {names} count as different, though they differ only in case or spaces; write them alike if they are one"
        for names in names_alike(classes)
    ]


def require_some(samples: Samples, *, where: str) -> Samples:
    """The samples. Raises `DataError` where there is none."""
    if not len(samples):
        raise DataError("there is not one sample", where=where, hint="choose another split, or lower what is held out")
    return samples


def require_labelled(samples: Samples, *, where: str) -> NDArray[np.int64]:
    """The labels, one class each. Raises `DataError` for multi-label and regression targets."""
    if samples.labels.ndim != 1 or samples.labels.dtype.kind not in "iu":
        raise DataError(
            f"needs one class for each sample, got labels of type {samples.labels.dtype}, shape {samples.labels.shape}",
            where=where,
            hint="give it data with classes",
        )
    return samples.labels


def require_classes(samples: Samples, at_least: int = 2, *, where: str = "data") -> Samples:
    """The samples. Raises `DataError` where fewer classes than `at_least` have a sample.

    >>> from mapsto.kinds import Preprocessing
    >>> lonely = Samples(inputs=np.zeros((3, 2)), labels=np.zeros(3, np.int64), classes=("cat", "dog"),
    ...                  preprocessing=Preprocessing(kind="none"))
    >>> require_classes(lonely)
    Traceback (most recent call last):
    mapsto.errors.DataError: data: class 'dog' has no samples; add samples of it, or remove its folder or its name
    """
    require_some(samples, where=where)
    there = np.unique(require_labelled(samples, where=where))
    if len(there) < at_least:
        if at_least == len(samples.classes):
            empty = [f"'{short(name)}'" for label, name in enumerate(samples.classes) if label not in there]
            raise DataError(
                f"class {', '.join(empty[:8])} has no samples",
                where=where,
                hint="add samples of it, or remove its folder or its name",
            )
        names = ", ".join(short(samples.classes[label]) for label in there)
        count = "only one class has" if len(there) == 1 else f"only {len(there)} classes have"
        raise DataError(
            f"{count} samples ({names}), at least {at_least} are needed",
            where=where,
            hint="add samples of other classes",
        )
    return samples


def require_alike(known: Sequence[str] | None, classes: Sequence[str], *, where: str) -> None:
    """Raises `DataError` where a class of both has another number in each: outputs and labels would be of different classes.

    >>> require_alike(("cat", "dog"), ("ant", "cat"), where="test")
    Traceback (most recent call last):
    mapsto.errors.DataError: test: class 'cat' is number 1 of the data but number 0 of the network; ...
    """
    places = {name: i for i, name in enumerate(known or ())}
    for number, name in enumerate(classes):
        if places.get(name, number) != number:
            raise DataError(
                f"class '{name}' is number {number} of the data but number {places[name]} of the network",
                where=where,
                hint="give data with the network's classes in its order (for image folders: the same folders, empty ones too)",
            )


def require_finite(inputs: NDArray[Any], *, where: str, columns: Sequence[str] | None = None) -> None:
    """Raises `DataError` that names the first row (and column) with NaN or infinity, and counts the rows."""
    if inputs.dtype.kind not in "fc" or not inputs.size:
        return
    flat = inputs.reshape(len(inputs), -1)
    finite = np.isfinite(flat)
    bad = np.flatnonzero(~finite.all(axis=1))
    if not len(bad):
        return
    column = int(np.flatnonzero(~finite[bad[0]])[0])
    name = f", column '{columns[column]}'" if columns is not None else ""
    more = f" (and {len(bad) - 1} more row{'s' if len(bad) > 2 else ''})" if len(bad) > 1 else ""
    raise DataError(
        f"row {bad[0]}{name} holds {flat[bad[0], column]}{more}", where=where, hint="drop or fill what is missing"
    )


def require_in_range(labels: NDArray[Any], classes: int, *, where: str) -> None:
    """Raises `DataError` that names the first label outside 0 to `classes` - 1."""
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        raise DataError(
            f"label {labels[bad[0]]} of sample {bad[0]} is outside 0 to {classes - 1}",
            where=where,
            hint="number the classes from 0",
        )

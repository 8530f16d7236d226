"""Texts with several labels or numbers, and sentences with tagged words, as a package that reads texts is judged on them.

They are read by the data sets that ``mapsto adapt`` learns from, so that a file of the same form is judged as it was learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mapsto import discovery
from mapsto.errors import DataError, SpecError, nearest
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Samples
    from mapsto_runtime.preprocessing.texts import Text
    from mapsto_runtime.signature import Signature

__all__ = ["Texts", "TrainedOn", "labelled_texts", "tagged_texts", "trained_on"]

_MOST_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """The columns of the table that a package was made of, as its manifest has them; empty where it does not tell."""

    text: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    separator: str = ";"


def trained_on(manifest: Mapping[str, Any]) -> TrainedOn:
    """What a manifest tells; what is not as expected counts as not told."""
    found: Any = manifest.get("trained_on")
    if not isinstance(found, dict):
        return TrainedOn()
    told = cast("dict[str, Any]", found)

    def names(key: str) -> tuple[str, ...]:
        given = told.get(key)
        return tuple(map(str, cast("list[Any]", given))) if isinstance(given, list) else ()

    separator = told.get("separator")
    return TrainedOn(
        text=names("text"),
        target=names("target"),
        separator=separator if isinstance(separator, str) and separator else ";",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """What a file holds, as a package reads it."""

    texts: list[str]
    """As they stand there, the two of a pair with a line between; of tagged words with a blank between."""
    given: list[Text]
    """The same, the two of a pair apart."""
    ids: NDArray[Any]
    """Token ids, shape (N, L), of pairs (N, 2, L)."""
    labels: list[Any]
    """Of each text the numbers of its labels or values, in the order of the package's classes, or the tags of its words."""
    target: str
    """What holds the labels."""
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def labelled_texts(path: Path, signature: Signature, target: str | None, told: TrainedOn) -> Texts:
    """Texts with labels or numbers.

    A label that the package does not know is left out with a warning.

    Raises
    ------
    SpecError
        It is not known which columns hold the labels.
    DataError
        The file is not whole, or has none of the package's labels.
    """
    where, classes = str(path), list(signature.classes or ())
    columns = tuple(signature.preprocessing.header) or ("text",)
    targets = (target,) if target is not None else _targets(path, classes, columns, told, signature.answers)
    data = discovery.find("data", "text")(
        file=where,
        text=columns[0] if len(columns) == 1 else columns,
        target=targets[0] if len(targets) == 1 else targets,
        task=signature.answers,
        separator=told.separator,
        unlabelled="leave_out",
        repeated="keep",
    )
    samples: Samples = data.read_for(signature.preprocessing).open()
    labels, warnings = samples.labels, samples.warnings
    if signature.answers == "labels":
        labels, said = _in_order(samples, classes, where)
        warnings = (*warnings, *said)
    elif len(samples.classes) != len(classes):
        raise DataError(
            f"it has {len(samples.classes)} columns of values, and the package gives {len(classes)}",
            where=where,
            hint=f"its columns are {_quoted(classes)}",
        )
    given: list[Any] = data.open().inputs.tolist()
    return Texts(
        texts=[each if isinstance(each, str) else " | ".join(each) for each in given],
        given=[each if isinstance(each, str) else tuple(each) for each in given],
        ids=samples.inputs,
        labels=labels.astype(np.float64).tolist(),
        target=few([short(each) for each in targets]),
        warnings=warnings,
        notes=samples.notes,
    )


def _in_order(samples: Samples, classes: Sequence[str], where: str) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """The labels in the order of the package's, and a warning of those that it does not know."""
    others = [name for name in samples.classes if name not in classes]
    if len(others) == len(samples.classes):
        raise DataError(
            f"the package knows none of its labels ({_quoted(samples.classes)})",
            where=where,
            hint=f"its labels are {_quoted(classes)}; name the column of labels with --target",
        )
    labels = np.zeros((len(samples), len(classes)), np.float32)
    for place, name in enumerate(samples.classes):
        if name in classes:
            labels[:, classes.index(name)] = samples.labels[:, place]
    if not others:
        return labels, ()
    rows = int(samples.labels[:, [samples.classes.index(name) for name in others]].any(1).sum())
    have = "1 text has" if rows == 1 else f"{rows} texts have"
    return labels, (f"{where}: {have} labels that the package does not know ({_quoted(others)}), which are not judged",)


def _targets(
    path: Path, classes: Sequence[str], columns: Sequence[str], told: TrainedOn, answers: str
) -> tuple[str, ...]:
    """The columns that hold what the package answers: those that it was made of, a column for each class, or one of labels."""
    from mapsto.data.io.tables import read_table

    names = list(read_table(path, []).names or ())
    if told.target and all(name in names for name in told.target):
        return told.target
    if all(name in names for name in classes):
        return tuple(classes)
    left = [name for name in names if name not in columns]
    found = [name for name in left if answers == "labels" and _holds_labels(path, name, classes, told.separator)]
    if len(found) == 1:
        return (found[0],)
    raise SpecError(
        "it is not known which column holds what is to be predicted",
        where=str(path),
        hint="name it with --target: "
        + (few([short(name) for name in found or left], 20) or "there is no other column"),
    )


def _holds_labels(path: Path, name: str, classes: Sequence[str], separator: str) -> bool:
    """Whether most of the labels in a column are the package's."""
    from mapsto.data.io.tables import read_table, target_of
    from mapsto.data.io.texts import lists_in

    try:
        table = read_table(path, [name])
        if name in table.odd:
            labels = [label for cell in lists_in(path, name) for label in cell or ()]
        else:
            cells = target_of(table, name, where=str(path)).words
            labels = [part.strip() for cell in cells for part in (cell or "").split(separator) if part.strip()]
    except DataError:  # dates, say
        return False
    return 2 * sum(label in classes for label in labels) > len(labels)


def tagged_texts(path: Path, signature: Signature, target: str | None, told: TrainedOn) -> Texts:
    """The sentences of a file. Raises as `datasets.tags` does, `DataError` where the package knows none of the tags."""
    named = (target,) if target is not None else told.target
    fields: dict[str, str] = {}
    for field, columns in (("tokens", told.text), ("tags", named)):
        if len(columns) == 1:
            (fields[field],) = columns
    data = discovery.find("data", "tags")(file=str(path), **fields, repeated="keep")
    samples: Samples = data.open()
    read: Samples = data.read_for(signature.preprocessing).open()
    tags = [[samples.classes[tag] for tag in row[row >= 0].tolist()] for row in samples.labels]
    known = list(signature.classes or ())
    others = sorted({tag for row in tags for tag in row} - {*known})
    if len(others) == len(samples.classes) - ("O" in samples.classes):
        raise DataError(
            f"the package knows none of its tags ({_quoted(others)})",
            where=str(path),
            hint=f"its tags are {_quoted(known)}; of '{short(others[0])}': {nearest(others[0], known, most=5)}",
        )
    unknown = (f"{path}: the package does not know the tags {_quoted(others)}, and is never right on them",)
    return Texts(
        texts=samples.inputs.tolist(),
        given=samples.inputs.tolist(),
        ids=read.inputs,
        labels=tags,
        target=data.tags,
        warnings=(*read.warnings, *(unknown if others else ())),
        notes=tuple(read.notes),
    )


def _quoted(names: Sequence[str]) -> str:
    return few([f"'{short(name)}'" for name in names], _MOST_SHOWN)

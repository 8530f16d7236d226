"""Texts in a CSV, TSV, Parquet or JSON Lines file: one row is one sample, one column its text, another its target."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.kinds import Dataset, Preprocessing, Samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.data.io.texts import TextRows

__all__ = ["Text"]

_SPLIT_SEED = 0


class Text(Dataset):
    """Texts, or pairs of texts, with classes, labels or numbers to predict.

    A network reads them by its own tokenizer, so that samples are token ids (N, L), int64, or (N, 2, L) of pairs; without a network they
    are the texts themselves. Separators, Windows-1252 and UTF-16 are found by themselves. A row without a text is left out with a
    warning, as is one whose text stands there before with the same target; equal texts with different targets are listed. A file of
    another kind, such as ``.txt``, holds one text a line, and can only be a pool without labels.
    """

    version: ClassVar[int] = 2

    file: str
    """A ``.csv``, ``.tsv``, ``.parquet``, ``.jsonl`` or, without labels, ``.txt`` file: a path, or a path inside the data folder."""
    text: str | tuple[str, str] = "text"
    """The column of texts; two for pairs."""
    target: str | tuple[str, ...] | None = None
    """The column to predict; several for task `labels` or `values`. None: the texts are a pool without labels."""
    task: Literal["classes", "labels", "values"] = "classes"
    """Whether the target is a class, columns of 0 and 1 (or one of labels with `separator` between them, or of lists), or numbers."""
    separator: str = Field(default=";", min_length=1)
    """What stands between the labels of one column, with task `labels`."""
    without: str | None = None
    """A class whose rows are left out, as that of texts out of scope; it need not be there."""
    unlabelled: Literal["refuse", "leave_out", "only"] = "refuse"
    """Whether a row without a value of the target is an error, left out with a warning, or all that is taken."""
    repeated: Literal["drop", "keep"] = "drop"
    """What becomes of a text that stands there before with the same target."""
    split: Literal["all", "train", "test"] = "all"
    """All rows, or those for training or testing."""
    test_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of the test rows, stratified by class and always the same rows."""

    def fingerprint(self) -> str:
        from mapsto.data.io.download import locate
        from mapsto.data.io.fingerprint import file_digest, fingerprint_of

        path = locate(self.file, what="the file of texts")
        return fingerprint_of(self, [path.suffix.lower(), file_digest(path)], without=("file",))

    def open(self) -> Samples:
        return self._opened()

    def read_for(self, preprocessing: Preprocessing) -> Dataset:
        """These texts by a network's tokenizer."""
        return _ReadFor(texts=self, preprocessing=preprocessing) if preprocessing.kind == "text" else self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of texts."""
        return (self.text,) if isinstance(self.text, str) else self.text

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict."""
        return () if self.target is None else (self.target,) if isinstance(self.target, str) else self.target

    def _opened(self) -> Samples:
        """The texts as they stand: an array of strings (N,), or of pairs (N, 2)."""
        import numpy as np

        from mapsto.data.checks import classes_alike, require_some
        from mapsto.data.io.download import locate
        from mapsto.data.io.texts import BROKEN, conflicts, left_out, read_texts, repeats

        path = locate(self.file, what="the file of texts")
        where = str(path)
        only = self.unlabelled == "only" or self.target is None
        rows = read_texts(path, self.columns, () if only else self.targets)
        warnings: list[str] = []
        keep = ~rows.empty
        warnings += left_out(~keep, "the text is empty")
        warnings += left_out(rows.broken, BROKEN)
        keep &= ~rows.broken
        labels, classes, gaps = self._labels(rows, only, where)
        _require_unicode(classes, where)
        if self.unlabelled == "only" and self.target is not None:
            keep &= gaps
        elif (gaps & keep).any():
            self._require_leave_out(gaps & keep, where)
            warnings += left_out(gaps & keep, "the target holds no value")
            keep &= ~gaps
        if self.without is not None and labels.ndim == 1:
            labels, classes, others = _without(labels, classes, self.without)
            keep &= ~others
        if classes and labels.ndim == 1:
            warnings += conflicts(rows, labels, classes, keep)
        if self.task != "values":
            warnings += classes_alike(classes)
        if self.repeated == "drop":
            again = repeats(rows, labels, keep)
            warnings += left_out(
                again, "the same text stands before with the same target" if classes else "the same text stands before"
            )
            keep &= ~again
        keep &= self._of_split(labels, classes, keep)
        places = np.flatnonzero(keep)
        samples = Samples(
            inputs=rows.texts[places],
            labels=labels[places],
            classes=classes,
            preprocessing=Preprocessing(kind="text", texts=len(self.columns), header=self.columns),
            warnings=tuple(f"{path.name}: {text}" for text in warnings),
            notes=tuple(f"{path.name}: {text}" for text in rows.notes),
        )
        return require_some(samples, where=where)

    def _labels(
        self, rows: TextRows, only: bool, where: str
    ) -> tuple[NDArray[Any], tuple[str, ...], NDArray[np.bool_]]:
        """The labels, the classes' names, and which rows hold none."""
        import numpy as np

        from mapsto.data.io.tables import target_of
        from mapsto.data.io.texts import lists_in
        from mapsto.errors import DataError, SpecError

        table = rows.table
        if only:
            gaps = np.ones(len(rows), np.bool_)
            for name in self.targets:
                if table is not None and name in (table.names or ()):
                    gaps &= target_of(table, name, where=where).missing("classes")
            if self.target is not None and not gaps.any():
                raise DataError(
                    "every row has a value of the target, and rows without are asked for",
                    where=where,
                    hint="give a file with rows that have none, or leave unlabelled out",
                )
            return np.zeros((len(rows), 0), np.float32), (), gaps if self.target is not None else ~gaps
        if self.task == "labels" and table is not None and len(self.targets) == 1 and self.targets[0] in table.odd:
            return _label_columns([cell or () for cell in lists_in(Path(where), self.targets[0])])
        targets = [target_of(table, name, where=where) for name in self.targets] if table is not None else []
        if self.task == "classes":
            if len(targets) > 1:
                raise SpecError(
                    f"{len(targets)} columns are the target, but a class is in one",
                    where="text.target",
                    hint="set task: labels (columns of 0 and 1) or task: values",
                )
            labels, classes = targets[0].labels(where=where)
            return labels, classes, targets[0].missing("classes")
        if self.task == "labels" and len(targets) == 1 and targets[0].kind == "words":
            return _separated(targets[0].words, self.separator)
        values = np.stack([target.numbers(where=where) for target in targets], axis=1)
        gaps = np.asarray(np.isnan(values).any(axis=1))
        if self.task == "labels" and not np.isin(values[~gaps], (0, 1)).all():
            raise DataError(
                "a target's column holds other numbers than 0 and 1", where=where, hint="set task: classes or values"
            )
        return values, self.targets, gaps

    def _require_leave_out(self, gaps: NDArray[np.bool_], where: str) -> None:
        from mapsto.errors import DataError

        if self.unlabelled == "leave_out":
            return
        raise DataError(
            f"row {int(gaps.argmax()) + 1}: the target holds no value ({int(gaps.sum())} of {len(gaps)} rows are like that)",
            where=where,
            hint="drop those rows, or set unlabelled: leave_out",
        )

    def _of_split(self, labels: NDArray[Any], classes: tuple[str, ...], keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which rows are of the split."""
        import numpy as np

        from mapsto.data.stratify import share_of_each_class

        if self.split == "all":
            return np.ones(len(keep), np.bool_)
        strata = labels if classes and labels.ndim == 1 else np.zeros(len(labels), np.int64)
        held_out = np.zeros(len(keep), np.bool_)
        total = round(self.test_fraction * int(keep.sum()))
        held_out[keep] = share_of_each_class(strata[keep], total, _SPLIT_SEED)
        return held_out == (self.split == "test")


def _require_unicode(classes: tuple[str, ...], where: str) -> None:
    from mapsto.errors import DataError
    from mapsto_runtime.preprocessing.texts import is_unicode

    for name in classes:
        if not is_unicode(name):
            raise DataError(
                f"half of a pair of surrogates stands in the class {name!a}", where=where, hint="mend the name"
            )


def _separated(
    cells: tuple[str | None, ...], separator: str
) -> tuple[NDArray[np.float32], tuple[str, ...], NDArray[np.bool_]]:
    """Labels of one column, such as ``red; blue``; a cell without a value has none of them."""
    return _label_columns([(cell or "").split(separator) for cell in cells])


def _label_columns(
    labels: Sequence[Sequence[str]],
) -> tuple[NDArray[np.float32], tuple[str, ...], NDArray[np.bool_]]:
    """A column of 0 and 1 for each label, by alphabet, without the blanks around it; an empty one is none."""
    import numpy as np

    labels = [[name.strip() for name in own if name.strip()] for own in labels]
    names = {name: place for place, name in enumerate(sorted({name for own in labels for name in own}))}
    found = np.zeros((len(labels), len(names)), np.float32)
    for row, own in zip(found, labels, strict=True):
        row[[names[name] for name in own]] = 1
    return found, tuple(names), np.zeros(len(labels), np.bool_)


def _without(
    labels: NDArray[Any], classes: tuple[str, ...], name: str
) -> tuple[NDArray[Any], tuple[str, ...], NDArray[np.bool_]]:
    """Labels and classes less one, and which rows are of that."""
    import numpy as np

    if name not in classes:
        return labels, classes, np.zeros(len(labels), np.bool_)
    place = classes.index(name)
    return np.where(labels > place, labels - 1, labels), (*classes[:place], *classes[place + 1 :]), labels == place


class _ReadFor(Dataset):
    """Texts as a network's tokenizer gives them."""

    texts: Text
    preprocessing: Preprocessing

    def fingerprint(self) -> str:
        return self.texts.fingerprint()

    def open(self) -> Samples:
        from mapsto.errors import DomainError
        from mapsto_runtime.preprocessing.texts import encoded

        samples = self.texts.open()
        known = dataclasses.replace(self.preprocessing, header=samples.preprocessing.header)
        if known.texts != samples.preprocessing.texts:
            raise DomainError(
                f"a sample is {samples.preprocessing.texts} texts, and the network takes {known.texts}",
                where="text.text",
                hint="name one column for each text that the network takes",
            )
        found = encoded(samples.inputs.tolist(), known, self.texts.file)
        for error in found.errors.values():
            raise error
        said = tuple(f"{Path(self.texts.file).name}: {note}" for note in found.notes)
        return dataclasses.replace(samples, inputs=found.ids, preprocessing=known, warnings=(*samples.warnings, *said))

"""A table in a CSV, TSV or Parquet file: one row is one sample, one column is its target.

Numbers are scaled to mean 0 and standard deviation 1 over the train rows; words become one column for each word (one-hot), or their
number in alphabetical order. The encoding travels with the network, so that its package answers raw rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.kinds import Dataset, Preprocessing, Samples
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto_runtime.preprocessing.raw_tables import RawTable

__all__ = ["Table"]

_SPLIT_SEED = 0


class Table(Dataset):
    """Rows: float32, shape (N, columns after encoding), with classes, labels or a number to predict.

    Separators (comma, semicolon, tab, bar), decimal commas and Latin-1 are found by themselves. In a text file an empty cell, NA,
    N/A, NaN and NULL are missing values; among codes of two letters, as of countries, NA is a word. Numbers with leading zeros, such
    as 007, are words; money and percentages are numbers. Dates and columns of one value or none are left out. Messages count rows from 1,
    without the header.
    """

    version: ClassVar[int] = 5

    file: str
    """A ``.csv``, ``.tsv`` or ``.parquet`` file: a path, or a path inside the data folder."""
    target: str | tuple[str, ...] = Field(min_length=1)
    """The column to predict; several for task `labels` or `values`."""
    features: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The columns to predict from; all others by default."""
    task: Literal["classes", "labels", "values"] = "classes"
    """Whether the target is a class, columns of 0 and 1 that stand each by itself, or numbers."""
    encode: Literal["one_hot", "ordinal"] = "one_hot"
    """How columns of words become numbers."""
    scale: bool = True
    """Whether columns of numbers are scaled to mean 0 and standard deviation 1 over the train rows."""
    missing: Literal["refuse", "mean"] = "mean"
    """Whether a missing value is an error, or becomes the mean of its encoded column over the train rows."""
    unlabelled: Literal["refuse", "leave_out", "only"] = "refuse"
    """Whether a row without a value of the target is an error, left out with a warning, or all that is taken: then the file need not have
    the target's column, and the samples have no labels, shape (N, 0)."""
    ids: Literal["keep", "drop"] = "keep"
    """Whether columns that only tell the rows apart are predicted from, with a warning, or left out; those in `features` are kept."""
    split: Literal["all", "train", "test"] = "all"
    """All rows, or those for training or testing; all are encoded alike."""
    test_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of the test rows, stratified by class and always the same rows."""

    def fingerprint(self) -> str:
        from mapsto.data.io.download import locate
        from mapsto.data.io.fingerprint import file_digest, fingerprint_of

        path = locate(self.file, what="the table")
        return fingerprint_of(self, [path.suffix.lower(), file_digest(path)], without=("file",))

    def open(self) -> Samples:
        return self._opened(None)

    def read_for(self, preprocessing: Preprocessing) -> Dataset:
        """These rows by the columns that a network was trained on, where it knows some."""
        return _ReadFor(table=self, preprocessing=preprocessing) if preprocessing.columns else self

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict."""
        return (self.target,) if isinstance(self.target, str) else self.target

    def _opened(self, known: Preprocessing | None) -> Samples:
        """The samples, encoded by the columns of a network or by those that the train rows give."""
        import numpy as np

        from mapsto.data.checks import classes_alike, require_some
        from mapsto.data.io.download import locate
        from mapsto.data.io.tables import encoded_rows, learnt_columns, read_table
        from mapsto.errors import DataError

        path = locate(self.file, what="the table")
        where = str(path)
        only = self.unlabelled == "only"
        table = read_table(path, [*(() if only else self.targets), *(self.features or ())])
        if not len(table):
            raise DataError("there is not one sample", where=where, hint="give rows below the header")
        warnings: list[str] = []
        if only:
            labels, classes, labelled = np.zeros((len(table), 0), np.float32), (), self._without_label(table, where)
        else:
            labels, classes, gaps = self._labels(table, where)
            labelled = ~gaps
            warnings += [*self._left_out(gaps, where), *classes_alike(classes if self.task == "classes" else ())]
        notes: tuple[str, ...] = ()
        held_out = self._held_out(labels, labelled)
        if known is None:
            chosen, doubts, notes = self._chosen(table)
            learnt = learnt_columns(
                table,
                chosen,
                labelled & ~held_out,
                encode=self.encode,
                scale=self.scale,
                missing=self.missing,
                where=where,
            )
            known = Preprocessing(kind="none", columns=learnt.columns, header=table.names or ())
            warnings += [*doubts, *learnt.warnings]
            notes = (*notes, *learnt.notes)
        inputs, said = encoded_rows(table, known, where=where, only=labelled)
        samples = Samples(
            inputs=inputs,
            labels=labels[labelled],
            classes=classes,
            preprocessing=known,
            warnings=tuple(f"{path.name}: {text}" for text in warnings),
            notes=tuple(f"{path.name}: {text}" for text in (*notes, *said)),
        )
        if self.split != "all":
            samples = samples.take(np.flatnonzero(held_out[labelled] == (self.split == "test")))
        return require_some(samples, where=where)

    def _labels(self, table: RawTable, where: str) -> tuple[NDArray[Any], tuple[str, ...], NDArray[np.bool_]]:
        """The labels, the classes' names, and which rows hold none."""
        import numpy as np

        from mapsto.data.io.tables import target_of
        from mapsto.errors import DataError, SpecError

        targets = [target_of(table, name, where=where) for name in self.targets]
        if self.task == "classes":
            first, *others = targets
            if others:
                raise SpecError(
                    f"{len(self.targets)} columns are the target, but a class is in one",
                    where="table.target",
                    hint="set task: labels (columns of 0 and 1) or task: values",
                )
            labels, classes = first.labels(where=where)
            return labels, classes, first.missing("classes")
        values = np.stack([target.numbers(where=where) for target in targets], axis=1)
        gaps = np.asarray(np.isnan(values).any(axis=1))
        if self.task == "labels" and not np.isin(values[~gaps], (0, 1)).all():
            name = self.targets[int(np.flatnonzero(~np.isin(values[~gaps], (0, 1)).all(axis=0))[0])]
            raise DataError(
                f"column '{short(name)}' holds other numbers than 0 and 1",
                where=where,
                hint="set task: classes or values",
            )
        return values, self.targets, gaps

    def _without_label(self, table: RawTable, where: str) -> NDArray[np.bool_]:
        """Which rows hold no value of the target, shape (N,): all of them where it has no column."""
        import numpy as np

        from mapsto.data.io.tables import target_of
        from mapsto.errors import DataError, SpecError

        if self.split != "all":
            raise SpecError("rows without a label have no splits", where="table.split", hint="leave split out")
        found = np.ones(len(table), np.bool_)
        for name in self.targets:
            if name in (table.names or ()):
                found &= target_of(table, name, where=where).missing(self.task if self.task == "classes" else "values")
        if not found.any():
            raise DataError(
                "every row has a value of the target, and rows without are asked for",
                where=where,
                hint="give a file with rows that have none, or leave unlabelled out",
            )
        return found

    def _left_out(self, gaps: NDArray[np.bool_], where: str) -> list[str]:
        """A warning of rows without a label. Raises `DataError` where they are refused, or no other is there."""
        from mapsto.errors import DataError

        count = int(gaps.sum())
        if not count:
            return []
        first = f"row {int(gaps.argmax()) + 1}"
        name = ", ".join(f"'{short(target)}'" for target in self.targets)
        if self.unlabelled == "refuse" or count == len(gaps):
            hint = "drop those rows, or set unlabelled: leave_out" if count < len(gaps) else "choose another column"
            raise DataError(
                f"{first}, column {name} (the target) holds no value ({count} of {len(gaps)} rows are like that)",
                where=where,
                hint=hint,
            )
        are, which = ("is", first) if count == 1 else ("are", f"{first} the first")
        return [f"{count} of {len(gaps)} rows {are} left out, for {name} (the target) holds no value there ({which})"]

    def _chosen(self, table: RawTable) -> tuple[tuple[str, ...], list[str], tuple[str, ...]]:
        """The columns to predict from, warnings and notes about them."""
        from mapsto.data.io.tables import doubtful
        from mapsto.errors import DataError, SpecError

        names = table.names or ()
        chosen = self.features or tuple(name for name in names if name not in self.targets)
        warnings: list[str] = []
        notes: list[str] = []
        if self.features is None:
            found = doubtful(table, chosen)
            chosen = tuple(name for name in chosen if name not in found.unfit and name not in found.empty)
            warnings += found.said_of_unfit()
            notes += found.said_of_empty()
            if not chosen and (warnings or notes):
                raise DataError(
                    f"there is no column to predict from: {'; '.join([*warnings, *notes])}",
                    where=self.file,
                    hint="add columns of numbers or words",
                )
            if len(told := tuple(name for name in chosen if name not in found.constant)) in range(1, len(chosen)):
                chosen = told
                notes += found.said_of_constant()
            drops = self.ids == "drop" and len(found.ids) < len(chosen)
            if drops:
                chosen = tuple(name for name in chosen if name not in found.ids)
                notes += found.said_of_ids(lambda name: "so that it is not predicted from")
            else:
                warnings += found.said_of_ids(
                    lambda name: "and a network may learn its values by heart; set ids: drop, or name features"
                )
        if set(self.targets) & set(chosen) or not chosen:
            raise SpecError(
                f"needs a column other than the target '{', '.join(self.targets)}' to predict from",
                where="table.features",
                hint=f"its columns: {few([short(name) for name in names], 20)}",
            )
        return chosen, warnings, tuple(notes)

    def _held_out(self, labels: NDArray[Any], labelled: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which rows are for testing; none where all are asked for."""
        import numpy as np

        from mapsto.data.stratify import share_of_each_class

        held_out = np.zeros(len(labels), np.bool_)
        if self.split != "all":
            strata = labels if self.task == "classes" else np.zeros(len(labels), np.int64)
            total = round(self.test_fraction * int(labelled.sum()))
            held_out[labelled] = share_of_each_class(strata[labelled], total, _SPLIT_SEED)
        return held_out


class _ReadFor(Dataset):
    """A table whose rows are encoded as a network wants them."""

    table: Table
    preprocessing: Preprocessing

    def fingerprint(self) -> str:
        return self.table.fingerprint()

    def open(self) -> Samples:
        return self.table._opened(self.preprocessing)

"""A table in a CSV, TSV or Parquet file: one row is one sample, one column is its target.

Numbers are scaled to mean 0 and standard deviation 1 over the train rows; words become one column for each word (one-hot), or their
number in alphabetical order. The encoding travels with the network, so that its package answers raw rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.kinds import Dataset, Preprocessing, Samples

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
    as 007, are words. Messages count rows from 1, without the header.
    """

    version: ClassVar[int] = 3

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
    ids: Literal["keep", "drop"] = "keep"
    """Whether columns that only number the rows are predicted from, with a warning, or left out; those in `features` are kept."""
    split: Literal["all", "train", "test"] = "all"
    """All rows, or those for training or testing; all are encoded alike."""
    test_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of the test rows, stratified by class and always the same rows."""

    def fingerprint(self) -> str:
        from mapsto.data.fingerprint import file_digest, fingerprint_of
        from mapsto.data.folder import locate

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

        from mapsto.data.checks import require_some
        from mapsto.data.folder import locate
        from mapsto.data.tables import encoded_rows, learnt_columns, read_table
        from mapsto.errors import DataError

        path = locate(self.file, what="the table")
        where = str(path)
        table = read_table(path, [*self.targets, *(self.features or ())])
        if not len(table):
            raise DataError("there is not one sample", where=where, hint="give rows below the header")
        labels, classes = self._labels(table, where)
        warnings: tuple[str, ...] = ()
        notes: tuple[str, ...] = ()
        held_out = self._held_out(labels)
        if known is None:
            chosen, warnings, notes = self._chosen(table)
            learnt = learnt_columns(
                table, chosen, ~held_out, encode=self.encode, scale=self.scale, missing=self.missing, where=where
            )
            known = Preprocessing(kind="none", columns=learnt.columns, header=table.names or ())
            warnings, notes = (*warnings, *learnt.warnings), (*notes, *learnt.notes)
        inputs, said = encoded_rows(table, known, where=where)
        samples = Samples(
            inputs=inputs,
            labels=labels,
            classes=classes,
            preprocessing=known,
            warnings=tuple(f"{path.name}: {text}" for text in warnings),
            notes=tuple(f"{path.name}: {text}" for text in (*notes, *said)),
        )
        if self.split != "all":
            samples = samples.take(np.flatnonzero(held_out == (self.split == "test")))
        return require_some(samples, where=where)

    def _labels(self, table: RawTable, where: str) -> tuple[NDArray[Any], tuple[str, ...]]:
        import numpy as np

        from mapsto.data.tables import target_classes, target_values
        from mapsto.errors import DataError, SpecError

        if self.task == "classes":
            first, *others = self.targets
            if others:
                raise SpecError(
                    f"{len(self.targets)} columns are the target, but a class is in one",
                    where="table.target",
                    hint="set task: labels (columns of 0 and 1) or task: values",
                )
            return target_classes(first, table, where=where)
        values = np.stack([target_values(name, table, where=where) for name in self.targets], axis=1)
        if self.task == "labels" and not np.isin(values, (0, 1)).all():
            name = self.targets[int(np.flatnonzero(~np.isin(values, (0, 1)).all(axis=0))[0])]
            raise DataError(
                f"column '{name}' holds other numbers than 0 and 1", where=where, hint="set task: classes or values"
            )
        return values, self.targets

    def _chosen(self, table: RawTable) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """The columns to predict from, warnings and notes about them."""
        from mapsto.data.tables import dates_of, ids_of
        from mapsto.errors import SpecError

        names = table.names or ()
        chosen = self.features or tuple(name for name in names if name not in self.targets)
        warnings: list[str] = []
        notes: list[str] = []
        dates = [] if self.features else dates_of(table, chosen)
        if dates and len(dates) < len(chosen):
            chosen = tuple(name for name in chosen if name not in dates)
            warnings += [
                f"column '{name}' holds dates, which are not predicted from; where they matter, add columns of numbers, as of the weekday"
                for name in dates
            ]
        ids = {} if self.features else ids_of(table, chosen)
        if ids and self.ids == "drop" and len(ids) < len(chosen):
            chosen = tuple(name for name in chosen if name not in ids)
            notes += [f"column '{name}' {how}, so it is not predicted from" for name, how in ids.items()]
        else:
            warnings += [
                f"column '{name}' {how}, and a network may learn them by heart; set ids: drop, or name features"
                for name, how in ids.items()
            ]
        if set(self.targets) & set(chosen) or not chosen:
            raise SpecError(
                f"needs a column other than the target '{', '.join(self.targets)}' to predict from",
                where="table.features",
                hint=f"known: {', '.join(names)}",
            )
        return chosen, tuple(warnings), tuple(notes)

    def _held_out(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """Which rows are for testing; none where all are asked for."""
        import numpy as np

        from mapsto.data.selection import share_of_each_class

        if self.split == "all":
            return np.zeros(len(labels), np.bool_)
        strata = labels if self.task == "classes" else np.zeros(len(labels), np.int64)
        return share_of_each_class(strata, round(self.test_fraction * len(labels)), _SPLIT_SEED)


class _ReadFor(Dataset):
    """A table whose rows are encoded as a network wants them."""

    table: Table
    preprocessing: Preprocessing

    def fingerprint(self) -> str:
        return self.table.fingerprint()

    def open(self) -> Samples:
        return self.table._opened(self.preprocessing)

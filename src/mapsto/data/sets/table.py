"""A table in a CSV or Parquet file: one row is one sample, one column is its target.

Numbers are used as they are; words become one column for each word (one-hot), or their number in alphabetical order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mapsto.kinds import Dataset, Preprocessing, Samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Table"]

_SPLIT_SEED = 0


class Table(Dataset):
    """Rows: float32, shape (N, columns after encoding), with classes or a number to predict.

    In a CSV file an empty cell, NA, N/A, NaN and NULL are missing values. Messages count rows from 1, without the
    header.
    """

    file: str
    """A ``.csv``, ``.tsv`` or ``.parquet`` file: a path, or a path inside the data folder."""
    target: str
    """The column to predict."""
    features: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The columns to predict from; all others by default."""
    task: Literal["classes", "values"] = "classes"
    """Whether the target is a class or a number."""
    encode: Literal["one_hot", "ordinal"] = "one_hot"
    """How columns of words become numbers."""
    missing: Literal["refuse", "mean"] = "refuse"
    """Whether a missing value is an error, or becomes the mean of its encoded column over the train rows."""
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
        import numpy as np

        from mapsto.data.checks import require_some
        from mapsto.data.folder import locate
        from mapsto.data.tables import encoded, filled, read_table, target_classes, target_values

        path = locate(self.file, what="the table")
        where = str(path)
        columns = read_table(path, [self.target, *(self.features or ())])
        if self.task == "classes":
            labels, classes = target_classes(self.target, columns[self.target], where=where)
        else:
            labels, classes = target_values(self.target, columns[self.target], where=where), (self.target,)
        parts = [encoded(name, columns[name], self.encode, where=where) for name in self._chosen(columns)]
        inputs = np.concatenate([part for part, _ in parts], axis=1)
        names = [name for _, part in parts for name in part]
        held_out = self._held_out(labels)
        samples = Samples(
            inputs=filled(inputs, names, ~held_out, self.missing, where=where),
            labels=labels,
            classes=classes,
            preprocessing=Preprocessing(kind="none"),
        )
        if self.split != "all":
            samples = samples.take(np.flatnonzero(held_out == (self.split == "test")))
        return require_some(samples, where=where)

    def _chosen(self, columns: dict[str, Any]) -> tuple[str, ...]:
        from mapsto.errors import SpecError

        chosen = self.features or tuple(name for name in columns if name != self.target)
        if self.target in chosen or not chosen:
            raise SpecError(
                f"needs a column other than the target '{self.target}' to predict from",
                where="table.features",
                hint=f"known: {', '.join(columns)}",
            )
        return chosen

    def _held_out(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """Which rows are for testing; none where all are asked for."""
        import numpy as np

        from mapsto.data.selection import share_of_each_class

        if self.split == "all":
            return np.zeros(len(labels), np.bool_)
        strata = labels if self.task == "classes" else np.zeros(len(labels), np.int64)
        return share_of_each_class(strata, round(self.test_fraction * len(labels)), _SPLIT_SEED)

"""What a service was told as a stream: the features that its answers stood on, with the labels that came for them, in their order.

So any online learner can be run again over what a service met, and compared with what the service's own learner made of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.data.streams._cells import words_of
from mapsto.data.streams._sources import Idle
from mapsto.errors import DataError
from mapsto.kinds import Block, ColumnType, Json, Stream
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mapsto.data.io.feedback_log import FeedbackLog, LoggedLabel

__all__ = ["Feedback"]

_LARGEST = 2**63 - 1
"""No row has a number beyond it."""

_COLUMN = "embedding"
"""As the column is called where an encoder stands before a learner."""


class Feedback(Stream):
    """The labels of one model, each with the features (D,) of its answer in the column `embedding`.

    An event has the id by which the service knows what was labelled, and the time at which the label was stored. Its position is the
    number of its row. Labels for answers of another package, whose features mean something else, are set aside.

    The service's learner holds back a fifth of the labels to judge what it learns. Without them (`held_back: false`) a learner with the
    same fields comes to the same model.

    Raises `DataError` for a state that cannot be read, or has no label for the model.

    >>> import pathlib, tempfile
    >>> stream = Feedback(**Feedback.contract_fields(pathlib.Path(tempfile.mkdtemp())))
    >>> block = next(stream.open(size=2))
    >>> block.x["embedding"].shape, list(block.y), list(block.ids), block.next
    ((2, 3), ['high', 'high'], ['e0', 'e1'], 2)
    """

    state: str
    """Where the service keeps its state: a file, the folder that it lies in, or `postgresql://USER@HOST/NAME` without a password."""
    model: str
    """The name that the model is served under."""
    package: str | None = None
    """The digest of the package whose features are read; by default of the one that the model was served from last."""
    held_back: bool = True
    """Whether labels are given that the service's learner holds back."""
    follow: bool = False
    """Whether to wait for more at the end, without end."""

    @staticmethod
    def contract_fields(folder: Path) -> dict[str, Any]:
        """A state with labels of two tenants, among them one for an answer of another package."""
        import numpy as np

        from mapsto.data.io.feedback_log import LoggedLabel, written

        draw = np.random.default_rng(0)
        labels: list[LoggedLabel] = []
        for number in range(100):
            features = draw.normal(size=2 if number == 30 else 3).astype(np.float32)
            tenant, package = f"tenant{number % 2}", "before" if number == 30 else "now"
            label = "high" if features[0] > 0 else "low"
            labels.append(
                LoggedLabel(number + 1, f"e{number}", tenant, 1e9 + number, label, features.tobytes(), package)
            )
        file = folder / "state.sqlite"
        written(file, "signs", labels)
        return {"state": str(file), "model": "signs"}

    @property
    def bounded(self) -> bool:
        return not self.follow

    def identity(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        with self._log() as log:
            return fingerprint_of(self, [log.place, self._package], without=("state", "package"))

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self, [self._content, self._package], without=("state", "package"))

    def columns(self) -> Mapping[str, ColumnType]:
        """Nothing is said of vectors."""
        return {}

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        if position is not None and (type(position) is not int or position < 0):
            raise DataError(f"{position} is no row of feedback", where=self.state, hint="start another store")
        if position is not None and position > _LARGEST:
            raise DataError(f"{position} is beyond any row of feedback", where=self.state, hint="start another store")
        at = position or 0
        idle = Idle()
        package, width = self._package, self._width
        with self._log() as log:
            given = at
            while True:
                rows = log.labels(self.model, after=at, upto=None if self.follow else self._last, most=size)
                taken = self._taken(rows)
                if taken:
                    given = taken[-1].position
                    yield _block(taken, given, package, width)
                    idle.heard()
                if rows:
                    at = rows[-1].position
                elif not self.follow:
                    return
                elif idle.wait():
                    yield _block([], given, package, width)

    # -- private

    def _log(self) -> AbstractContextManager[FeedbackLog]:
        from mapsto.data.io.feedback_log import FeedbackLog

        return FeedbackLog.opened(self.state)

    def _taken(self, rows: Sequence[LoggedLabel]) -> list[LoggedLabel]:
        from mapsto.data.io.feedback_log import is_held_back

        return [row for row in rows if self.held_back or not is_held_back(row.tenant, row.event)]

    @cached_property
    def _package(self) -> str:
        with self._log() as log:
            served = log.package(self.model)
            if self.package is None:
                return served
            known = {served, *log.packages(self.model)}
        if self.package not in known:
            raise DataError(
                f"holds no label of a package '{short(self.package)}' for '{short(self.model)}'",
                where=self.state,
                hint=f"its packages: {few(sorted(filter(None, known))) or 'none that has a digest'}; leave package out for the last one",
            )
        return self.package

    @cached_property
    def _last(self) -> int:
        """The last row when this stream was first asked: it ends there, however often it is read."""
        with self._log() as log:
            return log.last(self.model)

    @cached_property
    def _width(self) -> int:
        """Features of the package's answers; 0 where none has a label yet."""
        return next((len(row.features) // 4 for row in self._all() if _is_whole(row, self._package)), 0)

    @cached_property
    def _content(self) -> str:
        """A digest of all that is read."""
        whole = hashlib.sha256()
        for row in self._all():
            for part in (repr((row.position, row.time)), row.event, row.label, row.package, row.features):
                given = part if isinstance(part, bytes) else part.encode()
                whole.update(b"%d:" % len(given) + given)
        return whole.hexdigest()

    def _all(self) -> Iterator[LoggedLabel]:
        at = 0
        with self._log() as log:
            while rows := log.labels(self.model, after=at, upto=self._last, most=1000):
                yield from self._taken(rows)
                at = rows[-1].position


def _is_whole(row: LoggedLabel, package: str) -> bool:
    """Whether a row holds features of the package, float32."""
    return row.package == package and bool(row.features) and len(row.features) % 4 == 0


def _block(rows: Sequence[LoggedLabel], after: int, package: str, width: int) -> Block:
    import numpy as np

    count = len(rows)
    own = [row.package == package for row in rows]
    if not width:
        width = next((len(row.features) // 4 for row in rows if _is_whole(row, package)), 0)
    features = np.full((count, width), np.nan)
    fits = [len(row.features) == 4 * width for row in rows]
    for event, row in enumerate(rows):
        if own[event] and fits[event]:
            features[event] = np.frombuffer(row.features, np.float32)
    return Block(
        times=np.array([row.time for row in rows], np.float64),
        ids=words_of([row.event for row in rows]),
        x={_COLUMN: features},
        has_x=np.ones(count, np.bool_),
        y=words_of([row.label for row in rows]),
        has_y=np.ones(count, np.bool_),
        next=after,
        broken={
            event: f"features that are not {width} numbers of 4 bytes" if is_own else "features of another package"
            for event, (is_own, is_fit) in enumerate(zip(own, fits, strict=True))
            if not (is_own and is_fit)
        },
    )

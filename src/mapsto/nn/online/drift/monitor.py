"""Drift detectors on a learner and on its stream at once: on its error, on its confidence and on each column of numbers.

Of the error a rise is marked, of the confidence a fall; a learner that gets better is no drift. Columns are watched by the mean of 32
consecutive events, on the scale of their first ones. After a mark a detector begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mapsto.nn.online.drift import detector_of
from mapsto.nn.online.drift.detector import Detector

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Mark", "Monitor"]

_GROUP = 32
"""Events whose mean is one value of a column."""
_FIRST_GROUPS = 10
"""Groups that tell a column's scale."""
_FIRST_ERRORS = 100
"""Errors of numbers that tell their scale."""
_LARGEST = 1e100
"""Learners set a number beyond it aside: so would its square be infinite."""
_FAR = 10.0
"""A column's values are cut off here, on their scale."""
_DEFAULT = {"error": ("adwin",), "confidence": ("adwin",), "features": ("adwin",)}
_FOR_COLUMNS: Mapping[str, Mapping[str, float]] = {
    "adwin": {"delta": 1e-4, "clock": 4},
    "kswin": {"alpha": 1e-5, "window": 100, "latest": 30, "every": 4},
    "page_hinkley": {"delta": 0.03, "threshold": 10.0},
}
"""Settings for columns: there are many, so that false alarms must be fewer, and a value is 32 events, so that fewer values must do."""


class Mark(NamedTuple):
    """A drift."""

    event: int
    """How many events had come by then."""
    signal: str
    """``error``, ``confidence``, or ``feature:NAME``."""
    detector: str
    change: float
    """By how much the mean of the signal changed; of a column, on a scale where an eighth is a standard deviation of the mean of 32."""


class Monitor:
    """Marks are the same however events are cut into blocks.

    Parameters
    ----------
    detectors
        Signals (`error`, `confidence`, `features`) → names of detectors; what is not named has none. One that is for errors alone, as DDM
        is, is used for no other signal. By default ADWIN for each.
    columns
        How many columns are watched: those that come first.
    values
        Whether errors are sizes of an error in numbers, and not 0 (right) and 1 (wrong).

    Raises
    ------
    SpecError
        There is no such detector.

    >>> monitor, rng = Monitor(), np.random.default_rng(0)
    >>> wrong = (rng.random(4000) < np.where(np.arange(4000) < 2000, 0.1, 0.5)).astype(float)
    >>> marks = monitor.update(0, wrong, np.full(4000, np.nan), {"width": rng.normal(size=4000) + 3 * (np.arange(4000) > 3000)})
    >>> [(mark.event, mark.signal, mark.detector) for mark in marks]
    [(2048, 'error', 'adwin'), (3520, 'feature:width', 'adwin')]
    """

    def __init__(
        self, detectors: Mapping[str, Sequence[str]] | None = None, *, columns: int = 20, values: bool = False
    ) -> None:
        chosen = _DEFAULT if detectors is None else detectors
        for name in {name for names in chosen.values() for name in names}:
            detector_of(name)
        self._names = {
            signal: tuple(
                name for name in chosen.get(signal, ()) if signal == "error" or not detector_of(name).of_errors
            )
            for signal in ("error", "confidence", "features")
        }
        self._error = _Signal("error", self._names["error"], sign=1)
        self._confidence = _Signal("confidence", self._names["confidence"], sign=-1)
        self._most, self._values = columns if self._names["features"] else 0, values
        self._errors: list[float] = []
        """The first errors of numbers, until their scale is known."""
        self._scale = 0.0
        self._columns: dict[str, _Column] = {}
        self._in_group = 0
        """Events of the group that is not full yet."""

    def update(
        self,
        start_event: int,
        errors: NDArray[np.float64],
        confidences: NDArray[np.float64],
        columns: Mapping[str, NDArray[Any]],
    ) -> list[Mark]:
        """The drifts that a block of n events shows, in their order.

        Parameters
        ----------
        start_event
            Events before the block.
        errors
            (n,), 0 or 1, or the size of the error; NaN for an event without a label.
        confidences
            (n,), the largest score; NaN for an event without one.
        columns
            (n,) each, numbers with NaN for a missing one.
        """
        marks = [
            *self._error.update(start_event, self._scaled(errors) if self._values else errors),
            *self._confidence.update(start_event, confidences),
            *self._features(start_event, columns, len(errors)),
        ]
        return sorted(marks, key=lambda mark: mark.event) if len(marks) > 1 else marks

    def _scaled(self, errors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each error e as e / (e + s), with the mean s of the first errors, up to which there is none."""
        scaled = np.full(len(errors), np.nan)
        for event in np.flatnonzero(np.isfinite(errors)).tolist():
            if len(self._errors) < _FIRST_ERRORS:
                self._errors.append(float(errors[event]))
                self._scale = math.fsum(self._errors) / len(self._errors)
            elif self._scale > 0:
                scaled[event] = errors[event] / (errors[event] + self._scale)
        return scaled

    def _features(self, start_event: int, columns: Mapping[str, NDArray[Any]], count: int) -> Iterator[Mark]:
        if self._most and len(self._columns) < self._most:
            self._meet(columns)
        there = [(column, columns.get(name)) for name, column in self._columns.items()]
        start = 0
        while start < count and there:
            stop = min(count, start + _GROUP - self._in_group)
            place = slice(self._in_group, self._in_group + stop - start)
            for column, values in there:
                column.group[place] = np.nan if values is None else values[start:stop]
            self._in_group, start = place.stop % _GROUP, stop
            if not self._in_group:
                for column, _ in there:
                    yield from column.end_group(start_event + stop)
        if not there:
            self._in_group = (self._in_group + count) % _GROUP

    def _meet(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Take up columns that have their first value, in the order of the events that bring it."""
        new: list[tuple[int, str]] = []
        for name, values in columns.items():
            if name not in self._columns:
                values_there = np.flatnonzero(np.abs(values) <= _LARGEST)
                if len(values_there):
                    new.append((int(values_there[0]), name))
        for _, name in sorted(new, key=lambda each: each[0])[: self._most - len(self._columns)]:
            self._columns[name] = _Column(name, self._names["features"])

    def snapshot(self) -> dict[str, Any]:
        """The state: numbers, strings and arrays."""
        return {
            "error": self._error.state(),
            "confidence": self._confidence.state(),
            "errors": np.array(self._errors, np.float64),
            "columns": [column.state() for column in self._columns.values()],
            "in_group": self._in_group,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the `snapshot` of one with the same settings."""
        self._error.restore(state["error"])
        self._confidence.restore(state["confidence"])
        self._errors = state["errors"].tolist()
        self._scale = math.fsum(self._errors) / len(self._errors) if self._errors else 0.0
        self._in_group = int(state["in_group"])
        self._columns = {}
        for each in state["columns"]:
            column = self._columns[each["name"]] = _Column(each["name"], self._names["features"])
            column.restore(each)


class _Signal:
    """A signal and its detectors. `sign` 1: rises are drifts, -1: falls, 0: both."""

    def __init__(self, name: str, detectors: Sequence[str], *, sign: int) -> None:
        self._name, self._sign = name, sign
        self._detectors = [_made(detector, name) for detector in detectors]

    def update(self, start_event: int, values: NDArray[np.float64]) -> Iterator[Mark]:
        if not self._detectors:
            return
        for event, value in enumerate(values.tolist()):
            if value == value and abs(value) != math.inf:  # noqa: PLR0124 - NaN
                yield from self.take(start_event + event + 1, value)

    def take(self, event: int, value: float) -> Iterator[Mark]:
        for place, detector in enumerate(self._detectors):
            if detector.update(value) and detector.change * self._sign >= 0:
                yield Mark(event, self._name, detector.name, detector.change)
                self._detectors[place] = _made(detector.name, self._name)

    def state(self) -> list[dict[str, Any]]:
        return [detector.state() for detector in self._detectors]

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        for detector, state in zip(self._detectors, states, strict=True):
            detector.restore(state)


def _made(detector: str, signal: str) -> Detector:
    cls: Any = detector_of(detector)
    return cls(**_FOR_COLUMNS.get(detector, {})) if signal.startswith("feature:") else cls()


class _Column:
    """A column: the values of the group that is not full yet, its scale, and its detectors."""

    def __init__(self, name: str, detectors: Sequence[str]) -> None:
        self.name = name
        self.group: NDArray[np.float64] = np.full(_GROUP, np.nan)
        self._signal = _Signal(f"feature:{name}", detectors, sign=0)
        self._groups = 0
        self._sums = np.zeros(4)
        """Of the first groups: how many values, the first one, and sums of the values less it and of their squares."""

    def end_group(self, event: int) -> Iterator[Mark]:
        """Take the full group."""
        group = self.group
        mean = float(np.add.reduce(group)) / _GROUP
        if not math.isfinite(mean):
            there = group[np.isfinite(group)]
            if not len(there):
                return
            mean = float(np.add.reduce(there)) / len(there)
            group = there
        if self._groups < _FIRST_GROUPS:
            self._groups += 1
            if not self._sums[0]:
                self._sums[1] = group[0]
            moved = group - self._sums[1]
            self._sums += (len(group), 0.0, np.add.reduce(moved), np.add.reduce(moved * moved))
            return
        count, first, total, squares = self._sums.tolist()
        centre = first + total / count
        spread = math.sqrt(max(squares / count - (total / count) ** 2, 0.0)) or max(abs(centre) * 1e-6, 1e-300)
        value = (mean - centre) / spread * math.sqrt(_GROUP) / 8
        yield from self._signal.take(event, 0.5 + max(-_FAR, min(_FAR, value)))

    def state(self) -> dict[str, Any]:
        detectors = self._signal.state()
        return {
            "name": self.name,
            "group": self.group.copy(),
            "groups": self._groups,
            "sums": self._sums.copy(),
            "detectors": detectors,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.group, self._sums = state["group"].copy(), state["sums"].copy()
        self._groups = int(state["groups"])
        self._signal.restore(state["detectors"])

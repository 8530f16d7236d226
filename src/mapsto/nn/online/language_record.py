"""The record of a language model: the bits that each byte takes, given what was foretold before it came.

``bits per byte = −1/N Σ log₂ p(byte)``: what a text takes when an arithmetic coder writes it by these probabilities. Perplexity is 2 to
that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.data.text.byte_names import BYTE_NAMES
from mapsto.nn.online.prequential import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Block
    from mapsto.nn.online.learning import Answers

__all__ = ["LanguageRecord"]

LONG_WINDOW = 10_000
BEFORE = 24
"""Bytes of the text that are shown before one that was foretold badly."""
_PLAIN = 8.0
"""Bits of a byte as it comes."""
_LEAST = 1e-300
_COLUMNS = ("bits", "right", "order 0")


class LanguageRecord(Record):
    """Baselines: what the contexts alone and the network alone would have taken, bytes by how often each came so far (`order 0`), and 8
    bits.

    >>> from mapsto.nn.online.learning import Answers
    >>> from mapsto.data.streams.sea import Sea
    >>> record, block = LanguageRecord(), next(Sea().open(size=2))
    >>> scores = np.full((2, 256), 1 / 256)
    >>> scores[1] = np.eye(256)[65]
    >>> _ = record.see(0, block, Answers(np.arange(2), scores, np.array([65, 65])), ())
    >>> record.figures()["bits_per_byte"], record.figures()["perplexity"], record.figures()["accuracy"]
    (4.0, 16.0, 50.0)
    >>> {name: round(value, 2) for name, value in record.baselines().items()}
    {'order 0': 7.5, '8 bits': 8.0}
    """

    main, better = "bits_per_byte", -1

    def __init__(self) -> None:
        super().__init__(len(_COLUMNS))
        self._sums = [0.0] * len(_COLUMNS)
        self._parts: dict[str, list[float]] = {}
        """Of each part that answers by itself: its bits of all labels, of those since the last row, and their number."""
        self._since = [0.0, 0.0]
        """Labels and bits since the last row."""
        self._long = np.zeros(0)
        """Bits of the last labels (≤ LONG_WINDOW)."""
        self._counts = np.zeros(256, np.int64)
        self._before = b""
        """The last bytes (≤ BEFORE), for examples."""

    def see(self, start: int, block: Block, answers: Answers, classes: Sequence[str]) -> NDArray[np.float64]:
        scores, labels = answers.scores, answers.labels
        events = np.arange(len(labels))
        best = scores.argmax(1)
        given = scores[events, labels]
        rows = np.empty((len(labels), len(_COLUMNS)))
        rows[:, 0] = _bits(given)
        rows[:, 1] = best == labels
        rows[:, 2] = self._order_0(labels.tolist())
        self._sums = _added(self._sums, rows)
        self._since = [self._since[0] + len(labels), _added(self._since[1:], rows[:, :1])[0]]
        for name, values in (answers.parts or {}).items():
            bits = _bits(values)
            before = self._parts.get(name, [0.0, 0.0])
            self._parts[name] = _added(before, np.stack((bits, bits), 1))
        self._long = np.concatenate((self._long, rows[:, 0]))[-LONG_WINDOW:]
        self._remember(block, answers, rows)

        text = self._before + labels.astype(np.uint8).tobytes()
        first = len(self._before)
        before = np.full(len(block), "", object)
        before[answers.events] = [
            text[max(0, at - BEFORE) : at].decode("ascii", "replace") for at in range(first, first + len(labels))
        ]
        self._before = text[-BEFORE:]
        shown = replace(block, x={"after": before})

        def told(place: int) -> dict[str, Any]:
            answer, label = BYTE_NAMES[best[place]], BYTE_NAMES[labels[place]]
            return {"answer": answer, "label": label, "confidence": float(given[place])}

        self.stretches.see(start, shown, answers.events, rows[:, 0], rows[:, 0], told)
        return 1.0 - rows[:, 1]

    def row(self) -> dict[str, float]:
        if not self.labels:
            return {}
        labels, bits = self._since
        found = {
            **({"bits_per_byte": bits / labels} if labels else {}),
            "mean_bits_per_byte": self._sums[0] / self.labels,
            "window_bits_per_byte": self._windowed[0],
            "window_order_0": self._windowed[2],
            "last_10000_bits_per_byte": float(self._long.mean()),
            "perplexity": 2.0 ** (self._sums[0] / self.labels),
            "accuracy": 100 * self._sums[1] / self.labels,
            "window_accuracy": 100 * self._windowed[1],
        }
        if labels:
            found |= {f"bits_per_byte_{_plain(name)}": sums[1] / labels for name, sums in self._parts.items()}
        self._since = [0.0, 0.0]
        self._parts = {name: [sums[0], 0.0] for name, sums in self._parts.items()}
        return found

    def figures(self) -> dict[str, float]:
        if not self.labels:
            return {}
        return {
            "bits_per_byte": self._sums[0] / self.labels,
            "window_bits_per_byte": self._windowed[0],
            "last_10000_bits_per_byte": float(self._long.mean()),
            "faded_bits_per_byte": self._faded[0] / self._faded[1],
            "perplexity": 2.0 ** (self._sums[0] / self.labels),
            "accuracy": 100 * self._sums[1] / self.labels,
            "window_accuracy": 100 * self._windowed[1],
        }

    def baselines(self) -> dict[str, float]:
        if not self.labels:
            return {}
        parts = {name: sums[0] / self.labels for name, sums in self._parts.items()}
        return {**parts, "order 0": self._sums[2] / self.labels, "8 bits": _PLAIN}

    def snapshot(self) -> dict[str, Any]:
        return {
            **self._common(),
            "sums": list(self._sums),
            "parts": {name: list(sums) for name, sums in self._parts.items()},
            "since": list(self._since),
            "long": self._long,
            "counts": self._counts,
            "before": self._before,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._take_up(state)
        self._sums, self._since = list(state["sums"]), list(state["since"])
        self._parts = {str(name): list(sums) for name, sums in state["parts"].items()}
        self._long, self._counts = state["long"], state["counts"]
        self._before = bytes(state["before"])

    def _order_0(self, labels: Sequence[int]) -> list[float]:
        """The bits of each label by how often it came before it, each byte counted once more than it came. Counts the labels."""
        found: list[float] = []
        counts, total = self._counts.tolist(), self.labels + 256
        for label in labels:
            found.append(-math.log2((counts[label] + 1) / total))
            counts[label] += 1
            total += 1
        self._counts = np.array(counts, np.int64)
        return found


def _bits(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.log2(np.maximum(p, _LEAST))


def _plain(name: str) -> str:
    return name.replace(" ", "_").replace("-", "_")


def _added(sums: Sequence[float], rows: NDArray[np.float64]) -> list[float]:
    """Sums (columns) that go on over rows (n, columns), one after the other."""
    return np.add.accumulate(np.concatenate((np.array(sums)[None], rows)))[-1].tolist()

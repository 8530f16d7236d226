"""A run of the C++ learner of tables through all that it does; what it comes to, as a digest. As a program: on a library of one's own.

``python -m tests.nn.online.tabular_run LIBRARY COUNT`` runs classes and values, and then goes on from COUNT damaged states.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mapsto.nn.online import native_tabular
from mapsto.nn.online.native_tabular import EXAMPLE, LATE_LABEL, QUESTION, NativeTabular

SLOTS, CLASSES = 16, 9


def use(library: Path) -> None:
    """Learners that are made after this are of another library."""
    native_tabular.tabular_library = lambda *_: library
    native_tabular._load.cache_clear()


class Run:
    """Events drawn at random: columns of numbers and words that come on the way, missing and huge values, new classes, late labels."""

    def __init__(self, *, values: bool, seed: int) -> None:
        self.draw, self.values = np.random.default_rng(seed), values
        self.fields: dict[str, Any] = {"values": values, "forests": True, "labels": True, "work": 0.0, "seed": seed}
        self.native = NativeTabular(**self.fields)
        self.words: list[bool] = []
        self.known, self.waiting, self.free = 0, [], list(range(SLOTS))
        self.outputs = 1 if values else CLASSES
        self.features = np.full((SLOTS, 0), np.nan)
        self.answers = np.zeros((SLOTS, len(self.native.members) + 1, self.outputs))
        self.digest = hashlib.sha256()
        for of_words in (True, True, False, False):
            self.add_column(of_words)

    def add_column(self, of_words: bool) -> None:
        self.native.add_column(of_words=of_words)
        self.words.append(of_words)
        self.features = np.column_stack([self.features, np.full(SLOTS, np.nan)])

    def row(self) -> np.ndarray:
        draw = self.draw
        cells = [draw.integers(0, 120) if each else draw.normal() * 10.0 ** draw.integers(-3, 4) for each in self.words]
        row = np.array(cells, float)
        row[draw.random(len(row)) < 0.1] = np.nan
        if draw.random() < 0.02:
            row[~np.array(self.words)] = 1e99
        return row

    def learn(self, row: np.ndarray, kind: int, slot: int, label: float) -> None:
        what = (np.array([kind], np.uint8), np.array([slot], np.int32), np.array([label]))
        scores = self.native.learn(row[None], *what, self.outputs, (self.features, self.answers))
        assert np.isfinite(scores).all()
        self.digest.update(scores.tobytes())

    def event(self) -> None:
        draw, row = self.draw, self.row()
        if draw.random() < 0.01 and len(self.words) < 30:
            self.add_column(bool(draw.random() < 0.3))
            row = self.row()
        label = float(np.nan_to_num(row[2])) if self.values else float(min(draw.integers(self.known + 2), CLASSES - 1))
        if not self.values:
            label = min(label, float(self.known))
            self.known = max(self.known, int(label) + 1)
        turn = draw.random()
        if turn < 0.2 and self.free:
            slot = self.free.pop()
            self.waiting.append(slot)
            self.learn(row, QUESTION, slot, 0.0)
        else:
            self.learn(row, QUESTION if turn > 0.95 else EXAMPLE, -1, label)
        if len(self.waiting) > SLOTS // 2:
            slot = self.waiting.pop(0)
            self.free.append(slot)
            self.learn(row, LATE_LABEL, slot, label)

    def go_on(self) -> None:
        """Everything else once, and then from a copy."""
        rows = np.array([self.row() for _ in range(3)])
        for array in (
            self.native.predict(rows),
            self.native.importance(),
            *self.native.explain(rows[0]).members.values(),
        ):
            self.digest.update(array.tobytes())
        state = self.native.arrays()
        self.native = NativeTabular(**self.fields)
        self.native.restore(state, columns=len(self.words))

    def told(self) -> str:
        for name, array in self.native.arrays().items():
            self.digest.update(name.encode() + array.tobytes())
        return self.digest.hexdigest()


def told(events: int, *, values: bool, seed: int = 0) -> str:
    """The digest of all scores, explanations and the state after so many events."""
    run = Run(values=values, seed=seed)
    for event in range(events):
        run.event()
        if event % 97 == 5:
            run.go_on()
    return run.told()


def go_on_from_damage(count: int, *, values: bool, seed: int = 0) -> int:
    """How many of so many damaged states were refused; with the others it goes on for some events."""
    run = Run(values=values, seed=seed)
    for _ in range(60):
        run.event()
    state, draw, refused = run.native.arrays(), np.random.default_rng(seed), 0
    for _ in range(count):
        name = sorted(state)[draw.integers(len(state))]
        raw = bytearray(state[name].tobytes())
        for _ in range(draw.integers(1, 9) if raw else 0):
            raw[draw.integers(len(raw))] = draw.integers(256)
        changed = np.frombuffer(bytes(raw), state[name].dtype)
        if draw.random() < 0.2:
            changed = draw.permutation(changed)[: draw.integers(len(changed) + 1)]
        native = NativeTabular(**run.fields)
        try:
            native.restore({**state, name: changed}, columns=len(run.words))
        except ValueError:
            refused += 1
            continue
        for _ in range(10):
            row, label = run.row(), draw.normal() if values else float(draw.integers(native.classes + 1))
            what = (np.array([EXAMPLE], np.uint8), np.array([-1], np.int32), np.array([label]))
            native.learn(row[None], *what, native.classes + 1)
            native.predict(row[None])
            native.explain(row)
        native.arrays()
    return refused


if __name__ == "__main__":
    use(Path(sys.argv[1]))
    for of_values in (False, True):
        told(400, values=of_values)
        go_on_from_damage(int(sys.argv[2]), values=of_values)

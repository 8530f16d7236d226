"""The C++ learner of tables gives what a plain reference in Python gives, as columns, words, classes and late labels come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.nn.online.tabular_reference import EXAMPLE, LATE_LABEL, QUESTION, Reference

from mapsto.nn.online.native_tabular import NativeTabular

SLOTS, LATE = 32, 12
"""Where questions are kept; after so many more questions the label of one comes."""


def events(count: int, columns: int, classes: int, *, words: int, missing: float, sorted_: bool = False) -> Any:
    """Features (count, columns), the first of them words by number, and labels (count,): numbers of classes, values where there is one."""
    draws = np.random.default_rng(classes)
    x = draws.normal(size=(count, columns))
    for column in range(words):
        x[:, column] = draws.integers(0, (5, 90)[column], count)
    y = x @ draws.normal(size=columns) + np.where(x[:, 0] > 1, 2.0, 0.0) + 0.1 * draws.normal(size=count)
    if classes > 1:
        y = np.digitize(y, np.quantile(y, np.arange(1, classes) / classes))
        if sorted_:  # one class appears after another
            order = np.argsort(y + 0.6 * draws.normal(size=count), kind="stable")
            x, y = x[order], y[order]
        first = dict.fromkeys(y.tolist())
        y = np.array([list(first).index(each) for each in y.tolist()], float)
    x[draws.random(x.shape) < missing] = np.nan
    x[::3, -1] = np.round(x[::3, -1])
    return x, y


def check(
    x: Any, y: Any, *, words: int, values: bool, late: float, later: int, every: int, idle: int = 0, **fields: Any
) -> None:
    """Both learn the events one by one; the last column comes with event `later`, a share `late` of the labels comes later.

    The first `idle` events pay nothing for trees.
    """
    work = fields["work"]
    fields["work"] = 1e-9 if idle else work
    native = NativeTabular(values=values, seed=3, **fields)
    reference = Reference(values=values, seed=3, **fields)
    classes, draws = 1 if values else int(y.max()) + 1, np.random.default_rng(0)
    features, answers = np.full((SLOTS, x.shape[1] - 1), np.nan), np.zeros((SLOTS, len(native.members) + 1, classes))
    kept: dict[int, Any] = {}
    waiting: list[tuple[int, int]] = []
    free = list(range(SLOTS))
    for each in (native, reference):
        for column in range(x.shape[1] - 1):
            each.add_column(of_words=column < words)
    for event, row in enumerate(x):
        if event == later:
            native.add_column(of_words=False)
            reference.add_column(of_words=False)
            features = np.column_stack([features, np.full(SLOTS, np.nan)])
        if event == idle:
            state = native.arrays()
            native = NativeTabular(values=values, seed=3, **{**fields, "work": work})
            native.restore(state, columns=features.shape[1])
            reference.units = work
        width = features.shape[1]
        turns = [(EXAMPLE, -1, y[event])]
        if draws.random() < late:
            slot = free.pop()
            waiting.append((event, slot))
            turns = [(QUESTION, slot, 0.0)]
        if len(waiting) > LATE:
            asked, slot = waiting.pop(0)
            free.append(slot)
            turns.append((LATE_LABEL, slot, y[asked]))
        for kind, slot, label in turns:
            given = (row[None, :width], np.array([kind], np.uint8), np.array([slot], np.int32), np.array([label]))
            scores = native.learn(*given, classes, (features, answers))[0]
            (expected,) = reference.learn(*given, kept)
            np.testing.assert_allclose(scores[: len(expected)], expected, rtol=0, atol=1e-9, err_msg=f"event {event}")
        if event % every == 0 and reference.classes:
            said = native.explain(row[:width]).members
            for (name, p), q in zip(said.items(), reference.answer(row[:width])[0], strict=True):
                np.testing.assert_allclose(p, q, rtol=0, atol=1e-9, err_msg=f"{name}, event {event}")
    gains = sum(tree.importance for forest in reference.forests for tree in forest.trees)
    if fields["forests"]:
        np.testing.assert_allclose(native.importance(), gains / gains.sum(), rtol=0, atol=1e-9)


def test_two_classes() -> None:
    x, y = events(140, 4, 2, words=0, missing=0.0)
    check(x, y, words=0, values=False, late=0.0, later=60, every=20, forests=True, labels=True, work=120.0)


def test_five_classes_one_after_another_with_words_missing_values_and_late_labels() -> None:
    x, y = events(160, 5, 5, words=2, missing=0.15, sorted_=True)
    check(x, y, words=2, values=False, late=0.3, later=70, every=20, forests=True, labels=False, work=80.0)


def test_values_with_words_missing_values_and_late_labels() -> None:
    x, y = events(150, 5, 1, words=2, missing=0.15)
    check(x, y, words=2, values=True, late=0.3, later=70, every=20, forests=True, labels=True, work=100.0)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 3])
def test_trees_of_the_usual_size(classes: int) -> None:
    x, y = events(700, 6, classes, words=2, missing=0.1)
    check(x, y, words=2, values=classes == 1, late=0.1, later=300, every=50, forests=True, labels=True, work=2000.0)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 3])
def test_more_events_than_are_remembered(classes: int) -> None:
    x, y = events(5300, 3, classes, words=1, missing=0.1)
    check(x, y, words=1, values=classes == 1, late=0.1, later=60, every=500, forests=False, labels=True, work=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 3])
def test_trees_that_are_built_while_their_events_are_forgotten(classes: int) -> None:
    x, y = events(5060, 3, classes, words=1, missing=0.1)
    more = {"later": 60, "every": 20, "idle": 4960, "forests": True, "labels": True, "work": 2000.0}
    check(x, y, words=1, values=classes == 1, late=0.1, **more)

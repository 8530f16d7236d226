"""Generators of events: that labels are those of the papers' rules, and that the rules change where they are said to."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest

from mapsto import streams
from mapsto.errors import SpecError
from mapsto.kinds import Block


def whole(stream: Any) -> Block:
    """All events as one block."""
    (block,) = stream.open(size=10**6)
    return block


def test_sea_is_what_it_was() -> None:
    block = whole(streams.sea(events=3000, seed=5))
    digest = hashlib.sha256(block.x["x2"].tobytes() + "".join(block.y.tolist()).encode()).hexdigest()
    assert digest[:16] == "a1524426bf589b88"


def group(function: int, x: dict[str, Any]) -> str:
    """By the rules as they stand in Agrawal et al. (1993)."""
    age, salary, level, loan = x["age"], x["salary"], int(x["education"].split()[1]), x["loan"]
    part = 0 if age < 40 else 1 if age < 60 else 2
    paid = [(50, 100), (75, 125), (25, 75)][part]

    def within(value: float, ranges: tuple[int, int]) -> bool:
        return 1000 * ranges[0] <= value <= 1000 * ranges[1]

    income = 2 / 3 * (salary + x["commission"])
    equity = x["house_value"] * (x["house_years"] - 20) / 10 if x["house_years"] >= 20 else 0.0
    educated = level in [(0, 1), (1, 2, 3), (2, 3, 4)][part]
    found = {
        1: part != 1,
        2: within(salary, paid),
        3: educated,
        4: within(salary, ([(25, 75), (50, 100), (50, 100)] if educated else [(50, 100), (75, 125), (25, 75)])[part]),
        5: within(
            loan,
            ([(100, 300), (200, 400), (300, 500)] if within(salary, paid) else [(200, 400), (300, 500), (100, 300)])[
                part
            ],
        ),
        6: within(salary + x["commission"], paid),
        7: income - loan / 5 - 20_000 > 0,
        8: income - 5000 * level - 20_000 > 0,
        9: income - 5000 * level - loan / 5 - 10_000 > 0,
        10: income - 5000 * level + equity / 5 - 10_000 > 0,
    }
    return "A" if found[function] else "B"


def test_the_ten_functions_of_agrawal_in_turn() -> None:
    stream = streams.agrawal(events=2000, functions=tuple(range(1, 11)), concept=100, perturbation=0.0)
    block = whole(stream)
    for event in range(len(block)):
        function = event // 100 % 10 + 1
        assert block.y[event] == group(function, {name: values[event] for name, values in block.x.items()}), function
    moved = whole(streams.agrawal(events=2000, functions=tuple(range(1, 11)), concept=100, perturbation=0.1))
    assert moved.y.tolist() == block.y.tolist(), "numbers are moved after the label was found"
    away = np.abs(moved.x["loan"] - block.x["loan"])
    assert 20_000 < away.mean() < 30_000
    assert ((moved.x["commission"] == 0) == (block.x["commission"] == 0)).all()


def test_a_hyperplane_turns_and_classes_stay_even() -> None:
    stream = streams.hyperplane(events=4000, dimensions=4, drifting=2, magnitude=0.001, noise=0.1, seed=3)
    block = whole(stream)
    x = np.stack([*block.x.values()], axis=1)
    weights = stream.weights(np.arange(4000))
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert np.abs(np.diff(weights, axis=0)).max(axis=0) == pytest.approx([0.001, 0.001, 0, 0])
    above = ((x - 0.5) * weights).sum(axis=1) >= 0
    assert 0.88 < np.mean(above == (block.y == "yes")) < 0.92
    assert 0.45 < np.mean(block.y == "yes") < 0.55
    first = ((x - 0.5) * weights[0]).sum(axis=1) >= 0
    agree = (first == above).reshape(40, 100).mean(axis=1)
    assert agree[0] > 0.95
    assert agree.min() < 0.8
    with pytest.raises(SpecError, match="11 of 10"):
        whole(streams.hyperplane(drifting=11))


def test_centres_move_within_the_unit_cube_and_events_lie_around_them() -> None:
    stream = streams.rbf(events=2000, dimensions=3, classes=3, kernels=6, drifting=4, speed=0.002)
    centres = stream.centres(np.arange(2000))
    assert centres.min() >= 0
    assert centres.max() <= 1
    moved = np.linalg.norm(np.diff(centres[:200:1], axis=0), axis=2)
    assert np.median(moved, axis=0) == pytest.approx([0.002] * 4 + [0.0] * 2)
    one_each = streams.rbf(events=4000, dimensions=3, classes=3, kernels=3, speed=0.002)
    block, centres = whole(one_each), one_each.centres(np.arange(4000))
    x = np.stack([*block.x.values()], axis=1)
    for kernel, label in enumerate(("c1", "c2", "c3")):
        of_class = block.y == label
        away = x[of_class] - centres[of_class, kernel]
        assert np.abs(away.mean(axis=0)).max() < 0.06
        assert np.abs(away).max() < 4


def test_the_functions_of_friedman_take_turns() -> None:
    block = whole(streams.friedman(events=300, concept=100, noise=0.0))
    assert block.y.dtype == np.float64
    for event in (0, 99, 100, 199, 200, 299):
        x = [float(values[event]) for values in block.x.values()]
        a, b, c, d, e = x[:5] if event // 100 != 1 else (x[3], x[4], x[1], x[0], x[2])
        y = 10 * math.sin(math.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e
        assert block.y[event] == pytest.approx(y)
    noisy = whole(streams.friedman(events=2000, concept=100, noise=2.0)).y
    assert (noisy - whole(streams.friedman(events=2000, concept=100, noise=0.0)).y).std() == pytest.approx(2.0, abs=0.1)

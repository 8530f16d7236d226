"""Multinomial logistic regression against scikit-learn's, and how its strength is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from mapsto.nn.adapt import multinomial

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(6, 20))


def drawn(count: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 6
    rows = CENTRES[labels] + noise * RNG.normal(size=(count, 20))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


@pytest.mark.parametrize("count", [12, 60])
@pytest.mark.parametrize("strength", [1.0, 100.0])
def test_it_is_scikit_learns(count: int, strength: float) -> None:
    from sklearn.linear_model import LogisticRegression

    rows, labels = drawn(count)
    shares = RNG.uniform(0.5, 2, count)
    wanted = LogisticRegression(C=strength, max_iter=5000, tol=1e-8).fit(rows, labels, shares).decision_function(rows)
    heads = multinomial.path(rows, labels, 6, (0.1, strength), weights=shares)
    found = rows @ heads[1].weight.T + heads[1].bias
    differences = [scores - scores.mean(1, keepdims=True) for scores in (found, wanted)]
    assert np.abs(differences[0] - differences[1]).max() < 0.02 * np.abs(differences[1]).max()


def test_the_unit_of_the_features_does_not_matter() -> None:
    rows, labels = drawn(30)
    small, large = (multinomial.fit(unit * rows + 0.0, labels, 6) for unit in (1.0, 1000.0))
    assert np.allclose(rows @ small.weight.T + small.bias, 1000 * rows @ large.weight.T + large.bias, atol=1e-2)


def test_the_strength_is_chosen_by_held_out_examples_alone() -> None:
    rows, labels = drawn(120, noise=1.5)
    chosen = multinomial.chosen(rows, labels, 6, np.random.default_rng(0))
    assert set(chosen.losses) == set(multinomial.STRENGTHS)
    assert chosen.losses[chosen.strength] < 1.1 * min(chosen.losses.values()) < np.log(6)
    wrong = np.append(labels, (labels[:50] + 1) % 6)  # what is given is never judged, only learnt from
    misled = multinomial.chosen(
        np.concatenate([rows, rows[:50]]),
        wrong,
        6,
        np.random.default_rng(0),
        given=50,
        weights=np.r_[np.ones(120), np.full(50, 1e-9)],
    )
    assert misled.losses == pytest.approx(chosen.losses, rel=1e-3)


def test_one_example_a_class_takes_the_usual_strength_and_an_absent_class_is_never_answered() -> None:
    rows, labels = drawn(6)
    assert multinomial.chosen(rows, labels, 6, np.random.default_rng(0)) == (multinomial.STRENGTH, 1.0, {})
    head = multinomial.fit(rows[:5], labels[:5], 6)
    assert 5 not in (drawn(60)[0] @ head.weight.T + head.bias).argmax(1)

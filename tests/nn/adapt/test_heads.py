"""Heads on features: against their definitions, scikit-learn, and fits without the example."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mapsto.nn.adapt import centroid, cross_validation, logistic, nearest, ridge

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(3), 8)
ROWS = RNG.random((24, 40)) + 0.4 * np.eye(3, 40)[LABELS]


def direct(
    rows: NDArray[np.float64], targets: NDArray[np.float64], penalty: float, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """The weighted ridge regression by its normal equations, with a column of ones that is not penalised."""
    full = np.c_[rows, np.ones(len(rows))]
    left = full.T @ (weights[:, None] * full) + penalty * np.diag([1.0] * rows.shape[1] + [0.0])
    solution = np.linalg.solve(left, full.T @ (weights[:, None] * targets))
    return solution[:-1].T, solution[-1]


@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_solves_its_equations_and_leaves_out_without_fitting_again(weighted: bool) -> None:
    weights = RNG.uniform(0.5, 2, 24) if weighted else np.ones(24)
    weights = weights / weights.mean()
    found = ridge.fitted(ROWS, LABELS, 3, penalty=0.5, scale=1.0, weights=weights)
    centred = (ROWS - weights @ ROWS / 24) * np.sqrt(weights)[:, None]
    penalty = 0.5 * np.square(centred).sum() / 24
    weight, bias = direct(ROWS, np.eye(3)[LABELS], penalty, weights)
    assert np.allclose(found.weight, weight)
    assert np.allclose(found.bias, bias)
    kept = np.arange(24) != 5
    weight, bias = direct(ROWS[kept], np.eye(3)[LABELS[kept]], penalty, weights[kept])
    assert np.allclose(found.left_out[5], ROWS[5] @ weight.T + bias)


def test_the_usual_penalty_stays_unless_another_is_clearly_better() -> None:
    assert ridge.fitted(ROWS, LABELS, 3).penalty in ridge.PENALTIES
    assert ridge.fitted(ROWS[::8], LABELS[::8], 3).penalty == ridge.PENALTY, "nothing can be left out"
    rows = RNG.normal(size=(400, 5))
    exact = rows @ RNG.normal(size=(5, 2))
    assert ridge.fitted_values(rows, exact).penalty == min(ridge.PENALTIES), "what is without noise needs none"
    assert np.allclose(ridge.fitted_values(rows, exact, penalty=1e-9).weight @ rows[0], exact[0], atol=1e-5)


def test_scores_of_ridge_are_as_sure_as_left_out_examples_are_right() -> None:
    noise = RNG.normal(size=(60, 30))
    labels = RNG.integers(0, 2, 60)
    weight, bias = ridge.fit(noise, labels, 2)
    sure = cross_validation.log_loss(RNG.normal(size=(500, 30)) @ weight.T + bias, RNG.integers(0, 2, 500))
    assert sure < 0.8, "of noise it knows nothing (0.69), and says so"


def test_soft_labels_and_labels_that_stand_by_themselves() -> None:
    shares = 0.8 * np.eye(3)[LABELS] + 0.2 / 3
    hard, soft = (ridge.fitted(ROWS, y, 3, penalty=1.0, scale=1.0) for y in (LABELS, shares))
    assert np.allclose(soft.weight, 0.8 * hard.weight)
    many = np.eye(3)[LABELS]
    found = ridge.fitted_labels(ROWS, many)
    answers = ROWS @ found.weight.T + found.bias > 0
    assert (answers == many).mean() > 0.95


def test_normalised_fits_answer_features_of_any_length_alike() -> None:
    rows = ROWS * RNG.uniform(0.1, 10, (24, 1))
    weight, bias = ridge.fit(rows, LABELS, 3, normalise=True)
    typical = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True) * np.linalg.norm(rows, axis=1).mean()
    assert ((typical @ weight.T + bias).argmax(1) == LABELS).mean() > 0.9


def test_logistic_regression_is_scikit_learn_s() -> None:
    from sklearn.linear_model import LogisticRegression

    weight, _ = logistic.fit(ROWS, LABELS, 3, strength=0.3, standardize=False)
    wanted = LogisticRegression(C=0.3, max_iter=1000).fit(ROWS, LABELS)
    assert np.allclose(weight, wanted.coef_)
    shares = np.eye(3)[LABELS]
    assert np.allclose(logistic.fit(ROWS, shares, 3, strength=0.3, standardize=False)[0], weight, atol=1e-3)
    twice = logistic.fit(np.r_[ROWS, ROWS[:8]], np.r_[LABELS, LABELS[:8]], 3, strength=0.3, standardize=False)
    weights = np.where(LABELS == 0, 2.0, 1.0)
    assert np.allclose(
        logistic.fit(ROWS, LABELS, 3, strength=0.3, standardize=False, weights=weights)[0], twice[0], atol=1e-3
    )


def test_a_class_without_an_example_is_not_answered() -> None:
    some = LABELS != 1
    weight, bias = logistic.fit(ROWS[some], LABELS[some], 3)
    assert not ((ROWS @ weight.T + bias).argmax(1) == 1).any()


def test_the_strength_is_chosen_by_cross_validation() -> None:
    noise = RNG.normal(size=(60, 30))
    found, losses = logistic.chosen(noise, np.arange(60) % 3, 3, np.random.default_rng(0))
    assert found == min(logistic.STRENGTHS), "in noise there is nothing to learn"
    assert set(losses) == set(logistic.STRENGTHS)
    assert logistic.chosen(ROWS[::8], LABELS[::8], 3, np.random.default_rng(0)) == (logistic.STRENGTH, {})


def test_centroids_answer_by_distance_or_angle() -> None:
    means = np.stack([ROWS[k == LABELS].mean(0) for k in range(3)])
    weight, bias = centroid.fit(ROWS, LABELS, 3, scale=2.0)
    distances = np.square(ROWS[:, None] - means).sum(2)
    assert np.allclose(ROWS @ weight.T + bias - 2 * np.square(ROWS).sum(1)[:, None], -2 * distances)
    weight, bias = centroid.fit(ROWS * RNG.uniform(0.1, 10, (24, 1)), LABELS, 3, cosine=True)
    assert ((ROWS @ weight.T + bias).argmax(1) == LABELS).mean() > 0.9


def test_neighbours_vote_by_how_near_they_are() -> None:
    found = nearest.fit(ROWS, LABELS, 3, neighbours=4, temperature=0.5)
    unit = found.support
    likeness = unit @ unit[7]
    near = np.argsort(-likeness)[:4]
    votes = np.zeros(3)
    for each in near:
        votes[LABELS[each]] += np.exp((likeness[each] - 1) / 0.5)
    assert np.allclose(np.exp(found(ROWS)[7]), (votes + nearest.FLOOR) / (votes + nearest.FLOOR).sum())


def test_the_likeliest_scale_is_the_least_loss_of_all_and_costs_little_with_many_classes() -> None:
    scales = [10 ** (step / 12) for step in range(-24, 37)]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = np.arange(30) % 5
        scores = rng.normal(size=(30, 5)) + rng.uniform(-1, 3) * np.eye(5)[labels]
        losses = [cross_validation.log_loss(scale * scores, labels) for scale in scales]
        assert cross_validation.likeliest_scale(scores, labels, scales) == scales[int(np.argmin(losses))]
    labels = np.arange(3000) % 1000  # a part is drawn, of all classes alike
    scores = rng.normal(size=(3000, 1000)) + 3 * np.eye(1000)[labels]
    losses = [cross_validation.log_loss(scale * scores, labels) for scale in scales[::4]]
    found = cross_validation.likeliest_scale(scores, labels, scales)
    assert abs(np.log10(found / scales[::4][int(np.argmin(losses))])) < 0.3


@pytest.mark.parametrize("cosine", [False, True])
def test_the_scale_of_centroids_is_that_of_means_without_the_example(cosine: bool) -> None:
    found = centroid._left_out(ROWS, LABELS, 3, cosine=cosine)
    for i in range(len(ROWS)):
        rest = np.arange(len(ROWS)) != i
        means = np.stack([ROWS[rest & (label == LABELS)].mean(0) for label in range(3)])
        if cosine:
            means /= np.linalg.norm(means, axis=1, keepdims=True)
        assert np.allclose(found[i], -np.square(ROWS[i] - means).sum(1))


def test_folds_spread_each_class_and_never_judge_one_that_is_alone() -> None:
    labels = np.repeat(np.arange(4), [1, 5, 7, 10])
    folds = cross_validation.folds_of(labels, 5, np.random.default_rng(3))
    assert folds[0] == -1
    for label in (1, 2, 3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    scores = cross_validation.out_of_fold(
        lambda x, y: ridge.fit(x, y, 4, penalty=1.0, scale=1.0), RNG.random((23, 6)), labels, folds
    )
    assert np.isnan(scores[0]).all()
    assert np.isfinite(scores[1:]).all()

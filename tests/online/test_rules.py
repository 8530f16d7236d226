"""The rules of ridge, prototypes and the MLP, each against its formula over all events at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mapsto.mappings.online.mlp import _Perceptron
from mapsto.mappings.online.prototypes import _OneVariance, _Shared
from mapsto.mappings.online.ridge import _RIDGES, _Ridge
from mapsto.nn.online.draws import unit_weights
from mapsto.nn.online.rule import Rule


def _events(count: int, inputs: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(count, inputs))
    rows[:, 0] = 1.0
    return rows, (rows[:, 1] * rows[:, 2] + 0.3 * rng.normal(size=count) > 0).astype(int) + (rows[:, 3] > 1)


def _taught(rule: Rule, rows: np.ndarray, labels: np.ndarray, *, classes: int = 3) -> Any:
    for row, label in zip(rows, labels.tolist(), strict=True):
        rule.grow(len(row), classes)
        rule.learn(row, label)
    return rule


def _features(rows: np.ndarray, projection: int) -> np.ndarray:
    drawn = np.array([unit_weights(0, place, projection) for place in range(rows.shape[1])])
    return np.maximum(rows @ drawn / np.sqrt(rows.shape[1]), 0)


def test_ridge_has_the_weights_of_solving_with_all_events_before_and_after_lambda_is_chosen():
    rows, labels = _events(1100)
    for count in (700, 1100):
        rule = _taught(_Ridge(30, 0), rows[:count], labels[:count])
        features, targets = _features(rows[:count], 30), np.eye(3)[labels[:count]]
        solved = np.linalg.solve(features.T @ features + rule._ridge * np.eye(30), features.T @ targets)
        np.testing.assert_allclose(rule._weights, solved.T, atol=1e-9)


def test_ridge_chooses_lambda_by_generalised_cross_validation():
    rows, labels = _events(1000)
    features, targets = _features(rows, 40), np.eye(3)[labels]

    def criterion(ridge: float) -> float:
        hat = features @ np.linalg.solve(features.T @ features + ridge * np.eye(40), features.T)
        return float(np.square(targets - hat @ targets).sum() / (1000 - np.trace(hat)) ** 2)

    best = min(_RIDGES, key=criterion)
    assert best != _Ridge(40, 0)._ridge  # it is not the one that stands there before
    assert _taught(_Ridge(40, 0), rows, labels)._ridge == best


def test_ridge_does_not_depend_on_the_order_of_events():
    rows, labels = _events(900)
    order = np.argsort(labels, kind="stable")
    one, other = (_taught(_Ridge(30, 0), *each) for each in ((rows, labels), (rows[order], labels[order])))
    np.testing.assert_allclose(one._weights, other._weights, atol=1e-9)


@pytest.mark.parametrize("make", [lambda: _Ridge(0, 0), lambda: _Shared(2.0), lambda: _OneVariance(2.0)])
def test_an_input_that_comes_late_counts_as_zero_before(make: Any):
    rows, labels = _events(400)
    filled = rows.copy()
    filled[:100, 4:] = 0
    late, always = make(), _taught(make(), filled, labels)
    _taught(late, rows[:100, :4], labels[:100])
    _taught(late, rows[100:], labels[100:])
    np.testing.assert_allclose(late.scores(rows[7]), always.scores(rows[7]), rtol=1e-7)


def test_prototypes_are_linear_discriminant_analysis():
    rows, labels = _events(500)
    rule = _taught(_Shared(2.0), rows, labels)
    counts = np.bincount(labels)
    means = np.array([rows[labels == label].mean(0) for label in range(3)])
    apart = rows - means[labels]
    covariance = (2.0 * np.eye(6) + apart.T @ apart) / (2.0 + 500)
    question = rows[11] + 0.2
    logs = [
        np.log(n) - 0.5 * (question - m) @ np.linalg.solve(covariance, question - m)
        for n, m in zip(counts, means, strict=True)
    ]
    expected = np.exp(logs) / np.exp(logs).sum()
    np.testing.assert_allclose(rule.scores(question), expected, rtol=1e-8)


def test_prototypes_with_one_variance_are_the_nearest_mean():
    rows, labels = _events(500)
    rule = _taught(_OneVariance(2.0), rows, labels)
    counts = np.bincount(labels)
    means = np.array([rows[labels == label].mean(0) for label in range(3)])
    variance = (2.0 + np.square(rows - means[labels]).sum() / 6) / (2.0 + 500)
    question = rows[11]
    logs = np.log(counts) - 0.5 * np.square(question - means).sum(1) / variance
    np.testing.assert_allclose(rule.scores(question), np.exp(logs) / np.exp(logs).sum(), rtol=1e-8)


def test_the_mlp_steps_as_adam_of_torch_does():
    import torch

    rows, labels = _events(40)
    rule = _Perceptron(hidden=5, rate=0.01, replay=0, memory=1, seed=0)
    rule.grow(6, 3)
    first = torch.tensor(rule._layers[0].weights.copy(), requires_grad=True)
    last = torch.tensor(rule._layers[1].weights.copy(), requires_grad=True)
    adam = torch.optim.Adam([first, last], lr=0.01)
    for row, label in zip(rows, labels.tolist(), strict=True):
        rule.learn(row, label)
        adam.zero_grad()
        answer = torch.relu(torch.tensor(row) @ first.T) @ last.T
        torch.nn.functional.cross_entropy(answer[None], torch.tensor([label])).backward()
        adam.step()
    np.testing.assert_allclose(rule._layers[0].weights, first.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(rule._layers[1].weights, last.detach().numpy(), atol=1e-6)


def test_the_memory_of_the_mlp_is_a_fair_sample_of_all_events():
    """Of 40 places for 400 events each part of the stream holds its share, within four standard deviations over 8 seeds."""
    held = np.zeros(4)
    for seed in range(8):
        rule = _Perceptron(hidden=1, rate=0.01, replay=0, memory=40, seed=seed)
        _taught(rule, np.arange(400.0)[:, None], np.zeros(400, int), classes=1)
        held += np.histogram(rule._rows[:, 0], bins=4, range=(0, 400))[0]
    assert (abs(held - 80) < 4 * np.sqrt(320 * 0.25 * 0.75)).all()


def test_a_rule_that_is_restored_goes_on_to_the_bit():
    rows, labels = _events(1200)
    for make in (
        lambda: _Ridge(25, 1),
        lambda: _Shared(1.0),
        lambda: _OneVariance(1.0),
        lambda: _Perceptron(hidden=4, rate=0.01, replay=3, memory=50, seed=0),
    ):
        whole, before, after = make(), make(), make()
        _taught(whole, rows, labels)
        _taught(before, rows[:690], labels[:690])
        after.restore({name: array.copy() for name, array in before.arrays().items()})
        _taught(after, rows[690:], labels[690:])
        for name, array in whole.arrays().items():
            assert array.tobytes() == after.arrays()[name].tobytes(), (type(whole).__name__, name)


@pytest.mark.parametrize(
    ("make", "least"),
    [
        (lambda: _Ridge(300, 0), 0.97),
        (lambda: _Shared(1.0), 0.94),
        (lambda: _OneVariance(1.0), 0.88),
        (lambda: _Perceptron(hidden=64, rate=3e-3, replay=7, memory=2000, seed=0), 0.95),
    ],
)
def test_digits_whose_classes_come_one_after_another(make: Any, least: float):
    pixels, labels = load_digits(return_X_y=True)
    rows = np.concatenate([np.ones((len(pixels), 1)), 8 * pixels / np.linalg.norm(pixels, axis=1, keepdims=True)], 1)
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[:1297], order[1297:]
    train = train[np.argsort(labels[train], kind="stable")]
    rule = _taught(make(), rows[train], labels[train], classes=10)
    right = [rule.scores(row).argmax() == label for row, label in zip(rows[test], labels[test], strict=True)]
    assert np.mean(right) >= least


def test_the_number_of_threads_decides_no_bit():
    """With 600 random features BLAS shares the products among the threads that it may use."""
    from threadpoolctl import threadpool_limits

    from mapsto import online, streams
    from mapsto.context import Context
    from mapsto.testing.streams import model_digest

    digests = set()
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            made = online.ridge(stream=streams.sea(events=80), projection=600)
            digests.add(model_digest(Context().apply(made, None)))
    assert len(digests) == 1

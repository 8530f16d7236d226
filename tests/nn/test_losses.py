"""Losses, class weights, and differences between student and teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from mapsto.errors import DataError, DomainError, MapstoError, SpecError
from mapsto.nn import losses
from mapsto.nn.differences import DIFFERENCES, cosine, difference, euclidean, kl

torch.manual_seed(0)
LOGITS, LABELS = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 0])


def test_classification_is_the_weighted_mean_of_smoothed_cross_entropy() -> None:
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    target = functional.one_hot(LABELS, 4) * 0.9 + 0.1 / 4
    each = -(target * LOGITS.log_softmax(1)).sum(1)
    torch.testing.assert_close(losses.classification(LOGITS, LABELS, smoothing=0.1), each.mean())
    plain = -LOGITS.log_softmax(1).gather(1, LABELS[:, None])[:, 0]
    expected = (plain * weights[LABELS]).sum() / weights[LABELS].sum()
    torch.testing.assert_close(losses.classification(LOGITS, LABELS, weights=weights.double()), expected)


def test_multilabel_weighs_positives() -> None:
    targets = (LOGITS.roll(1, 0) > 0).double()
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    p = LOGITS.sigmoid()
    expected = -(weights * targets * p.log() + (1 - targets) * (1 - p).log()).mean().float()
    torch.testing.assert_close(losses.multilabel(LOGITS, targets, weights=weights), expected)


def test_regression_never_broadcasts() -> None:
    outputs, targets = torch.zeros(4, 1), torch.arange(4.0).double()
    assert losses.regression(outputs, targets).item() == 3.5
    assert losses.regression(outputs, targets).dtype == torch.float32
    with pytest.raises(DomainError, match=r"\(3,\)"):
        losses.regression(outputs, targets[:3])
    with pytest.raises(DomainError):
        losses.regression(torch.zeros(4), torch.zeros(4, 1))


@pytest.mark.parametrize("kind", ["mse", "mae", "huber"])
def test_regression_is_zero_where_it_is_right(kind: Any) -> None:
    assert losses.regression(LOGITS, LOGITS, kind=kind) == 0
    assert losses.regression(LOGITS, LOGITS + 3, kind=kind).item() == pytest.approx(
        {"mse": 9, "mae": 3, "huber": 2.5}[kind]
    )


def test_the_kind_is_read_off_the_labels() -> None:
    assert losses.kind_of(np.array([0, 1], np.int64)) == "classification"
    assert losses.kind_of(np.array([[0, 1]], np.float32)) == "multilabel"
    assert losses.kind_of(torch.tensor([[0.0, 2.0]])) == "regression"
    assert losses.loss("classification", LOGITS, LABELS, smoothing=0.1) == losses.classification(
        LOGITS, LABELS, smoothing=0.1
    )
    assert losses.loss("multilabel", LOGITS, torch.ones(6, 4)) == losses.multilabel(LOGITS, torch.ones(6, 4))
    assert losses.loss("regression", LOGITS, torch.ones(6, 4)) == losses.regression(LOGITS, torch.ones(6, 4))


def test_balanced_classes_weigh_the_same() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = losses.class_weights(labels, 3)
    sums = [float(weights[k]) * (labels == k).sum() for k in range(3)]
    assert sums == pytest.approx([10 / 3] * 3)
    assert torch.equal(losses.balanced_weights(torch.from_numpy(labels), 3), weights)
    assert losses.class_weights(labels, 3, scheme="none").tolist() == [1, 1, 1]


def test_effective_weights_lie_between() -> None:
    labels = np.array([0] * 5000 + [1] * 50)
    balanced, effective = (losses.class_weights(labels, 2, scheme=s) for s in ("balanced", "effective"))
    assert float(effective.mean()) == pytest.approx(1)
    assert 1 < float(effective[1] / effective[0]) < float(balanced[1] / balanced[0])


def test_weights_of_several_labels_balance_yes_and_no() -> None:
    targets = np.array([[1, 1], [0, 1], [0, 1], [0, 0]], np.float32)
    assert losses.class_weights(targets, 2).tolist() == pytest.approx([3, 1 / 3])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: losses.classification(LOGITS, LABELS.float()), DomainError, "whole labels"),
        (lambda: losses.classification(LOGITS, LABELS[:2]), DomainError, r"\(2,\)"),
        (lambda: losses.classification(LOGITS, LABELS, smoothing=1.0), DomainError, "smoothing"),
        (lambda: losses.classification(LOGITS, LABELS, weights=torch.ones(3)), DomainError, r"\(4,\)"),
        (lambda: losses.multilabel(LOGITS, torch.ones(6, 3)), DomainError, r"\(6, 3\)"),
        (lambda: losses.regression(LOGITS, LOGITS, kind="l1"), DomainError, "mse, mae, huber"),  # type: ignore[arg-type]
        (lambda: losses.loss("regression", LOGITS, LOGITS, smoothing=0.1), DomainError, "smoothing"),
        (lambda: losses.loss("multilabel", LOGITS, LOGITS, smoothing=0.1), DomainError, "smoothing"),
        (lambda: losses.loss("regression", LOGITS, LOGITS, weights=torch.ones(4)), DomainError, "weights"),
        (lambda: losses.class_weights(np.array([0, 0, 2]), 3), DataError, "class 1 has no sample"),
        (lambda: losses.class_weights(np.array([0, 3]), 3), DataError, "0 to 2"),
        (lambda: losses.class_weights(np.array([0.5, 1.5]), 2), DataError, "whole numbers"),
        (lambda: losses.class_weights(np.ones((3, 2)), 2), DataError, "only positives"),
        (lambda: losses.class_weights(np.array([0]), 1, scheme="root"), DomainError, "balanced, none, effective"),  # type: ignore[arg-type]
        (lambda: kl(LOGITS, LOGITS[:, :3], temperature=1), DomainError, "same classes"),
        (lambda: cosine(LOGITS, LOGITS, temperature=0), DomainError, "temperature"),
        (lambda: difference("ecuclidean", LOGITS, LOGITS, temperature=1), SpecError, "euclidean"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], Any], error: type[MapstoError], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("name", DIFFERENCES)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_differences_vanish_only_at_the_teacher(name: str, temperature: float) -> None:
    teacher = LOGITS.roll(1, 1)
    assert difference(name, teacher, teacher, temperature=temperature).item() == pytest.approx(0, abs=1e-5)
    student = LOGITS.clone().requires_grad_()
    start = difference(name, student, teacher, temperature=temperature)
    assert start > 0.01
    start.backward()
    assert student.grad is not None
    assert difference(name, student.detach() - 0.1 * student.grad, teacher, temperature=temperature) < start


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_batch_counts_as_its_mean(name: str) -> None:
    teacher = LOGITS.roll(1, 1)
    one = difference(name, LOGITS, teacher, temperature=2.0)
    twice = difference(name, LOGITS.repeat(2, 1), teacher.repeat(2, 1), temperature=2.0)
    torch.testing.assert_close(one, twice)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_gradient_keeps_its_size_over_temperatures(name: str) -> None:
    sizes: list[float] = []
    for temperature in (10.0, 40.0):
        student = LOGITS.double().requires_grad_()
        difference(name, student, LOGITS.double().roll(1, 1), temperature=temperature).backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_differences_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[float(np.log(3)) * 2, 0.0]])
    p, q = np.array([0.75, 0.25]), np.array([0.5, 0.5])
    assert kl(student, teacher, temperature=2.0).item() == pytest.approx(4 * (p * np.log(p / q)).sum(), rel=1e-5)
    assert euclidean(student, teacher, temperature=2.0).item() == pytest.approx(4 * 0.125, rel=1e-5)
    expected = 4 * (1 - p @ q / np.linalg.norm(p) / np.linalg.norm(q))
    assert cosine(student, teacher, temperature=2.0).item() == pytest.approx(expected, rel=1e-4)

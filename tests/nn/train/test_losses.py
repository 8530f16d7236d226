"""Losses, class weights, and differences between student and teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from mapsto.errors import DomainError
from mapsto.nn.distill.divergences import DIFFERENCES, difference, kl
from mapsto.nn.train import losses

LOGITS, LABELS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 0])


def test_classification_is_the_weighted_mean_of_smoothed_cross_entropy() -> None:
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    target = functional.one_hot(LABELS, 4) * 0.9 + 0.1 / 4
    each = -(target * LOGITS.log_softmax(1)).sum(1)
    torch.testing.assert_close(losses.classification(LOGITS, LABELS, smoothing=0.1), each.mean())
    plain = -LOGITS.log_softmax(1).gather(1, LABELS[:, None])[:, 0]
    expected = (plain * weights[LABELS]).sum() / weights[LABELS].sum()
    torch.testing.assert_close(losses.classification(LOGITS, LABELS, weights=weights), expected)


def test_multilabel_weighs_positives() -> None:
    targets = (LOGITS.roll(1, 0) > 0).float()
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    p = LOGITS.sigmoid()
    expected = -(weights * targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    torch.testing.assert_close(losses.multilabel(LOGITS, targets, weights=weights), expected)


@pytest.mark.parametrize(("kind", "expected"), [("mse", 9), ("mae", 3), ("huber", 2.5)])
def test_regression_is_zero_where_it_is_right(kind: Any, expected: float) -> None:
    assert losses.regression(LOGITS, LOGITS, kind=kind) == 0
    assert losses.regression(LOGITS, LOGITS + 3, kind=kind).item() == pytest.approx(expected)


@pytest.mark.filterwarnings("error:Using a target size")
def test_regression_never_broadcasts() -> None:
    with pytest.raises(DomainError):
        losses.regression(torch.zeros(4, 1), torch.arange(4.0))


def test_balanced_classes_weigh_the_same() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = losses.class_weights(labels, 3)
    sums = [float(weights[k]) * int((labels == k).sum()) for k in range(3)]
    assert sums == pytest.approx([10 / 3] * 3)
    assert losses.class_weights(labels, 3, scheme="none").tolist() == [1, 1, 1]


def test_effective_weights_lie_between() -> None:
    labels = torch.tensor([0] * 5000 + [1] * 50)
    balanced, effective = (losses.class_weights(labels, 2, scheme=s) for s in ("balanced", "effective"))
    assert float(effective[labels].mean()) == pytest.approx(1, rel=1e-4)
    assert 1 < float(effective[1] / effective[0]) < float(balanced[1] / balanced[0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.class_weights(torch.tensor([0, 0, 2]), 3), "no sample of class 1"),
        (lambda: losses.class_weights(torch.tensor([0, 3]), 3), "0 to 2"),
        (lambda: difference("kl", LOGITS, LOGITS[:, :3], temperature=1), r"\(6, 3\)"),
        (lambda: difference("ecuclidean", LOGITS, LOGITS, temperature=1), "euclidean"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(DomainError, match=words):
        call()


@pytest.mark.parametrize("name", DIFFERENCES)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_differences_vanish_only_at_the_teacher(name: str, temperature: float) -> None:
    teacher = LOGITS.roll(1, 1) * torch.linspace(
        0.2, 2, LOGITS.shape[1]
    )  # a permutation alone is nothing to CKA and MMD
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


@pytest.mark.parametrize(
    "name",
    [
        "kl",
        "cosine",
        pytest.param(
            "euclidean",
        ),
    ],
)
def test_the_gradient_keeps_its_size_over_temperatures(name: str) -> None:
    sizes: list[float] = []
    for temperature in (10.0, 40.0):
        student = LOGITS.double().requires_grad_()
        difference(name, student, LOGITS.double().roll(1, 1), temperature=temperature).backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_kl_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[float(np.log(3)) * 2, 0.0]])
    p, q = np.array([0.75, 0.25]), np.array([0.5, 0.5])
    assert kl(student, teacher, temperature=2.0).item() == pytest.approx(4 * (p * np.log(p / q)).sum(), rel=1e-5)


def test_class_weights_count_by_the_shares_of_mixed_samples() -> None:
    """By hand: p = softmax of (0, ln 3) is (1/4, 3/4), of (0, 0) is (1/2, 1/2); weights 3 and 1."""
    logits = torch.tensor([[0.0, float(np.log(3))], [0.0, 0.0]])
    shares, weights = torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([3.0, 1.0])
    summed = 3 * 0.5 * np.log(4) + 1 * 0.5 * np.log(4 / 3) + 1 * 1.0 * np.log(2)
    counts = 3 * 0.5 + 1 * 0.5 + 1 * 1.0
    assert losses.classification(logits, shares, weights=weights).item() == pytest.approx(summed / counts)
    assert losses.classification(logits, shares).item() == pytest.approx(
        (0.5 * np.log(4) + 0.5 * np.log(4 / 3) + np.log(2)) / 2
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_whole_labels_and_shares_of_one_class_are_one_loss(smoothing: float) -> None:
    weights, shares = torch.tensor([0.5, 1.0, 2.0, 4.0]), functional.one_hot(LABELS, 4).float()
    for given in (None, weights):
        whole = losses.classification(LOGITS, LABELS, weights=given, smoothing=smoothing)
        torch.testing.assert_close(losses.classification(LOGITS, shares, weights=given, smoothing=smoothing), whole)


def test_a_sample_counts_by_its_weight_in_every_loss() -> None:
    """A sample of weight 2 counts as the same sample twice, one of weight 0 not at all."""
    counts, twice = torch.tensor([2.0, 1, 0, 1, 2, 1]), torch.tensor([0, 0, 1, 3, 4, 4, 5])
    targets, weights = (LOGITS.roll(1, 0) > 0).float(), torch.tensor([0.5, 1.0, 2.0, 4.0])
    for loss, wanted in (
        (losses.classification, LABELS),
        (lambda *given, **more: losses.classification(*given, weights=weights, smoothing=0.1, **more), LABELS),
        (losses.multilabel, targets),
        (losses.regression, targets),
    ):
        torch.testing.assert_close(loss(LOGITS, wanted, sample_weights=counts), loss(LOGITS[twice], wanted[twice]))

"""The rules of training with a pool, by the formulas of their papers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mapsto.nn.semi.rules import Answers
from mapsto.nn.semi.thresholds import Averaged, Fixed, Flexible, Free


def answers(shares: Any, places: Any = None, strong: Tensor | None = None, progress: float = 1.0) -> Answers:
    weak = torch.tensor(shares).log()
    strong = torch.zeros_like(weak) if strong is None else strong
    return Answers(weak, strong, np.arange(len(weak)) if places is None else np.asarray(places), progress)


def test_only_sure_answers_count_and_the_mean_is_over_all() -> None:
    verdict = Fixed(0.9).judge(answers([[0.95, 0.05], [0.6, 0.4], [0.08, 0.92], [0.5, 0.5]]))
    assert verdict.passed.tolist() == [True, False, True, False]
    assert verdict.guessed.tolist()[:3] == [0, 0, 1]
    assert float(verdict.loss) == pytest.approx(2 * np.log(2) / 4)


@pytest.mark.parametrize(("progress", "counts"), [(0.05, 0.0), (0.35, 0.5), (0.9, 1.0)])
def test_pseudo_labels_count_more_as_training_goes_on(progress: float, counts: float) -> None:
    verdict = Fixed(0.0, rising=(0.1, 0.6)).judge(answers([[0.9, 0.1]], progress=progress))
    assert float(verdict.loss) == pytest.approx(counts * np.log(2))


def test_flexible_thresholds_follow_what_the_pool_is_taken_for() -> None:
    rule = Flexible(0.9, classes=2, pool=8)
    assert rule.thresholds().tolist() == [0.0, 0.0]  # nothing is taken yet: all may pass
    rule.judge(answers([[0.95, 0.05]] * 4 + [[0.05, 0.95]] * 2, places=[0, 1, 2, 3, 4, 5]))
    # Four and two taken, two unused: shares 1 and 1/2, and M(x) = x / (2 - x).
    assert rule.thresholds().tolist() == pytest.approx([0.9, 0.9 / 3])
    again = Flexible(0.9, classes=2, pool=8)
    again.restore(rule.state())
    verdict = again.judge(answers([[0.89, 0.11], [0.6, 0.4], [0.35, 0.65]], places=[6, 7, 6]))
    assert verdict.passed.tolist() == [False, False, True]


def test_free_thresholds_follow_how_sure_answers_are() -> None:
    rule = Free(0.999, 0.0, classes=2)
    shares = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    rule.judge(answers(shares.tolist()))
    kept = 1 / 10  # (1 + 0) / (10 + 0): the first batch counts nine tenths
    sure = kept * 0.5 + (1 - kept) * shares.max(1).mean()
    mean = kept * 0.5 + (1 - kept) * shares.mean(0)
    assert rule.thresholds().tolist() == pytest.approx((sure * mean / mean.max()).tolist(), rel=1e-5)


def test_the_fairness_term_by_its_formula() -> None:
    rule = Free(0.9, 1.0, classes=2)
    for _ in range(5):
        rule.judge(answers([[0.9, 0.1]] * 6 + [[0.4, 0.6]]))
    strong = torch.tensor([[0.6, 0.0], [0.0, 0.3]])
    before = rule._answered / rule._frequency
    now = strong.softmax(1).mean(0) / 0.5  # each class is answered in half of the batch
    value = (before / before.sum() * (now / now.sum()).log()).sum()
    assert float(rule._unfair(strong)) == pytest.approx(float(value), rel=1e-4)
    plain, fair = (
        Free(0.9, weight, classes=2).judge(answers([[0.9, 0.1], [0.2, 0.8]], strong=strong)) for weight in (0.0, 2.0)
    )
    assert float(fair.loss) < float(plain.loss)  # the term is the logarithm of a share


def test_the_teacher_is_approached_by_squared_distance_and_all_count() -> None:
    verdict = Averaged(rising=0.5).judge(answers([[0.9, 0.1], [0.3, 0.7]]))
    assert float(verdict.loss) == pytest.approx(np.mean([0.4**2, 0.4**2, 0.2**2, 0.2**2]))
    assert verdict.passed.all()

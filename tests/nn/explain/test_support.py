"""A head written through its examples: the parts add up to the answer's lead, and what is not exact is said to be so."""

from __future__ import annotations

import numpy as np
import pytest

from mapsto.nn.adapt import centroid, logistic, nearest, ridge
from mapsto.nn.explain.support import Support, written_through

RNG = np.random.default_rng(0)


def drawn(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 4
    return np.abs(RNG.normal(size=(count, size)) + (2 * np.eye(4, size))[labels]), labels


@pytest.mark.parametrize("shape", [(20, 64), (60, 16)], ids=["few examples", "many"])
@pytest.mark.parametrize(
    ("fit", "how"),
    [
        (ridge.fit, "ridge"),
        (ridge.fit_rooted, "ridge"),
        (centroid.fit, "class means"),
        (lambda *given: centroid.fit(*given, cosine=True), "class means"),
    ],
    ids=["ridge", "rooted", "means", "angles"],
)
def test_heads_in_closed_form_are_found_again(fit, how, shape):
    rows, labels = drawn(*shape)
    weight, bias = fit(rows, labels, 4)
    seen = ridge.rooted(rows) if fit is ridge.fit_rooted else rows
    found = written_through(seen, labels, weight, bias)
    assert found.how == how
    assert found.is_exact
    evidence = found.evidence(seen[5] + 0.1)
    scores = weight @ (seen[5] + 0.1) + bias
    assert evidence.lead == pytest.approx(np.sort(scores)[-1] - np.sort(scores)[-2])
    assert evidence.examples.sum() + evidence.rest == pytest.approx(evidence.lead)
    assert labels[evidence.examples.argmax()] == evidence.answer or how == "class means"


def test_class_means_leave_nothing_over():
    rows, labels = drawn(20, 64)
    evidence = written_through(rows, labels, *centroid.fit(rows, labels, 4)).evidence(rows[0])
    assert evidence.rest == pytest.approx(0, abs=1e-9 * abs(evidence.lead) + 1e-9)


def test_logistic_regression_is_nearly_and_anything_else_not_told_as_exact():
    rows, labels = drawn(60, 16)
    found = written_through(rows, labels, *logistic.fit(rows, labels, 4))
    assert found.how == "logistic"
    assert 0.9 < found.accounted < 1
    any_head = written_through(rows, labels, RNG.normal(size=(4, 16)), np.zeros(4))
    assert any_head.how == "linear head"
    assert not any_head.is_one
    assert not any_head.is_exact
    few = written_through(*drawn(8, 64), RNG.normal(size=(4, 64)), np.zeros(4))
    assert few.accounted < 0.5, "most of such weights is nothing that the examples made"


def test_votes_are_those_that_were_cast():
    rows, labels = drawn(20, 8)
    head = nearest.fit(rows, labels, 4, neighbours=5)
    from mapsto.nn.explain.support import Votes

    empty = np.zeros((0, 0))
    votes = Votes(head.support, head.centre, head.votes, head.neighbours, head.temperature, nearest.FLOOR)
    support = Support(
        features=rows, labels=labels, how="votes", accounted=1.0, weight=empty, bias=np.zeros(0), duals=empty,
        seen=empty, mean=rows.mean(0), votes=votes, root=True,
    )  # fmt: skip
    query = rows[3] + 0.05
    evidence, shares = support.evidence(query), np.exp(head(query[None])[0])
    assert evidence.answer == shares.argmax()
    assert evidence.lead == pytest.approx(np.sort(shares)[-1] - np.sort(shares)[-2])
    assert (evidence.examples != 0).sum() <= 5
    assert evidence.examples.sum() == pytest.approx(evidence.lead)

"""Guessing a pool's labels from features, and whether the guesses are used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mapsto.context import Context, SilentContext
from mapsto.errors import SpecError
from mapsto.kinds import Preprocessing, Samples
from mapsto.mappings.semi.propagation import Propagation
from mapsto.mappings.semi.pt_map import PtMap
from mapsto.mappings.semi.structured import Structured
from mapsto.nn.adapt import ridge
from mapsto.nn.semi.back_off import judged
from mapsto.nn.semi.clusters import clustered, estimated_count, matched
from mapsto.nn.semi.graph import neighbour_graph, unit_rows
from mapsto.nn.semi.open_set import ALPHA, far_from_all
from mapsto.nn.semi.pool import without_copies
from mapsto.nn.semi.propagation import Spreader, propagated
from mapsto.nn.semi.pt_map import sinkhorn, transported
from mapsto.nn.semi.ridge import PoolRidge
from mapsto.nn.semi.structured import believed, groups_by_means, structured

CLASSES = 3


def clouds(per_class: int, seed: int, spread: float = 0.35) -> tuple[Any, Any]:
    """Positive features (N, 8) around three centres, and their classes."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).uniform(0.2, 1.5, (CLASSES, 8))
    labels = np.repeat(np.arange(CLASSES), per_class)
    return np.abs(centres[labels] + spread * rng.normal(size=(len(labels), 8))), labels


def of(labels: Any, classes: int) -> Samples:
    names = tuple(map(str, range(classes)))
    return Samples(inputs=labels[:, None], labels=labels, classes=names, preprocessing=Preprocessing(kind="none"))


@pytest.mark.parametrize("method", ["propagation", "spreading"])
def test_it_agrees_with_scikit_learn_on_the_same_graph(method: Any) -> None:
    from sklearn.semi_supervised import LabelPropagation, LabelSpreading

    (known, labels), (pool, _) = clouds(2, 0), clouds(15, 1)
    whole = np.concatenate([known, pool])
    graph = neighbour_graph(unit_rows(whole), 5).toarray()

    def kernel(x: Any, y: Any) -> Any:
        return graph[x[:, 0].astype(int)][:, y[:, 0].astype(int)]

    made: Any = LabelPropagation(kernel=kernel, max_iter=5000, tol=1e-10)
    if method == "spreading":
        made = LabelSpreading(kernel=kernel, alpha=0.9, max_iter=5000, tol=1e-10)
    places = np.arange(len(whole))[:, None].astype(float)
    made.fit(places, np.concatenate([labels, np.full(len(pool), -1)]))
    shares = propagated(known, labels, pool, CLASSES, method=method, neighbours=5, alpha=0.9, balance=0.0, rounds=1)
    assert np.allclose(shares, made.label_distributions_[len(known) :], atol=1e-4)


def test_balance_evens_out_the_masses_of_the_classes_and_rows_sum_to_one() -> None:
    (known, labels), (pool, _) = clouds(1, 0), clouds(40, 1)
    pool = pool[:70]  # few of the last class
    plain, even = (propagated(known, labels, pool, CLASSES, balance=share, rounds=1) for share in (0.0, 1.0))
    assert np.allclose(plain.sum(1), 1)
    assert np.allclose(even.sum(1), 1)
    assert np.ptp(even.sum(0)) < np.ptp(plain.sum(0))


def test_a_part_of_the_pool_that_no_label_reaches_has_equal_shares() -> None:
    far = np.zeros((4, 9))
    far[:, 8] = 1
    far[:, 7] = [0.1, 0.2, 0.3, 0.4]
    (known, labels) = clouds(2, 0)
    shares = propagated(np.pad(known, ((0, 0), (0, 1))) * ([1] * 7 + [0, 0]), labels, far, CLASSES, neighbours=2)
    assert np.allclose(shares, 1 / CLASSES)


def test_a_pool_of_equal_classes_is_told_apart_from_one_label_each() -> None:
    (known, labels), (pool, truth) = clouds(1, 8), clouds(60, 9)
    alone = ridge.fit(known, labels, CLASSES)
    plain = (pool @ alone[0].T + alone[1]).argmax(1) == truth
    for shares in (propagated(known, labels, pool, CLASSES), transported(known, labels, pool, CLASSES)):
        assert (shares.argmax(1) == truth).mean() > plain.mean() + 0.2


def test_sinkhorn_gives_each_class_the_same_mass() -> None:
    shares = sinkhorn(np.random.default_rng(0).normal(size=(60, 4)))
    assert np.allclose(shares.sum(1), 1)
    assert np.allclose(shares.sum(0), 15, atol=0.05)


def test_the_ridge_of_both_is_the_weighted_ridge() -> None:
    (known, labels), (pool, truth) = clouds(3, 0), clouds(10, 1)
    targets = np.eye(CLASSES)
    weight, bias = PoolRidge(pool, 0.1).fit(known, targets[labels], targets[truth], penalty=0.3)
    weights = np.concatenate([np.ones(len(known)), np.full(len(pool), 0.1)])
    same = ridge.fit(
        np.concatenate([known, pool]),
        np.concatenate([labels, truth]),
        CLASSES,
        weights=weights,
        penalty=0.3 * len(weights) / weights.sum(),
        scale=1.0,
    )
    assert np.allclose(weight, same[0])
    assert np.allclose(bias, same[1])


def test_samples_of_no_class_are_left_out_and_few_others() -> None:
    (known, labels), (pool, _) = clouds(20, 0), clouds(200, 1)
    foreign = np.abs(np.random.default_rng(5).normal(size=(50, 8)) ** 3) * [8, 0, 0, 0, 0, 0, 0, 0.01]
    far = far_from_all(known, labels, np.concatenate([pool, foreign]))
    assert far[len(pool) :].all()
    assert far[: len(pool)].mean() < 2.5 * ALPHA
    assert not far_from_all(known[:10], labels[:10], foreign).any()  # ten examples are too few to say so at 5 %


def test_the_pool_is_used_where_it_helps_and_not_where_it_hurts() -> None:
    labels = np.repeat(np.arange(2), 6)

    def answers(right: float) -> Any:
        def scores(known: Any, asked: Any) -> Any:
            wrong = np.arange(len(asked)) >= round(right * len(asked))
            return np.eye(2)[labels[asked] ^ wrong]

        return scores

    rng = np.random.default_rng(0)
    helping, hurting = judged(labels, answers(1.0), answers(0.5), rng), judged(labels, answers(0.5), answers(1.0), rng)
    assert (helping.helps, helping.with_pool, helping.answers) == (True, 1.0, 60)
    assert (hurting.helps, hurting.without) == (False, 1.0)
    mostly = judged(
        labels, answers(0.75), answers(0.5), rng
    )  # right three times of four: log 3 is the likeliest scale of 0 and 1
    assert mostly.scale == pytest.approx(np.log(mostly.with_pool / (1 - mostly.with_pool)), rel=0.1)
    single = judged(np.arange(4), answers(0.0), answers(1.0), rng)
    assert (single.helps, single.answers) == (True, 0)


@pytest.mark.parametrize("cls", [Propagation, PtMap, Structured])
def test_a_misleading_pool_is_left_unused_and_both_figures_are_said(cls: Any) -> None:
    fields: Any = {"data": _DIGITS, "unlabelled": _DIGITS, "open_set": "keep", "rounds": 2}
    rng = np.random.default_rng(0)

    def rows(count: int) -> tuple[Any, Any]:
        """The class is in one small feature; the pool falls into groups by others."""
        labels = np.arange(count) % 2
        features = rng.uniform(0, 0.02, (count, 6))
        features[np.arange(count), 2 + rng.integers(0, 2, count)] += 4
        features[:, 0] += 0.2 * labels
        return features, labels

    (known, labels), (pool, _) = rows(30), rows(400)
    pool[:, 0] = 0.1
    ctx = SilentContext(seed=0)
    made = cls(**fields)
    weight, bias = made.head(known, of(labels, 2), pool, ctx)
    plain = ridge.fit_rooted(known, labels, 2)
    assert np.array_equal(weight, plain[0])
    assert np.array_equal(bias, plain[1])
    assert "not used, for it hurts" in ctx.notes[-1]
    assert "without" in ctx.notes[-1]
    used = cls(**fields, back_off="never").head(known, of(labels, 2), pool, ctx)
    assert not np.array_equal(used[0], plain[0])


def test_one_label_a_class_is_used_without_a_test_and_said_so() -> None:
    (known, labels), (pool, _) = clouds(1, 0), clouds(30, 1)
    ctx = Context(seed=0)
    Propagation(data=_DIGITS, unlabelled=_DIGITS).head(known, of(labels, CLASSES), pool, ctx)
    assert "without a test" in ctx.notes[-1]


def test_copies_are_found_by_value() -> None:
    pool = np.arange(24, dtype=np.uint8).reshape(6, 1, 2, 2)
    assert without_copies(pool[[4, 1]], pool).tolist() == [0, 2, 3, 5]


def _digits() -> Any:
    from mapsto.data.sets.digits import Digits

    return Digits()


_DIGITS = _digits()


def test_groups_decide_between_classes_that_look_alike_across_groups() -> None:
    """Class 0 and 1 are one group, 2 and 3 the other; a sample near the border takes the class of its own group."""
    rng = np.random.default_rng(0)
    centres = np.array([[3.0, 0.2, 1.0, 0.1], [3.0, 0.2, 0.1, 1.0], [0.2, 3.0, 1.0, 0.1], [0.2, 3.0, 0.1, 1.0]])
    truth = np.repeat(np.arange(4), 40)
    pool = np.abs(centres[truth] + 0.35 * rng.normal(size=(160, 4)))
    spreader, labels = Spreader(centres, pool, 4, neighbours=8), np.arange(4)
    shares = structured(spreader, labels, labels, np.array([0, 0, 1, 1]), rounds=4)
    assert np.allclose(shares.sum(1), 1)
    assert (shares.argmax(1) == truth).mean() > 0.85
    assert (shares[:, :2].sum(1) > 0.5).astype(int).tolist() == (truth < 2).astype(int).tolist()
    assert groups_by_means(centres, labels, 4, 2).tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])


def test_a_hierarchy_names_every_class_and_no_other() -> None:
    for hierarchy, message in (({"0": "a"}, "class '1' has no group"), ({"0": "a", "x": "b"}, "no class 'x'")):
        made = Structured(data=_DIGITS, unlabelled=_DIGITS, hierarchy=hierarchy)
        with pytest.raises(SpecError, match=message):
            made.guess(np.ones((2, 3)), np.ones((3, 3)), of(np.arange(2), 2), SilentContext())
    with pytest.raises(SpecError, match="groups"):
        Structured(data=_DIGITS, unlabelled=_DIGITS, hierarchy={"0": "a"}, groups=2)


def test_classes_are_found_counted_and_matched() -> None:
    features, labels = clouds(60, 2, spread=0.2)
    group, centres = clustered(features, CLASSES, np.random.default_rng(0))
    match = matched(group, labels)
    assert match.accuracy > 0.95
    assert match.nmi > 0.8
    assert sorted(match.classes) == [0, 1, 2]
    assert np.allclose(np.linalg.norm(centres, axis=1), 1)
    assert estimated_count(features, range(2, 9), np.random.default_rng(0))[0] == CLASSES


def test_guesses_are_believed_at_the_level_of_the_tree_at_which_they_are_sure() -> None:
    (known, labels), (pool, _) = clouds(1, 0, spread=0.5), clouds(40, 1, spread=0.5)
    spreader, groups, places = Spreader(known, pool, CLASSES, neighbours=5), np.array([0, 0, 1]), np.arange(len(known))
    once, once_by_levels = (structured(spreader, places, labels, groups, rounds=1, levels=way) for way in (False, True))
    plain, levels = (structured(spreader, places, labels, groups, levels=way) for way in (False, True))
    assert np.array_equal(once, once_by_levels), "before the first round nothing is believed"
    assert not np.allclose(plain, levels)
    learnt = believed(once, groups, 0.8)
    assert np.allclose(learnt.sum(1), 1)
    mass = once[:, :2].sum(1)
    of_group = (once.max(1) < 0.8) & (mass >= 0.8)
    assert of_group.any()
    assert np.allclose(learnt[of_group], np.pad(once[of_group, :2] / mass[of_group, None], ((0, 0), (0, 1))))
    sure = once.max(1) >= 0.8
    assert (learnt[sure].max(1) == 1).all()
    rest = ~sure & (mass < 0.8) & (once[:, 2] < 0.8)
    assert np.array_equal(learnt[rest], once[rest])

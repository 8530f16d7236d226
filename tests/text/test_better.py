"""An encoder that was trained further is taken only where labelled examples are sure of it."""

from __future__ import annotations

import numpy as np

from mapsto import datasets
from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mappings.choose.better import Better
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.adapt.choice_of_embedding import choose_embedding


def noisy(labels: np.ndarray, noise: float, seed: int) -> np.ndarray:
    return np.eye(8)[labels] + noise * np.random.default_rng(seed).normal(size=(len(labels), 8))


def test_equal_embeddings_are_seldom_changed_and_better_ones_always_taken() -> None:
    labels = np.arange(80) % 8
    taken = [
        choose_embedding({"a": noisy(labels, 0.6, 2 * seed), "b": noisy(labels, 0.6, 2 * seed + 1)}, labels, 8)[0]
        for seed in range(40)
    ]
    assert taken.count("b") <= 12
    clear = [
        choose_embedding({"a": noisy(labels, 0.9, 2 * seed), "b": noisy(labels, 0.3, 2 * seed + 1)}, labels, 8)[0]
        for seed in range(10)
    ]
    assert clear == ["b"] * 10


def test_with_one_example_of_each_class_nothing_is_judged() -> None:
    labels = np.arange(8)
    best, judged = choose_embedding({"a": noisy(labels, 9, 0), "b": noisy(labels, 0, 1)}, labels, 8)
    assert (best, judged) == ("a", ())


def test_the_network_is_taken_or_the_original_kept_and_it_is_said() -> None:
    digits = datasets.digits(size=16)
    few = datasets.subset(data=digits, per_class=6)
    untrained: Network = Conv4(data=digits, width=8)(seed=0)
    trained = Supervised(data=digits, epochs=3)(untrained, seed=0)
    for value, original, said in ((trained, untrained, "is taken"), (untrained, trained, "is kept")):
        ctx = Context()
        found = ctx.apply(Better(data=few, original=original), value)
        assert found is (trained if said == "is taken" else original)
        assert said in ctx.notes[-1]
        assert len(ctx.attached["original_or_not"].rows) == 2  # type: ignore[union-attr]

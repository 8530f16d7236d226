"""Training on several environments: the penalties by hand, what is refused, and that a misleading feature is given up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mapsto import datasets, networks, train
from mapsto.context import Numerics, SilentContext
from mapsto.errors import DataError
from mapsto.kinds import Dataset
from mapsto.nn.network.inference import forward
from mapsto.nn.transfer.environments import feature_distance, scale_gradient

CTX = SilentContext(seed=0, numerics=Numerics(threads=1))


def environment(
    folder: Path, name: str, agrees: float, *, classes: tuple[str, ...] = ("a", "b"), width: int = 2
) -> Dataset:
    """400 rows of a weak feature that is right in 75 %, and of one that agrees with the label in that share."""
    rng = np.random.default_rng(len(name))
    labels = rng.integers(0, 2, 400)
    rows = np.zeros((400, width), np.float32)
    rows[:, 0] = 2 * np.where(rng.random(400) < 0.75, labels, 1 - labels) - 1
    rows[:, 1] = 2 * np.where(rng.random(400) < agrees, labels, 1 - labels) - 1
    np.savez(folder / f"{name}.npz", inputs=rows, labels=labels)
    return datasets.arrays(file=str(folder / f"{name}.npz"), classes=classes)


def test_the_gradient_of_a_scale_is_autograds() -> None:
    scores, labels = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    scale = torch.ones((), requires_grad=True)
    (wanted,) = torch.autograd.grad(cross_entropy(scale * scores, labels), scale)
    assert float(scale_gradient(scores, labels)) == pytest.approx(float(wanted), abs=1e-6)


def test_the_distance_of_features_sees_means_and_covariances() -> None:
    rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert float(feature_distance(rows, rows)) == 0
    assert float(feature_distance(rows, rows + 1)) == pytest.approx(1, abs=1e-5)
    assert (
        float(feature_distance(rows, rows - rows.mean(0) + rows.mean(0)))
        < 1e-6
        < float(feature_distance(rows, 2 * rows))
    )


@pytest.mark.parametrize("penalty", ["irm", "vrex"])
def test_what_misleads_in_another_environment_is_given_up(penalty: Any, tmp_path: Path) -> None:
    seen = (environment(tmp_path, "one", 0.95), environment(tmp_path, "another", 0.75))
    other = environment(tmp_path, "elsewhere", 0.1).open()
    fresh = CTX.apply(networks.mlp(inputs=2, widths=(8,)), None)
    right: list[float] = []
    for way in ("none", penalty):
        mapping = train.invariant(environments=seen, penalty=way, steps=80, learning_rate=0.03, weight_decay=0.0)
        network = CTX.apply(mapping, fresh)
        answers = forward(network.module(), other.inputs, network.signature.preprocessing).argmax(1).numpy()
        right.append(float((answers == other.labels).mean()))
    assert right[0] < 0.3
    assert right[1] > 0.6


def test_environments_of_other_classes_or_shapes_are_refused(tmp_path: Path) -> None:
    one = environment(tmp_path, "one", 0.9)
    fresh = CTX.apply(networks.mlp(inputs=2, widths=(8,)), None)
    for other, problem in (
        (environment(tmp_path, "classes", 0.9, classes=("a", "c")), "classes"),
        (environment(tmp_path, "columns", 0.9, width=3), "shape"),
    ):
        with pytest.raises(DataError, match=problem) as caught:
            CTX.apply(train.invariant(environments=(one, other), steps=1), fresh)
        assert "environments[1]" in str(caught.value)

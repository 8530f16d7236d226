"""A student without data: the images come nearer to what the teacher's batch norms have kept."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.mappings.small import Corners, Plain, context, network, trained
from torch import nn

from mapsto.errors import DomainError
from mapsto.kinds import Network, Preprocessing
from mapsto.mappings.distill.data_free import DataFree
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.distill.deep_inversion import bounds, statistics_gap, variation
from mapsto.store import network_digest

pytestmark = pytest.mark.usefixtures("trusted")

DATA = Corners()


def data_free(teacher: Network, **fields: Any) -> DataFree:
    given: dict[str, Any] = {"teacher": teacher, "batches": 2, "batch_size": 8, "iterations": 3, "epochs": 2}
    return DataFree(**(given | fields))


@pytest.mark.parametrize("stop", [1, 3, 5, 6, 8])
def test_a_stopped_run_ends_with_the_same_bits(stop: int) -> None:
    teacher, value = network(4, seed=3), network(4)
    before = network_digest(value), network_digest(teacher)
    process = data_free(teacher, validation=DATA)
    whole, metrics = trained(process, value)
    assert [sorted(step)[0] for step in metrics[:6]] == ["image_loss"] * 6
    assert len(metrics) == 6 + 4
    assert "val_accuracy" in metrics[-1]
    stopped, _ = trained(process, value, stop=stop)
    assert network_digest(stopped) == network_digest(whole) != before[0]
    assert (network_digest(value), network_digest(teacher)) == before


def test_the_gap_of_statistics_by_hand() -> None:
    norm = nn.BatchNorm2d(2).double()
    norm.running_mean = torch.tensor([1.0, -1.0], dtype=torch.float64)
    norm.running_var = torch.tensor([2.0, 0.5], dtype=torch.float64)
    images = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with statistics_gap(norm.eval()) as gaps:
        norm(images)
    means, spreads = 0.0, 0.0
    for channel, (mean, var) in enumerate(((1.0, 2.0), (-1.0, 0.5))):
        values: list[float] = images[:, channel].flatten().tolist()
        own = sum(values) / len(values)
        means += (own - mean) ** 2
        spreads += (sum((v - own) ** 2 for v in values) / len(values) - var) ** 2
    assert float(gaps[0]) == pytest.approx(math.sqrt(means) + math.sqrt(spreads))
    assert not norm._forward_pre_hooks


def test_variation_and_bounds() -> None:
    images = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]])
    assert float(variation(images)) == pytest.approx((4 + 9) / 2 + (1 + 4) / 2)
    low, high = bounds(Preprocessing(channels=1, size=(2, 2), mean=(0.5,), std=(0.25,)), torch.device("cpu"))
    assert (float(low), float(high)) == (-2, 2)


def test_images_are_made_within_bounds_and_the_teacher_knows_them() -> None:
    teacher, _ = trained(Supervised(data=DATA, epochs=6, batch_size=16), network())
    process = data_free(teacher, batches=1, batch_size=16, iterations=60, epochs=1)
    ctx, value = context(), network(4)
    ctx.seed_everything("start")
    live = process.open(value, None, ctx)
    losses: list[float] = []
    for step in range(60):
        ctx.seed_everything(step)
        losses.append(live.advance(step)[0][1]["image_loss"])
    assert losses[-1] < 0.5 * losses[0]
    images = live.snapshot()["images"]
    assert images.shape == (16, 1, 8, 8)
    assert float(images.abs().max()) <= 1
    assert not live.done
    right = (teacher.module()(images).argmax(1) == torch.arange(16) % 4).float().mean()
    assert float(right) > 0.8


def test_what_is_refused() -> None:
    with pytest.raises(DomainError, match="does not take the images that the teacher takes"):
        trained(data_free(Conv4(channels=3, size=8, blocks=2, width=4, classes=4)(seed=0)), network(4))
    with pytest.raises(DomainError, match="no batch norms that kept statistics"), statistics_gap(Plain()):
        pass

"""Sizes: parameters, multiply-accumulates against hand computation, bytes, the table of layers."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from tests.foreign import Encoder, Recurrent
from torch import Tensor, nn
from torch.nn import functional

from mapsto.nn.networks.resnet_cifar import resnet_cifar
from mapsto.nn.networks.vgg import vgg
from mapsto.nn.profile.counts import count_macs, count_parameters, layer_table, state_bytes

IMAGE = torch.zeros(2, 3, 32, 32)


def by_hand(plan: list[tuple[int, int, int]]) -> int:
    """Multiply-accumulates of 3×3 convolutions given as (inputs, outputs, side of the output)."""
    return sum(9 * inputs * outputs * side * side for inputs, outputs, side in plan)


def test_vgg16_as_by_hand() -> None:
    widths = [[64, 64], [128, 128], [256] * 3, [512] * 3, [512] * 3]
    plan: list[tuple[int, int, int]] = []
    inputs = 3
    for stage, outputs in enumerate(widths):
        for width in outputs:
            plan.append((inputs, width, 32 >> stage))
            inputs = width
    assert count_macs(vgg(), IMAGE) == by_hand(plan) + 512 * 10 == 313_201_664


@pytest.mark.parametrize(("depth", "macs"), [(20, 40_551_040), (56, 125_485_696)])
def test_resnets_as_by_hand(depth: int, macs: int) -> None:
    blocks = (depth - 2) // 6
    plan = [(3, 16, 32)] + [(16, 16, 32)] * 2 * blocks
    plan += [(16, 32, 16)] + [(32, 32, 16)] * (2 * blocks - 1) + [(32, 64, 8)] + [(64, 64, 8)] * (2 * blocks - 1)
    assert count_macs(resnet_cifar(depth=depth), IMAGE) == by_hand(plan) + 640 == macs


class Functional(nn.Module):
    """Everything by functional calls, attention among it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, 2, 3, 3))
        self.part = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(x, self.weight, padding=1, groups=2)  # (N, 6, 4, 4)
        x = functional.linear(x, torch.zeros(5, 4))  # (N, 6, 4, 5)
        x = functional.scaled_dot_product_attention(x, x, x)
        x = torch.einsum("nchw,wv->nchv", x, torch.zeros(5, 4))
        return self.part(x)


def test_functional_calls_count() -> None:
    conv, linear, attention = 6 * 16 * 2 * 9, 6 * 4 * 5 * 4, 2 * 6 * 4 * 4 * 5
    total = conv + linear + attention + 6 * 4 * 4 * 5 + 6 * 4 * 4 * 4
    module = Functional()
    assert count_macs(module, torch.zeros(3, 4, 4, 4)) == total
    rows = layer_table(module, torch.zeros(3, 4, 4, 4))
    assert [(row.path, row.macs) for row in rows] == [("part", 384), ("", total - 384)]


def of_a_layer(tokens: int, width: int, hidden: int) -> int:
    """Query, key, value and output; scores and what they weigh; the two feed-forward layers."""
    return 4 * tokens * width * width + 2 * tokens * tokens * width + 2 * tokens * width * hidden


def test_transformer_layers_as_by_hand() -> None:
    total = 2 * of_a_layer(12, 32, 64) + 32 * 4
    assert count_macs(Encoder(), torch.zeros(3, 12, 32)) == total == 215_168
    attention = nn.MultiheadAttention(32, 4, batch_first=True)
    assert count_macs(Attending(attention), torch.zeros(2, 12, 32)) == of_a_layer(12, 32, 0)
    assert torch.backends.mha.get_fastpath_enabled()


class Attending(nn.Module):
    """Attention to itself."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers_as_by_hand(kind: Literal["LSTM", "GRU", "RNN"], gates: int, directions: int) -> None:
    total = directions * (12 * 2 * gates * 32 * 32 + 32 * 4)
    module = Recurrent(kind, bidirectional=directions == 2)
    assert count_macs(module, torch.zeros(3, 12, 32)) == total
    if (kind, directions) == ("LSTM", 1):
        assert total == 98_432
    rows = layer_table(module, torch.zeros(3, 12, 32))
    assert [(row.path, row.macs) for row in rows] == [("layer", total - 128 * directions), ("head", 128 * directions)]


class Vectors(nn.Module):
    """Matrices by vectors."""

    def forward(self, x: Tensor) -> Tensor:
        first = x @ torch.ones(5)  # (N, 4): 20 for each of N
        return torch.bmm(x, x.transpose(1, 2)).sum((1, 2)) + first @ torch.ones(4)


def test_products_with_vectors_count() -> None:
    assert count_macs(Vectors(), torch.zeros(3, 4, 5)) == 20 + 4 * 5 * 4 + 4


def test_depthwise_and_transposed_convolutions() -> None:
    x = torch.zeros(1, 8, 10, 10)
    assert count_macs(nn.Conv2d(8, 8, 3, padding=1, groups=8), x) == 8 * 100 * 9
    assert count_macs(nn.ConvTranspose2d(8, 4, 2, stride=2), x) == 100 * 8 * 4 * 4


def test_the_module_stays_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    module[2].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    count_macs(module, IMAGE)
    layer_table(module, IMAGE)
    assert [part.training for part in module.modules()] == [True, True, True, False]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not module._forward_hooks
    assert not module[0]._forward_pre_hooks


def test_it_stays_as_it_was_after_a_failure_too() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(1, 1))
    with pytest.raises(RuntimeError):
        layer_table(module, IMAGE)
    assert module.training
    assert not module[0]._forward_hooks


def test_the_table_adds_up() -> None:
    network = resnet_cifar(depth=8, shortcut="B")
    rows = layer_table(network, IMAGE)
    assert sum(row.macs for row in rows) == count_macs(network, IMAGE)
    assert sum(row.parameters for row in rows) == count_parameters(network)
    assert rows[0] == ("conv1", "Conv2d", (16, 32, 32), 432, 442_368)
    assert rows[-1] == ("linear", "Linear", (10,), 650, 640)


def test_shared_tensors_count_once_but_work_each_time() -> None:
    layer = nn.Linear(4, 4)
    twice = nn.Sequential(layer, layer)
    assert count_parameters(twice) == 20
    assert count_macs(twice, torch.zeros(1, 4)) == 32
    assert sum(row.macs for row in layer_table(twice, torch.zeros(1, 4))) == 32


def test_bytes_of_a_shared_tensor_count_once() -> None:
    layer = nn.Linear(4, 4)
    assert state_bytes(nn.Sequential(layer, layer)) == 80


def test_bytes_follow_the_type_and_hold_what_is_saved() -> None:
    assert state_bytes(nn.Linear(3, 4).half()) == 32
    module = nn.Linear(3, 4)
    module.register_buffer("scratch", torch.zeros(100), persistent=False)
    assert state_bytes(module) == 64


def test_a_layer_with_parts_of_its_own_is_listed_and_counted_once():
    """EfficientNet-Lite0's convolutions hold a module for their padding; before, only its classifier was listed."""

    class Padded(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(1, 4, 3)
            self.padding_of_its_own = nn.ZeroPad2d(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(self.padding_of_its_own(x))

    module = nn.Sequential(Padded(), nn.Flatten(), nn.Linear(4 * 16, 3))
    table = {row.path: (row.parameters, row.macs) for row in layer_table(module, torch.zeros(2, 1, 4, 4))}
    assert table["0"] == (4 * 9 + 4, 16 * 4 * 9)
    assert table["2"] == (64 * 3 + 3, 64 * 3)
    assert sum(parameters for parameters, _ in table.values()) == count_parameters(module)
    assert sum(macs for _, macs in table.values()) == count_macs(module, torch.zeros(2, 1, 4, 4))

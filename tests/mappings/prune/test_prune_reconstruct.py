"""`prune.reconstruct`: what is left makes up for what is gone, exactly where it can."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from tests.mappings.parts import outputs
from tests.mappings.prunable import DATA, TASKS, context, vgg
from torch import Tensor, nn

from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Network
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.prune.reconstruct import Reconstruct
from mapsto.nn.networks.efficientnet_lite0 import efficientnet_lite0
from mapsto.nn.prune.least_squares import fittable, inputs_at, outputs_at, refitted

GENERATOR = torch.Generator().manual_seed(0)
BATCH = torch.rand(64, 1, 8, 8, generator=GENERATOR)


def outputs_of(module: nn.Module) -> Tensor:
    with torch.no_grad():
        return module(BATCH)


def applied(mapping: Any, network: Network) -> Network:
    return context().apply(mapping, network)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(7, 5), (7,)),
        (nn.Linear(7, 5, bias=False), (3, 7)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 9, 7)),
        (nn.Conv2d(4, 6, (3, 2), padding="same", dilation=(1, 2)), (4, 6, 7)),
        (nn.Conv2d(4, 6, (1, 3), padding=(0, 2), bias=False), (4, 5, 5)),
    ],
)
def test_rows_are_what_a_layer_computes_with(layer: Any, shape: tuple[int, ...]):
    net = nn.Sequential(layer, nn.ReLU())
    batches = list(torch.randn(6, *shape, generator=GENERATOR).split(4))
    outputs = layer.weight.shape[0]
    kept = torch.arange(1, outputs)
    given, wanted = inputs_at(net, batches, "0", 5), outputs_at(net, batches, {"0": kept}, 5)["0"]
    assert len(given) == len(wanted) > 0
    computed = given @ layer.weight.flatten(1).T + (0 if layer.bias is None else layer.bias)
    torch.testing.assert_close(computed[:, kept], wanted)


class Twins(nn.Module):
    """Its first layer's last two channels are mixtures of the others: nothing is lost with them."""

    def __init__(self, width: int = 6, groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, width, 3), nn.Conv2d(width, 4, 3, groups=groups, bias=bias)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.second(self.first(x)))).mean((-1, -2)))


@pytest.mark.parametrize("bias", [True, False])
def test_what_others_can_make_up_for_is_not_missed(bias: bool):
    torch.manual_seed(0)
    whole = Twins(bias=bias).eval()
    with torch.no_grad():
        mixture = torch.randn(2, 4)
        whole.first.weight[4:] = torch.einsum("ab,bcij->acij", mixture, whole.first.weight[:4])
        whole.first.bias[4:] = mixture @ whole.first.bias[:4] + 0.5
        small = Twins(4, bias=bias).eval()
        small.load_state_dict(
            whole.state_dict()
            | {name: whole.state_dict()[name][:4] for name in ("first.weight", "first.bias")}
            | {"second.weight": whole.second.weight[:, :4]}
        )
        before = small(BATCH).clone()
        kept = {"first": torch.arange(4), "second": torch.arange(4), "head": torch.arange(3)}
        refitted(small, whole, [BATCH[:32], BATCH[32:]], kept, places=36, ridge=1e-9)
        assert (before - whole(BATCH)).abs().max() > 0.1
        torch.testing.assert_close(small(BATCH), whole(BATCH), rtol=0, atol=1e-4)


def test_groups_are_fitted_each_for_itself():
    torch.manual_seed(0)
    whole, small = Twins(4, groups=2).eval(), Twins(4, groups=2).eval()
    small.load_state_dict(whole.state_dict() | {"second.weight": torch.zeros_like(whole.second.weight)})
    kept = {"second": torch.arange(4)}
    refitted(small, whole, [BATCH], kept, places=16, ridge=1e-9)
    torch.testing.assert_close(outputs_of(small), outputs_of(whole), rtol=0, atol=1e-3)


def test_layers_that_run_twice_are_left_alone():
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.once, self.twice = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.twice(self.twice(self.once(x)))

    assert fittable(Again(), torch.rand(2, 4)) == ["once"]


@pytest.mark.parametrize("field", [{"data": DATA}, {"tasks": TASKS}])
def test_a_pruned_network_comes_nearer_to_its_original(field: dict[str, Any]):
    original = vgg((8,), (12,))
    small = applied(Magnitude(macs=0.5), original)
    mended = applied(Reconstruct(teacher=original, **field), small)
    wanted, before, after = (outputs(network, BATCH) for network in (original, small, mended))
    assert (after - wanted).square().mean() < 0.5 * (before - wanted).square().mean()
    again = applied(Reconstruct(teacher=original, **field), small)
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in mended.tensors.items())
    assert mended.edits == small.edits


def test_what_it_cannot_work_with_is_refused():
    original = vgg((8,), (12,))
    small = applied(Magnitude(macs=0.5), original)
    with pytest.raises(DomainError, match="was not made from the teacher by edits"):
        applied(Reconstruct(teacher=vgg((8,), (16,)), data=DATA), small)
    with pytest.raises(DataError, match="only 4 samples"):
        applied(Reconstruct(teacher=original, data=DATA, samples=4), small)
    with pytest.raises(SpecError, match="either data or tasks"):
        Reconstruct(teacher=original)


class Same(nn.Conv2d):
    """Pads like TensorFlow: the odd zero right and below."""

    def forward(self, x: Tensor) -> Tensor:
        more = [(-(-size // 2) - 1) * 2 + 3 - size for size in reversed(x.shape[2:])]
        padding = [part for each in more for part in (each // 2, each - each // 2)]
        return nn.functional.conv2d(nn.functional.pad(x, padding), self.weight, self.bias, 2)


class Standardised(nn.Conv2d):
    """Computes with other weights than it holds."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


def test_convolutions_of_other_classes_are_fitted_where_they_pad_and_convolve() -> None:
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(
        Same(3, 4, 3, stride=2), nn.ReLU(), Standardised(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 1)
    ).eval()
    x = torch.randn(6, 3, 16, 16, generator=generator)
    assert fittable(module, x) == ["0", "4"]
    with torch.no_grad():
        rows = inputs_at(module, [x], "0", 64)
        wanted = outputs_at(module, [x], {"0": torch.arange(4)}, 64)["0"]
        same = cast("Same", module[0])
        assert same.bias is not None
        torch.testing.assert_close(rows @ same.weight.flatten(1).T + same.bias, wanted, rtol=1e-4, atol=1e-5)


def test_every_convolution_of_efficientnet_is_fitted() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    module = efficientnet_lite0(classes=3).eval()
    with torch.no_grad():
        found = fittable(module, torch.randn(1, 3, 64, 64))
    assert len(found) == sum(isinstance(part, nn.Conv2d | nn.Linear) for part in module.modules())
